"""Tokens extracted on demand, and kept on the disk while a detector trains on samples."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mafr.config import Config
from mafr.errors import MafrError
from mafr.features.extract import TOKEN_NAMES, Tokens
from mafr.features.sources.on_demand import IN_MEMORY, ScratchTokens
from mafr.features.sources.splits import split_of


def _tokens(seed: int) -> Tokens:
    g = torch.Generator().manual_seed(seed)
    index = torch.randint(0, 9, (1, 25, 3), generator=g, dtype=torch.int16)
    rgb, xyz, weight = (torch.rand(1, *shape, generator=g).half() for shape in ((4, 5, 5), (9, 6), (25, 3)))
    return Tokens(rgb, xyz, index, weight)


def test_tokens_come_back_from_files_that_go_with_the_object(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)  # read the environment again
    kept, made = ScratchTokens(), {k: _tokens(k) for k in range(0, 3 * IN_MEMORY, 2)}
    for k, tokens in made.items():
        assert k not in kept
        kept.put(k, tokens)
        few = len(kept) <= IN_MEMORY
        assert few == (not list(tmp_path.iterdir()))
    assert len(kept) == len(made)
    for k, tokens in made.items():
        found = kept.get(k)
        for name in TOKEN_NAMES:
            assert torch.equal(getattr(found, name), getattr(tokens, name))
            assert getattr(found, name).dtype == getattr(tokens, name).dtype
    assert len(list(tmp_path.rglob("*.npy"))) == len(TOKEN_NAMES) * (len(made) - IN_MEMORY)
    table = Path("/proc/self/maps")
    if table.exists():  # Linux
        assert f"{max(made)}-rgb.npy" in table.read_text()  # the last one found is mapped, not read
    del kept, found
    assert not list(tmp_path.iterdir())


class CountingExtractor:
    def __init__(self, config: Config) -> None:
        self.config, self.calls = config, []

    def extract(self, sample: int, draw: int = 0) -> Tokens:
        self.calls.append((sample, draw))
        return _tokens(sample)


def test_samples_are_extracted_once_or_drawn_at_each_access():
    samples, config = [5, 6, 7], Config.preset("smoke")
    once = split_of(samples, CountingExtractor(config))
    once.extract([0, 1])
    assert torch.equal(once.tokens([1, 2]).rgb, torch.cat([_tokens(6).rgb, _tokens(7).rgb]))
    assert not once.live and once.store.extractor.calls == [(5, 0), (6, 0), (7, 0)]

    drawn = split_of(samples, CountingExtractor(replace(config, extractor_mode="train")))
    drawn.extract([0, 1])  # of no use
    drawn.tokens([1, 1])
    drawn.seek(4)
    drawn.tokens([1, 0])
    assert drawn.live and drawn.store.extractor.calls == [(6, 0), (6, 1), (6, 4), (5, 4)]

    with pytest.raises(MafrError, match="without a feature extractor"):
        split_of(samples, None).tokens([0])
