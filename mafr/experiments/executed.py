"""Executed notebooks without what differs from machine to machine and from one execution to the next."""

from __future__ import annotations

import json
import re
from pathlib import Path

_VIEW = "application/vnd.jupyter.widget-view+json"
_STATE = "application/vnd.jupyter.widget-state+json"
_REFERENCE = re.compile(r"IPY_MODEL_([0-9a-f]{32})")


def tidied(text: str, root: Path) -> str:
    """A notebook (json) as papermill wrote it, without `root` in paths, times, random ids and chance cuts of texts."""
    notebook = json.loads(text.replace(str(root), "."))
    notebook = _with_counted_widgets(notebook)
    notebook["metadata"].pop("papermill", None)
    for cell in notebook["cells"]:
        for key in ("papermill", "execution"):
            cell["metadata"].pop(key, None)
        if "injected-parameters" in cell["metadata"].get("tags", []):
            cell["id"] = "injected-parameters"
        if "outputs" in cell:
            cell["outputs"] = _joined(cell["outputs"])
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _joined(outputs: list[dict]) -> list[dict]:
    """Neighbouring texts of one stream as one: where the kernel cuts them is chance."""
    joined: list[dict] = []
    for output in outputs:
        if output["output_type"] == "stream":
            text, last = "".join(output["text"]), joined[-1] if joined else {}
            if last.get("name") == output["name"]:
                text = "".join(joined.pop()["text"]) + text
            output = {**output, "text": text.splitlines(keepends=True)}
        joined.append(output)
    return joined


def _with_counted_widgets(notebook: dict) -> dict:
    """The widgets' random ids replaced by numbers, in the order in which the shown widgets refer to them."""
    state = notebook["metadata"].get("widgets", {}).get(_STATE, {}).get("state", {})
    numbers: dict[str, str] = {}

    def visit(name: str) -> None:
        if name in state and name not in numbers:
            numbers[name] = f"{len(numbers):032x}"
            for other in _REFERENCE.findall(json.dumps(state[name], sort_keys=True)):
                visit(other)

    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            visit(output.get("data", {}).get(_VIEW, {}).get("model_id", ""))
    for name in state:  # those that nothing shown refers to
        visit(name)
    if not numbers:
        return notebook
    state_in_order = {name: state[name] for name in numbers}
    notebook["metadata"]["widgets"][_STATE]["state"] = state_in_order
    ids = re.compile("|".join(numbers))
    return json.loads(ids.sub(lambda found: numbers[found[0]], json.dumps(notebook)))
