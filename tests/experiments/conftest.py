"""Runs on disk, invented, that results are read from."""

from support.fake_results import patched, result, stored

__all__ = ["patched", "result", "stored"]
