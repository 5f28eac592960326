"""What the disk refuses is one line with a way out; temporary files of ended processes do not stay."""

import errno
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mafr.cli import main
from mafr.disk import explained, size_text, writing
from mafr.errors import MafrError, StorageError
from mafr.features.extract import TOKEN_NAMES, Tokens
from mafr.features.sources import on_demand
from mafr.paths import scratch_folder, sweep, temporary_beside, write_atomically

GONE = 999_999_999  # no process has this number


@pytest.mark.parametrize("full", [OSError(errno.ENOSPC, "No space left on device"), OSError("22500 requested and 3016 "
                                  "written")], ids=["system", "numpy"])  # fmt: skip
def test_a_full_disk_names_the_folder_what_is_free_and_what_is_needed(tmp_path, monkeypatch, full):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9 - 3016, 3016))
    with pytest.raises(StorageError) as caught, writing(tmp_path / "a" / "b" / "rgb.npy", 22_500_000):
        raise full
    assert str(caught.value) == (
        f"{tmp_path}: the disk is full (3.0 kB free, 22.5 MB more needed); make room there; the same command continues "
        "from here"
    )
    assert isinstance(caught.value, MafrError) and isinstance(caught.value, OSError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # workers send it


def test_a_full_disk_while_a_file_is_written_names_its_folder_and_size(tmp_path, monkeypatch):
    def full(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    where = re.escape(str(tmp_path / "runs"))
    with pytest.raises(StorageError, match=rf"^{where}: the disk is full \(.* free, 2\.0 kB more needed\)"):
        write_atomically(tmp_path / "runs" / "metrics.json", "x" * 2000)
    assert list((tmp_path / "runs").iterdir()) == []


def test_tokens_in_the_scratch_folder_say_where_the_disk_is_full(monkeypatch):
    def full(path: Path, array: np.ndarray) -> None:
        raise OSError("22500 requested and 3016 written")

    monkeypatch.setattr(on_demand, "IN_MEMORY", 0)
    monkeypatch.setattr(np, "save", full)
    with pytest.raises(StorageError, match=r"mafr-tokens\.\S+: the disk is full \(.* free, 24 bytes more needed\)"):
        on_demand.ScratchTokens().put(0, Tokens(*(torch.zeros(2, 3) for _ in TOKEN_NAMES)))


def test_a_file_where_a_folder_is_needed_is_named(tmp_path):
    (tmp_path / "tables").write_text("")
    for path in (tmp_path / "tables" / "table1.csv", tmp_path / "tables" / "demo" / "table1.csv"):
        with pytest.raises(StorageError) as caught:
            write_atomically(path, "")
        assert str(caught.value).startswith(f"{tmp_path / 'tables'} is a file where a folder is needed; move it away")


def test_a_folder_where_a_file_is_needed_is_named(tmp_path):
    (tmp_path / "table1.csv").mkdir()
    with pytest.raises(StorageError, match=r"table1\.csv is a folder where a file is needed"):
        write_atomically(tmp_path / "table1.csv", "")
    assert [path.name for path in tmp_path.iterdir()] == ["table1.csv"]


def test_a_name_that_is_too_long_says_so_and_the_longest_possible_is_written(tmp_path):
    with pytest.raises(StorageError, match=r"^n{60}…: a name of 300 characters .* choose a shorter one"):
        write_atomically(tmp_path / ("n" * 300), "")
    write_atomically(tmp_path / ("n" * 255), "content")
    assert [path.name for path in tmp_path.iterdir()] == ["n" * 255]


def test_an_error_of_the_system_reaches_the_command_line_with_file_and_reason(tmp_path, monkeypatch, capsys):
    def refuse(arguments) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "a.npy"))

    monkeypatch.setattr("mafr.cli.inputs.print_settings", refuse)
    assert main(["config"]) == 1
    expected = f"mafr: {tmp_path / 'a.npy'}: Permission denied; change its rights, or choose another place; finished"
    assert capsys.readouterr().err.startswith(expected)
    assert explained(OSError("odd")) == "odd"


def test_sizes_in_words():
    assert [size_text(n) for n in (0, 999, 1000, 3_140_000, 57 * 10**9)] == ["0 bytes", "999 bytes", "1.0 kB", "3.1 MB",
                                                                            "57.0 GB"]  # fmt: skip


def test_the_next_process_sweeps_what_a_killed_one_left_and_nothing_else(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from mafr.paths import write_atomically\n"
        "Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_atomically(Path(sys.argv[1]) / 'metrics.json', 'x')"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    (left,) = tmp_path.iterdir()
    assert re.fullmatch(r"\.metrics\.json\..*\.\d+\.[0-9a-f]{16}\.tmp", left.name)
    host, own = socket.gethostname(), temporary_beside(tmp_path / "here")
    others = [own.name, f".a.{host}.{os.getppid()}.{'0' * 16}.tmp", f".a.elsewhere.{GONE}.{'0' * 16}.tmp", ".a.tmp"]
    for name in others:  # of this process, of one that is at work, of another machine, of nobody known
        (tmp_path / name).touch()
    (tmp_path / f".folder.{host}.{GONE}.{'0' * 16}.tmp").mkdir()
    write_atomically(tmp_path / "metrics.json", "y")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, "metrics.json"])


def test_scratch_folders_of_killed_processes_go_with_the_next_one(tmp_path):
    with scratch_folder("mafr-tokens", tmp_path) as name:
        left = Path(name.replace(f".{os.getpid()}.", f".{GONE}."))
        left.mkdir()
        sweep.cache_clear()  # as in the next process
        with scratch_folder("mafr-tokens", tmp_path) as other:
            assert sorted(map(str, tmp_path.iterdir())) == sorted([name, other])
