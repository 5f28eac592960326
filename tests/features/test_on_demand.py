"""Tokens kept on the disk while a detector trains on samples."""

from pathlib import Path

import torch

from mafr.features.extract import TOKEN_NAMES, Tokens
from mafr.features.sources.on_demand import IN_MEMORY, ScratchTokens


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
