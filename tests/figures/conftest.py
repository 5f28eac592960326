"""Runs on disk, invented, that figures are drawn from."""

from support.fake_results import patched, result, stored

__all__ = ["patched", "result", "stored"]
