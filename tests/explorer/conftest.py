"""Runs on disk, invented, that are explored."""

from support.fake_results import patched, result, stored

__all__ = ["patched", "result", "stored"]
