"""JupyterLab and Voilà in a browser: servers for the time of a test, notebooks opened and run, keys and requests."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.limits import GENEROUS
from support.places import CHECKOUT

LOCAL = "127.0.0.1"
ATTEMPTS = 5  # to start a server: another process may take the port that was free
# Settings of JupyterLab: no news, which it would ask first and then fetch from another host.
_SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
    "extensionmanager-extension/plugin": {"enabled": False},
    "notebook-extension/tracker": {"windowingMode": "none"},  # every cell is in the page, in view or not
}
_LAB = (
    "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser", "--IdentityProvider.token=",
    "--ServerApp.port_retries=0", f"--ServerApp.ip={LOCAL}", "--LabApp.extension_manager=readonly",
    "--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
)  # fmt: skip
_VOILA = (
    "-m", "voila", "--no-browser", f"--Voila.ip={LOCAL}", "--Voila.port_retries=0", "--show_tracebacks=True",
)  # fmt: skip
# The open notebook's panel, its cells and their outputs, for the scripts below.
_PANEL = """
const panel = window.opened, cells = [...panel.content.widgets];
const outputs = (cell) => cell.model.type === "code" ? cell.model.outputs.toJSON() : [];
"""
# Single letters and digits are commands of JupyterLab's command mode: they insert, cut, delete, retype and fold cells.
KEYS = (*"rmy1abxcvzjkolhdd", "\ue012", "\ue013", "\ue014", "\ue015")  # last: the arrows, as WebDriver writes them
_WIDGET = "application/vnd.jupyter.widget-view+json"
# Whatever below an element takes keys, shadow roots included.
_CONTROLS = """
const found = [], visit = (node) => {
  for (const child of node.querySelectorAll("*")) {
    if (child.shadowRoot) visit(child.shadowRoot);
    if (child.matches("select, input, textarea, button, summary, a[href], [tabindex], [contenteditable='true']")
      && !child.disabled && child.tabIndex >= 0 && child.checkVisibility()) found.push(child);
  }
};
"""
# The same of the cell that is the script's first argument.
_FIND = f"{_CONTROLS} cells[arguments[0]].node.querySelectorAll('.jp-OutputArea-output').forEach(visit);"


class CellError(AssertionError):
    """A cell of a notebook failed."""


@contextmanager
def jupyterlab(folder: Path, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """The address of a JupyterLab of that folder; its kernels import this checkout, with `env` set.

    Its configuration and data are its own and temporary: nothing of the user's is read or trusted. Skips the test
    without JupyterLab.
    """
    _needs("jupyterlab", "JupyterLab")
    with tempfile.TemporaryDirectory(prefix="jupyter", ignore_cleanup_errors=True) as scratch:
        for name, values in _SETTINGS.items():
            path = Path(scratch) / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values), encoding="utf-8")
        command = [*_LAB, f"--ServerApp.root_dir={folder}"]
        with _server(command, "--ServerApp.port", folder, Path(scratch), "/api/status", env) as address:
            yield address


@contextmanager
def voila(notebook: Path, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """The address of a notebook as Voilà serves it; see `jupyterlab`. Each visit runs it. Skips without Voilà."""
    _needs("voila", "Voilà")
    with tempfile.TemporaryDirectory(prefix="voila", ignore_cleanup_errors=True) as scratch:
        command = [*_VOILA, str(notebook)]
        # The page itself would run the notebook; what is asked here does not exist.
        with _server(command, "--port", notebook.parent, Path(scratch), "/voila/ready", env) as address:
            yield address


def _needs(module: str, name: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{name} is not installed")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind((LOCAL, 0))
        return one.getsockname()[1]


@contextmanager
def _server(
    command: Sequence[str], option: str, folder: Path, scratch: Path, probe: str, env: Mapping[str, str] | None
) -> Iterator[str]:
    """Run a server until the block ends, then end it and all its kernels; option: the one that takes its port."""
    own = {name: str(scratch / part) for name, part in (
        ("JUPYTER_CONFIG_DIR", "config"), ("JUPYTER_DATA_DIR", "data"), ("JUPYTER_RUNTIME_DIR", "runtime"),
        ("JUPYTERLAB_SETTINGS_DIR", "settings"), ("JUPYTERLAB_WORKSPACES_DIR", "workspaces"), ("IPYTHONDIR", "ipython"),
    )}  # fmt: skip
    search = os.pathsep.join(filter(None, (str(CHECKOUT), os.environ.get("PYTHONPATH"))))
    environment = os.environ | own | {"PYTHONPATH": search, "no_proxy": LOCAL} | dict(env or {})
    said = scratch / "said.txt"
    for _ in range(ATTEMPTS):
        port = _free_port()
        with said.open("wb") as log, ExitStack() as after:
            process = subprocess.Popen(
                [sys.executable, *command, f"{option}={port}"], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
            after.callback(_end, process)
            address = f"http://{LOCAL}:{port}"
            if _answers(address, probe, process, said):
                yield address
                return
    raise RuntimeError(f"no answer at {address}{probe}:\n{said.read_text(errors='replace')[-4000:]}")


def _answers(address: str, probe: str, process: subprocess.Popen, said: Path) -> bool:
    """Wait for the answer of a server, which tells its address once the port is its own; False: it has ended."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    until = time.monotonic() + GENEROUS
    while time.monotonic() < until and process.poll() is None:
        if f"{address}/" in said.read_text(errors="replace"):
            try:
                opener.open(address + probe, timeout=5).close()
                return True
            except urllib.error.HTTPError:  # an answer
                return True
            except OSError:
                pass
        time.sleep(0.1)
    return False


def _end(process: subprocess.Popen) -> None:
    """Kill a server and its descendants; kernels are in sessions of their own, out of reach of its process group."""
    import psutil  # ipykernel needs it

    with suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
        for one in (process, *family):  # the server first: it would start a killed kernel again
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(family, timeout=60)
    process.wait(timeout=60)


# ------------------------------------------------------------------ notebooks


def open_notebook(driver: object, address: str, path: str, timeout: float = GENEROUS, kernel: bool = True) -> None:
    """Show a notebook of a `jupyterlab` (path below its folder), with an idle kernel or with none.

    What the browser has logged before is dropped.
    """
    _leave(driver)
    driver.get(f"{address}/lab?reset")
    until(driver, "return !!window.jupyterapp", timeout, "JupyterLab did not start")
    preference = None if kernel else {"shouldStart": False, "shouldReuse": False}
    driver.execute_async_script("""
        const [path, preference, done] = arguments, app = window.jupyterapp;
        const options = {path, factory: "Notebook", ...(preference ? {kernelPreference: preference} : {})};
        app.restored.then(() => app.commands.execute("docmanager:open", options))
          .then((panel) => { window.opened = panel; return Promise.all([panel.revealed, panel.context.ready]); })
          .then(() => done());""",
        path, preference)  # fmt: skip
    ready = "kernel && kernel.connectionStatus === 'connected' && kernel.status === 'idle'" if kernel else "!kernel"
    until(driver, f"""
        {_PANEL} const session = panel.sessionContext.session, kernel = session && session.kernel;
        return panel.context.path === arguments[0] && panel.sessionContext.isReady && {ready};""",
        timeout, "the notebook was not ready", path)  # fmt: skip


def run_all(driver: object, timeout: float = GENEROUS, meanwhile: Callable[[], None] | None = None) -> None:
    """Run all cells of the open notebook; meanwhile: what is done once they have begun.

    Raises CellError with the first error of a cell.
    """
    driver.execute_script("""
        window.ran = false;
        window.jupyterapp.commands.execute("notebook:run-all-cells").finally(() => { window.ran = true; });""")
    if meanwhile is not None:
        meanwhile()
    until(driver, "return window.ran", timeout, "the cells were not done")
    errors = driver.execute_script(f"""
        {_PANEL} return cells.flatMap((cell, number) => outputs(cell).filter((one) => one.output_type === "error")
          .map((one) => `cell ${{number}}: ${{one.ename}}: ${{one.evalue}}\\n${{one.traceback.join("\\n")}}`));""")
    if errors:
        raise CellError(errors[0])
    left = driver.execute_script(f"""
        {_PANEL} return cells.flatMap((cell, number) => cell.model.type === "code" && !cell.model.executionCount
          && cell.model.sharedModel.getSource().trim() ? [number] : []);""")
    if left:
        raise CellError(f"did not run: cells {left}")


def cells(driver: object) -> list[dict]:
    """What keys could change of the open notebook: each cell's id, type, source, kinds of outputs, and being active."""
    return driver.execute_script(f"""
        {_PANEL} return cells.map((cell, number) => ({{
          id: cell.model.id, type: cell.model.type, source: cell.model.sharedModel.getSource(),
          outputs: outputs(cell).map((one) => one.data ? Object.keys(one.data).sort().join(" ") : one.output_type),
          shown: cell.node.querySelectorAll(".jp-OutputArea-output").length,
          active: number === panel.content.activeCellIndex,
        }}));""")


def widget_cell(driver: object) -> int:
    """The number of the first cell that shows a widget. Raises ValueError where none does."""
    for number, cell in enumerate(cells(driver)):
        if any(_WIDGET in kinds.split() for kinds in cell["outputs"]):
            return number
    raise ValueError("no cell shows a widget")


def controls(driver: object, cell: int, timeout: float = GENEROUS) -> list:
    """The elements in a cell's outputs that take keys, in shadow roots too; waits for the first."""
    return until(driver, f"{_PANEL} {_FIND} return found;", timeout, f"cell {cell} shows no control", cell)


def press(driver: object, cell: int, number: int, key: str) -> bool:
    """Type a key into a control of a cell, `controls`' number, in the notebook's command mode; False: it is gone."""
    from selenium.webdriver import ActionChains

    there = driver.execute_script(f"""
        {_PANEL} {_FIND} if (!found[arguments[1]]) return false;
        panel.content.activeCellIndex = arguments[0]; panel.content.mode = "command";
        found[arguments[1]].focus(); return true;""", cell, number)  # fmt: skip
    if there:
        ActionChains(driver, duration=0).send_keys(key).perform()
    return there


def key_taken(driver: object, cell: int, of_a_kind: int = 4) -> str | None:
    """The first of KEYS that changes the notebook when typed into a control of a cell's outputs, and that control.

    Tries the first controls of each kind: a widget may have a button for every sample.
    """
    seen = Counter()
    kind = "const {tagName, type, role} = arguments[0]; return [tagName, type, role].join(' ')"
    names = [(driver.execute_script(kind, one), one.get_attribute("outerHTML")[:150]) for one in controls(driver, cell)]
    for number, (sort, name) in enumerate(names):
        seen[sort] += 1
        if seen[sort] > of_a_kind or not press(driver, cell, number, ""):
            continue
        before = cells(driver)
        for key in KEYS:
            press(driver, cell, number, key)
            if cells(driver) != before:
                return f"{key!a} in {name}"
    return None


def image_outputs(driver: object) -> list[tuple[int, int, int]]:
    """The pictures that the open notebook shows in its outputs: (cell, width, height), pixels of the file."""
    found = driver.execute_async_script(f"""
        const done = arguments[0]; {_PANEL}
        const images = cells.flatMap((cell, number) =>
          [...cell.node.querySelectorAll(".jp-OutputArea-output img")].map((image) => [number, image]));
        Promise.allSettled(images.map(([, image]) => image.decode())).then(() => done(images
          .filter(([, image]) => image.naturalWidth && image.checkVisibility())
          .map(([number, image]) => [number, image.naturalWidth, image.naturalHeight])));""")
    return [tuple(one) for one in found]


def output_texts(driver: object, cell: int) -> list[str]:
    """The text of each output that a cell shows."""
    return driver.execute_script(
        f"{_PANEL} return [...cells[arguments[0]].node.querySelectorAll('.jp-OutputArea-output')]"
        ".map((one) => one.innerText);", cell)  # fmt: skip


def open_voila(driver: object, address: str, timeout: float = GENEROUS) -> None:
    """Show the notebook of a `voila`, its cells run, and wait for a widget. Raises CellError with a cell's error.

    What the browser has logged before is dropped.
    """
    _leave(driver)
    driver.get(address)  # the page is complete when the cells are
    failed = driver.execute_script("""
        return [...document.querySelectorAll(".jp-OutputArea-output[data-mime-type$=stderr]")]
          .map((one) => one.textContent).filter((text) => text.includes("Traceback (most recent call last)"));""")
    if failed:
        raise CellError(failed[0])
    until(driver, f"{_CONTROLS} document.querySelectorAll('.jp-OutputArea-output').forEach(visit);"
        "return found.length;", timeout, "Voilà shows no control")  # fmt: skip


# ------------------------------------------------------------------ what a page did


def offline(driver: object) -> None:
    """Let no request of the page leave this machine; `foreign_requests` sees them all the same."""
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["https://*", "wss://*"]})


def foreign_requests(driver: object) -> list[str]:
    """Addresses on other hosts that the browser has asked since the last call, web sockets included."""
    said = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [one["params"]["request"]["url"] for one in said if one["method"] == "Network.requestWillBeSent"]
    urls += [one["params"]["url"] for one in said if one["method"] == "Network.webSocketCreated"]
    asked = (url for url in urls if not url.startswith(("data:", "blob:", "about:")))
    return [url for url in asked if urlsplit(url).hostname != LOCAL]


def severe(driver: object) -> list[str]:
    """Severe messages of the browser's console since the last call, those of scripts and of failed requests."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


def _leave(driver: object) -> None:
    """Leave the page, also one with unsaved changes, and what it has logged."""
    driver.get("about:blank")
    for log in ("browser", "performance"):
        driver.get_log(log)


def until(driver: object, script: str, timeout: float, otherwise: str, *given: object) -> object:
    """What a script returns, once that is true or not empty. Raises TimeoutError."""
    until = time.monotonic() + timeout
    while not (found := driver.execute_script(script, *given)):
        if time.monotonic() > until:
            raise TimeoutError(f"{otherwise} within {timeout:.0f} s")
        time.sleep(0.05)
    return found
