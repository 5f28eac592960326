"""The files of the page as texts: its scripts in the order of loading, its style, and its markup."""

from pathlib import Path

_FOLDER = Path(__file__).parent
_SCRIPTS = (
    "decode", "scoring", "category", "cloud", "panels", "picture", "list", "samples", "sheet", "address", "controls",
    "pointing", "view", "explorer",
)  # fmt: skip


def read(name: str) -> str:
    """One file of this folder."""
    return (_FOLDER / name).read_text(encoding="utf-8")


def script(own: str) -> str:
    """All scripts, and after them what starts them in one place: `own` is its text."""
    return "\n".join([*(read(f"{name}.js") for name in _SCRIPTS), own])


def markup(head: str = "") -> str:
    """The frame with its controls; head: HTML at the left of its first line."""
    return read("frame.html").replace("{{head}}", head)
