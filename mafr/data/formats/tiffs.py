"""Tiff files, in whatever compression tifffile and imagecodecs know."""

import io
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tifffile

from mafr.errors import DataError

_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two: BigTIFF


class _Remarks(logging.Filter):
    """Holds back what tifffile logs about a file while this thread reads it: it would stand before our own error."""

    held = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        records = getattr(self.held, "records", None)
        if records is not None:
            records.append(record)
        return records is None


_LOGGER, _REMARKS = logging.getLogger("tifffile"), _Remarks()


def is_tiff(content: bytes) -> bool:
    """Whether a file's content begins as a tiff or BigTIFF does."""
    return content.startswith(_BEGINNINGS)


def decode_tiff(content: bytes, path: Path, advice: str = "copy or download it again") -> np.ndarray:
    """The first image of a tiff, in its own shape and type.

    advice: what to do about a damaged file. Raises DataError where it is damaged, or its compression is not known.
    """
    with _remarks() as remarks:
        try:
            values = tifffile.imread(io.BytesIO(content))
            if not values.size:
                raise ValueError(_text(remarks[0]) if remarks else "no image in it")
        except Exception as error:  # tifffile lets many kinds of errors through for damaged files
            remarks.clear()
            if unknown := _unknown_packing(str(error)):
                raise DataError(f"{path}: {unknown}") from error
            raise DataError(f"{path}: not a complete tiff ({error}); {advice}") from error
    return values


def tiff_shape(tiff: bytes | Path) -> tuple[int, ...]:
    """The shape of the first image of a tiff, its content or a file; () where there is none or it is damaged."""
    with _remarks() as remarks:
        try:
            with tifffile.TiffFile(io.BytesIO(tiff) if isinstance(tiff, bytes) else tiff) as file:
                return file.series[0].shape
        except Exception:  # as in `decode_tiff`, which says it
            return ()
        finally:
            remarks.clear()


@contextmanager
def _remarks() -> Iterator[list[logging.LogRecord]]:
    """Collect what tifffile logs; what is left of it afterwards is logged."""
    _LOGGER.addFilter(_REMARKS)  # once: a filter that is there is not added again
    records = _REMARKS.held.records = []
    try:
        yield records
    finally:
        _REMARKS.held.records = None
        for record in records:
            _LOGGER.handle(record)


def _text(record: logging.LogRecord) -> str:
    return re.sub(r"^<.*?> ", "", record.getMessage())  # without the reader's own name


def _unknown_packing(error: str) -> str:
    """The reason that an intact tiff cannot be unpacked, from tifffile's error; "" where it is damaged."""
    if "requires the 'imagecodecs' package" in error:
        return f"{error}; install it (pip install imagecodecs), or save the tiff without compression"
    found = re.search(r"<(COMPRESSION|PREDICTOR)\.(\w+): \d+> not supported|(\d+) is not a known COMPRESSION", error)
    if found is None:
        return ""
    return f"a tiff packed by {found[2] or f'method {found[3]}'}, which is not read; save it by LZW, zlib or not packed"
