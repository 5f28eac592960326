"""Every location of the project, resolved once from one root folder."""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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
    def weights(self) -> Path:
        """Downloaded weights (full profile)."""
        return self.root / "weights"


def temporary_beside(path: Path) -> Path:
    """A new name beside `path`, to write to and then rename; unique across machines."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def process_temporary(path: Path) -> Path:
    """A hidden name beside `path` for this process; `leftovers` finds it when the process has ended."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")


def leftovers(path: Path) -> list[Path]:
    """Files of `process_temporary` from ended processes of this machine or earlier calls; `path` may be a pattern."""
    found = path.parent.glob(f".{path.name}.{socket.gethostname()}.*.tmp")
    numbers = {left: left.name.split(".")[-2] for left in found}
    return sorted(left for left, number in numbers.items() if number.isdigit() and not _is_another(int(number)))


def _is_another(process: int) -> bool:
    """Whether a process is running, and not this one."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs for another user
        pass
    return True


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file so that it appears whole or not at all (temporary file beside it, then rename)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping | list) -> None:
    """Write JSON atomically, indented, with keys in the given order."""
    write_atomically(path, json.dumps(value, indent=1) + "\n")
