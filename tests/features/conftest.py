"""Features on disk, whole, for tests that change them."""

from support.stored_features import made, paths

__all__ = ["made", "paths"]
