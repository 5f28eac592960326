"""Notebooks: execution where out of date, removal of differences between machines and executions."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mafr.config import ALL_DATASETS, Config
from mafr.disk import writing
from mafr.errors import ConfigError, MafrError, notice
from mafr.experiments.plan import all_runs
from mafr.experiments.run_store import RECORD
from mafr.parallel.processes import environment
from mafr.parallel.progress import map_parallel
from mafr.paths import PACKAGE, Paths, leftovers, process_temporary, write_atomically, write_json

TABLE_NOTEBOOKS = {1: "03", 2: "04", 3: "05", 4: "06", 5: "07"}
OWN_NOTEBOOKS = ("01", "08", "09")  # work on any data; the others show the paper's tables
# Environment of kernels: one thread each, as several run at once; no progress bars, no hidden warnings in outputs.
_KERNEL = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONWARNINGS": "default"}
_KERNEL_NAME = "python3"
_VIEW = "application/vnd.jupyter.widget-view+json"


def run_notebooks(
    config: Config, paths: Paths, workers: int | None = 1, names: Sequence[str] | None = None, force: bool = False
) -> list[Path]:
    """Execute the notebooks by papermill into `paths.executed`; those that are up to date are kept.

    A notebook is up to date while its source, the package, the stored runs and the files that it needs are the
    same. One whose files are absent (`needed_files`) is left as it is, with a line on stderr. Returns the
    executed copies. Notebooks show a profile as it is: raises ConfigError for changed settings.
    """
    if not is_preset(config, paths):
        raise ConfigError(
            "the notebooks show a profile as it is, without --set and --random-weights; to change a setting there, "
            "edit the `parameters` cell and the line below it in Jupyter"
        )
    sources = sorted(paths.notebooks.glob("[0-9]*.ipynb"))
    if names:
        sources = [s for s in sources if any(s.stem.startswith(name) for name in names)]
    if not sources:
        raise MafrError(f"no notebook matches in {paths.notebooks}; run from the checkout, or set MAFR_HOME to it")
    for left in leftovers(paths.executed / "*.ipynb"):
        shutil.rmtree(left, ignore_errors=True)
    state = _state(config, paths)
    jobs, shown = [], []
    for source in sources:
        files, absent = needed_files(source, paths.root)
        if absent:
            notice(f"{source.name} is left as it is: there is no {', '.join(absent)}")
            continue
        shown.append(paths.executed / source.name)
        seen = "".join(f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}\n" for file in files)
        stamp = hashlib.sha256(source.read_bytes() + (state + seen).encode()).hexdigest()
        if force or not _is_current(paths, source, stamp):
            jobs.append((source, paths, config.profile, stamp))
    jobs.sort(key=lambda job: -job[0].stat().st_size)  # the longest first, so that it is not alone at the end
    map_parallel(_run_notebook, jobs, workers, what="notebooks")
    return shown


def needed_files(source: Path, root: Path) -> tuple[list[Path], list[str]]:
    """The files that a notebook needs beside the profile's own data: (those found, patterns without any).

    Its metadata lists them, `"mafr": {"needs": [PATTERN, ...]}`: paths under `root` or absolute ones, with * and
    environment variables. Raises MafrError for a file that is no notebook.
    """
    try:
        needs = json.loads(source.read_text(encoding="utf-8"))["metadata"].get("mafr", {}).get("needs", [])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MafrError(f"{source} is no notebook ({error}); restore the file") from error
    files, absent = [], []
    for pattern in needs:
        path = Path(os.path.expandvars(pattern))
        folder = Path(path.anchor) if path.is_absolute() else root
        found = sorted(folder.glob(str(path.relative_to(path.anchor))))
        files += found
        absent += [] if found else [pattern]
    return files, absent


def is_preset(config: Config, paths: Paths) -> bool:
    """Whether the settings are the profile's own; a data set of the user's own has other categories in any profile."""
    overrides = None
    if paths.data_root:
        overrides = {"generated": False} | {f"{name}_categories": config.categories(name) for name in ALL_DATASETS}
    return config == Config.preset(config.profile, config.variant, overrides)


def own_notebooks(names: Sequence[str]) -> list[str]:
    """The notebooks to execute on data that lacks published categories. Raises ConfigError for others among `names`."""
    odd = [name for name in names if not name.startswith(OWN_NOTEBOOKS)]
    if odd:
        raise ConfigError(
            f"notebook {', '.join(odd)} shows the paper's tables, which need all published categories; on your own "
            f"data there are {', '.join(OWN_NOTEBOOKS)}"
        )
    return list(names) or list(OWN_NOTEBOOKS)


def _state(config: Config, paths: Paths) -> str:
    """A digest of what all notebooks read: settings, files of the package, finished runs, written tables."""
    digest = hashlib.sha256(config.digest().encode())
    for path in sorted(PACKAGE.rglob("*")):  # pages, styles and small weights, too
        name = path.relative_to(PACKAGE)
        if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in name.parts):
            digest.update(_sum_of(name, path).encode())
    # Only runs of the tables: those that a notebook adds itself must not make it out of date.
    for run in all_runs(config):
        path = run.folder(paths) / RECORD
        if path.is_file():
            digest.update(_sum_of(path.parent.name, path).encode())
    # Verdicts and sections that read tables of other commands, such as `mafr differences` and `mafr develop`.
    folders = dict.fromkeys((paths.tables, *(paths.root / "tables" / name for name in ("development", "real"))))
    for path in (path for folder in folders for path in sorted(folder.glob("*.csv"))):
        digest.update(_sum_of(path.name, path).encode())
    return digest.hexdigest()


def _sum_of(name: object, path: Path) -> str:
    """A file's name and the SHA-256 of its content."""
    return f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def _stamp_file(paths: Paths, source: Path) -> Path:
    return paths.root / "runs" / paths.profile / "notebooks" / f"{source.stem}.json"


def _is_current(paths: Paths, source: Path, stamp: str) -> bool:
    try:
        written = json.loads(_stamp_file(paths, source).read_text(encoding="utf-8"))["stamp"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
    return written == stamp and (paths.executed / source.name).exists()


def _run_notebook(job: tuple[Path, Paths, str, str]) -> None:
    import papermill

    source, paths, profile, stamp = job
    target = paths.executed / source.name
    parameters = {"profile": profile}
    if paths.data_root:
        parameters["data_root"] = str(paths.data_root)
    scratch = process_temporary(target)  # a folder, for papermill wants the usual suffix
    temporary = scratch / target.name
    try:
        with writing(target):
            scratch.mkdir(parents=True, exist_ok=True)
            with environment(_KERNEL | {"MAFR_HOME": str(paths.root)}), _kernel_named(source):
                papermill.execute_notebook(
                    str(source), str(temporary), parameters, kernel_name=_KERNEL_NAME, cwd=str(paths.notebooks),
                    progress_bar=False, log_output=False, extra_arguments=["--IPKernelApp.log_level=50"],
                )  # fmt: skip
        write_atomically(target, tidied(temporary.read_text(encoding="utf-8"), paths.root))
    except papermill.PapermillExecutionError as error:
        raise MafrError(f"{source.name}, cell {error.exec_count}: {error.ename}: {error.evalue}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    write_json(_stamp_file(paths, source), {"stamp": stamp})


@contextmanager
def _kernel_named(source: Path) -> Iterator[None]:
    """Raise MafrError, naming the kernel, where it cannot be started or dies."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
    from nbclient.exceptions import DeadKernelError

    again = f"install it again: `{sys.executable} -m pip install --force-reinstall ipykernel`"
    try:
        yield
    except NoSuchKernel as error:
        raise MafrError(f"{source.name}: Jupyter knows no kernel {_KERNEL_NAME}; {again}") from error
    except (DeadKernelError, FileNotFoundError, PermissionError, RuntimeError) as error:
        kernel = f"the kernel {_KERNEL_NAME} ({KernelSpecManager().get_kernel_spec(_KERNEL_NAME).argv[0]})"
        if isinstance(error, DeadKernelError):
            raise MafrError(
                f"{source.name}: {kernel} died, most likely for lack of memory; run the same command again, with fewer "
                "--workers"
            ) from error
        raise MafrError(f"{source.name}: {kernel} could not be started ({error}); {again}") from error


# ------------------------------------------------------------------ tidying


def tidied(text: str, root: Path) -> str:
    """A notebook (json) as papermill wrote it, without `root` in paths, times, random ids and chance cuts of texts."""
    notebook = json.loads(text.replace(str(root), "."))
    notebook = _without_widgets(notebook)
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
    """Neighbouring texts of one stream as one: the kernel cuts them at random places."""
    joined: list[dict] = []
    for output in outputs:
        if output["output_type"] == "stream":
            text, last = "".join(output["text"]), joined[-1] if joined else {}
            if last.get("name") == output["name"]:
                text = "".join(joined.pop()["text"]) + text
            output = {**output, "text": text.splitlines(keepends=True)}
        joined.append(output)
    return joined


def _without_widgets(notebook: dict) -> dict:
    """Without the widgets' stored state, which only the kernel that is gone could use; their random ids as numbers.

    A widget leaves its text, and the picture in the cell after it.
    """
    notebook["metadata"].pop("widgets", None)
    numbers: dict[str, str] = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if view := output.get("data", {}).get(_VIEW):
                view["model_id"] = numbers.setdefault(view["model_id"], f"{len(numbers):032x}")
    return notebook
