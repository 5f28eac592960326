"""Tokens of samples that are in no feature store, on the disk while an object lives."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import torch

from mafr.features.extract import TOKEN_NAMES, Tokens

IN_MEMORY = 8  # samples; one that is only looked at need not go through the disk
_ON_DISK = Path("/var/tmp")  # where it is there; /tmp may be memory


class ScratchTokens:
    """Tokens by number: a few in memory, the rest in mapped files of a temporary folder that goes with the object.

    So memory does not grow with the number of samples. The environment's TMPDIR decides where the folder is, if set.
    """

    def __init__(self) -> None:
        self._few: dict[int, Tokens] = {}
        self._filed: set[int] = set()
        self._folder: tempfile.TemporaryDirectory | None = None

    def __contains__(self, number: int) -> bool:
        return number in self._few or number in self._filed

    def __len__(self) -> int:
        return len(self._few) + len(self._filed)

    def put(self, number: int, tokens: Tokens) -> None:
        """Keep one sample's tokens (B = 1)."""
        if len(self._few) < IN_MEMORY:
            self._few[number] = tokens
            return
        for name in TOKEN_NAMES:
            np.save(self._path(number, name), getattr(tokens, name).numpy())
        self._filed.add(number)

    def get(self, number: int) -> Tokens:
        """One sample's tokens; not to be written to."""
        if number in self._few:
            return self._few[number]
        # "c": torch wants to be able to write; the file would stay as it is.
        arrays = (np.load(self._path(number, name), mmap_mode="c") for name in TOKEN_NAMES)
        return Tokens(*map(torch.from_numpy, arrays))

    def _path(self, number: int, name: str) -> Path:
        if self._folder is None:
            place = _ON_DISK if "TMPDIR" not in os.environ and os.access(_ON_DISK, os.W_OK) else None
            self._folder = tempfile.TemporaryDirectory(prefix="mafr-tokens-", dir=place)
        return Path(self._folder.name) / f"{number}-{name}.npy"
