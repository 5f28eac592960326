"""Freed memory: kept for the next block of its size, or returned to the system (glibc)."""

import ctypes
from functools import lru_cache


@lru_cache(maxsize=1)
def keep_freed_memory() -> None:
    """Let the C library keep freed blocks instead of returning them (glibc; elsewhere nothing happens).

    A step allocates the same blocks again and again; clearing fresh pages each time would take a third of a step at
    full size. Blocks of 256 MB and more are still returned, and of the rest at most 2 GB is kept.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
    # Older versions take no more than 32 MB; setting one threshold alone would only stop the other from adapting.
    if mallopt(m_mmap_threshold, 2**28) or mallopt(m_mmap_threshold, 2**25):
        mallopt(m_trim_threshold, 2**31 - 1)


def release_freed_memory() -> None:
    """Return what `keep_freed_memory` has kept: the next training needs blocks of other sizes (glibc only)."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):
        return
