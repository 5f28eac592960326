"""Every location of the project, resolved once from one root folder."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mafr.disk import writing

PACKAGE = Path(__file__).resolve().parent  # the sources and the small weights


@dataclass(frozen=True)
class Paths:
    """Where a profile's files lie."""

    root: Path
    profile: str
    data_root: Path | None = None  # the folder of the data sets (raw/ and processed/), if not below the root
    variation: str = ""  # the name of results with changed settings, which go to separate subfolders

    @classmethod
    def resolve(
        cls, profile: str, root: str | Path | None = None, data_root: str | Path | None = None, variation: str = ""
    ) -> Paths:
        """`root`, else the environment variable MAFR_HOME, else the checkout, else the current folder."""
        if root is None:
            root = os.environ.get("MAFR_HOME")
        if root is None:
            checkout = PACKAGE.parent
            root = checkout if (checkout / "notebooks").is_dir() else Path.cwd()
        return cls(
            Path(root).expanduser().resolve(),
            profile,
            Path(data_root).expanduser().resolve() if data_root else None,
            variation,
        )

    @property
    def options(self) -> str:
        """The command-line options that lead here, for messages."""
        return f"--profile {self.profile}" + (f" --data-root {self.data_root}" if self.data_root else "")

    @property
    def data(self) -> Path:
        return self.data_root or self.root / "data" / self.profile

    def raw(self, dataset: str) -> Path:
        """Raw folders as the data set is published."""
        return self.data / "raw" / dataset

    def processed(self, dataset: str) -> Path:
        """Preprocessed copy: `<category>/<split>/<defect>/{rgb,xyz,gt}`."""
        return self.data / "processed" / dataset

    def features(self, dataset: str) -> Path:
        return self.root / "features" / self.profile / dataset

    def runs(self, dataset: str) -> Path:
        return self.root / "runs" / self.profile / dataset

    @property
    def notebooks(self) -> Path:
        """The notebooks' sources: under the root, or in the checkout where the root has none."""
        own = self.root / "notebooks"
        return own if any(own.glob("*.ipynb")) else PACKAGE.parent / "notebooks"

    def _output(self, name: str) -> Path:
        # The repository shows the demo profile's outputs; all others go to subfolders.
        folder = self.root / name
        if self.profile != "demo":
            folder = folder / self.profile
        elif self.data_root:
            folder = folder / "own_data"
        return folder / self.variation if self.variation else folder

    @property
    def tables(self) -> Path:
        return self._output("tables")

    @property
    def figures(self) -> Path:
        return self._output("figures")

    @property
    def executed(self) -> Path:
        return self._output("notebooks/executed")

    @property
    def site(self) -> Path:
        return self._output("site")

    @property
    def weights(self) -> Path:
        """Downloaded weights (full profile)."""
        return self.root / "weights"


def temporary_beside(path: Path) -> Path:
    """A new hidden name beside `path`, to write to and then rename; `sweep` finds it when its process has ended."""
    # Cut, so that a name which the disk just allows can be written.
    return path.with_name(f".{path.name[:40]}.{_owner()}.{secrets.token_hex(8)}.tmp")


def process_temporary(path: Path) -> Path:
    """A hidden name beside `path` for this process; `leftovers` finds it when the process has ended."""
    return path.with_name(f".{path.name}.{_owner()}.tmp")


def scratch_folder(name: str, place: Path | None) -> tempfile.TemporaryDirectory:
    """A temporary folder in `place` (None: the system's) that goes with the object; those of ended processes go now."""
    folder = Path(tempfile.gettempdir() if place is None else place)
    sweep(folder)
    return tempfile.TemporaryDirectory(prefix=f".{name}.{_owner()}.", suffix=".tmp", dir=folder)


def leftovers(path: Path) -> list[Path]:
    """Files of `process_temporary` from ended processes of this machine or earlier calls; `path` may be a pattern."""
    found = path.parent.glob(f".{path.name}.{socket.gethostname()}.*.tmp")
    numbers = {left: left.name.split(".")[-2] for left in found}
    return sorted(left for left, number in numbers.items() if number.isdigit() and not _is_another(int(number)))


@lru_cache(maxsize=4096)
def sweep(folder: Path) -> None:
    """Delete what ended processes of this machine have left of `temporary_beside` in a folder; once per process."""
    ours = re.compile(rf"\..*\.{re.escape(socket.gethostname())}\.(\d+)\.[0-9a-z_]{{8,16}}\.tmp")
    for left in [path for path in folder.iterdir() if (found := ours.fullmatch(path.name)) and _ended(int(found[1]))]:
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            with suppress(OSError):  # another process was faster, or it is another user's
                left.unlink()


def _owner() -> str:
    """This machine and process, as part of a temporary file's name."""
    return f"{socket.gethostname()}.{os.getpid()}"


def _ended(process: int) -> bool:
    return process != os.getpid() and not _is_another(process)


def _is_another(process: int) -> bool:
    """Whether a process is running, and not this one."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it runs for another user
        pass
    return True


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file so that it appears whole or not at all (temporary file beside it, then rename).

    Raises StorageError where the disk refuses it.
    """
    content = content.encode() if isinstance(content, str) else content
    with writing(path, len(content)):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        temporary = temporary_beside(path)
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def writable_folder(folder: Path) -> Iterator[Path]:
    """A folder that is there and can be written to, for what the block makes: seen before the work, not after it.

    Folders made for it go where the block fails and leaves them empty. Raises StorageError where the disk refuses it.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            sweep(folder)
            probe = temporary_beside(folder / "probe")
            probe.touch()
            probe.unlink()
        yield folder
    except BaseException:
        for place in made:
            with suppress(OSError):  # not empty, or never made
                place.rmdir()
        raise


def write_json(path: Path, value: Mapping | list) -> None:
    """Write JSON atomically, indented, with keys in the given order."""
    write_atomically(path, json.dumps(value, indent=1) + "\n")
