"""Where compiled loops are kept: by all that decides them, and not for ever."""

import os
import time
from pathlib import Path

import pytest

from mafr import compiled


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of loops, whose compiled ones go below it."""
    monkeypatch.setattr(compiled.config, "CACHE_DIR", "")
    folder = tmp_path / "loops"
    folder.mkdir()
    (folder / "one.py").write_text("a = 1")
    return folder


def kept(sources: Path) -> Path:
    """As in a new process."""
    return Path(compiled._cache_folder.__wrapped__(sources))


def test_the_folder_follows_from_the_sources_and_from_the_options(sources, tmp_path, monkeypatch):
    first = kept(sources)
    assert first.is_dir() and first == kept(sources)
    (sources / "one.py").write_text("a = 2")
    second = kept(sources)
    options = tmp_path / "compiled.py"
    options.write_text(Path(compiled.__file__).read_text().replace('"error_model": "numpy"', '"error_model": "python"'))
    monkeypatch.setattr(compiled, "__file__", str(options))
    assert len({first, second, kept(sources)}) == 3


def test_folders_that_nobody_has_opened_for_long_go(sources):
    old = kept(sources)
    (old / "one.nbi").write_text("")
    (sources / "one.py").write_text("a = 2")
    recent = kept(sources)
    (sources / "one.py").write_text("a = 3")
    other = sources / "__pycache__" / "one.pyc"
    other.write_text("")
    for path in (old, other):
        os.utime(path, (0, 0))
    newest = kept(sources)
    assert sorted(other.parent.iterdir()) == sorted([recent, newest, other])
    os.utime(newest, (0, 0))
    assert kept(sources) == newest and time.time() - newest.stat().st_mtime < 3600  # opened again: in use
