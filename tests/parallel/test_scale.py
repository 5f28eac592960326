"""Runs on a real local Dask cluster and in local processes, with a worker killed in the middle of a run."""

import os
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import distributed
import pytest

from mafr import training
from mafr.cli import main
from mafr.config import Config
from mafr.data import FolderDataset, open_dataset
from mafr.detector import Detector
from mafr.device import native_bfloat16
from mafr.errors import ConfigError, DataError, MafrError
from mafr.experiments import execute as execution
from mafr.experiments.execute import execute, run_all
from mafr.experiments.plan import Run
from mafr.features.extract import FeatureExtractor
from mafr.features.sources.splits import gpu_count, store_folder
from mafr.features.sources.store import build_store
from mafr.parallel import dask as cluster
from mafr.parallel.dask import Cluster
from mafr.parallel.progress import default_workers, map_parallel
from mafr.paths import Paths

SAME = ("metrics", "scores", "history", "threshold", "run_digest", "data_fingerprint")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The scheduler of a cluster of two worker processes."""
    settings = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": ":0"}
    with distributed.LocalCluster(**settings, silence_logs=50) as local:
        yield local.scheduler_address


@pytest.fixture
def connected(smoke, address) -> Iterator[Cluster]:
    _, paths = smoke
    with Cluster.of(address, paths) as connection:
        yield connection


@pytest.fixture(scope="module")
def undisturbed(smoke) -> dict[Run, dict]:
    """Four runs and their records, made in turn in this process."""
    config, paths = smoke
    config = replace(config, seed=11)
    runs = [Run("mvtec3d", c, config, shots) for c in config.categories("mvtec3d") for shots in (2, 3)]
    return run_all(runs, paths, workers=1)


def watched_job(job: tuple[Run, Paths]) -> dict:
    """`execute`, telling what it does in a log; the first to have trained the victim waits there for its death."""
    run, paths, *_ = job
    resumed = bool(list(run.folder(paths).glob("checkpoint-*.pt")))
    with (paths.root / "log").open("a") as log:
        log.write(f"{run.category} {run.shots} {'resumed' if resumed else 'new'}\n")
    accident = paths.root / "accident"
    training.CHECKPOINT_SECONDS = 0.0  # one after every epoch
    real = Detector.answer

    def wait_for_death(*arguments):
        try:
            with accident.open("x") as file:
                file.write(str(os.getpid()))
        except FileExistsError:
            return real(*arguments)
        time.sleep(600)
        raise TimeoutError("nobody came to kill this process")

    victim = run.shots == 3 and run.category == "tire"
    Detector.answer = wait_for_death if victim else real
    try:
        return execute(run, paths)
    finally:
        Detector.answer = real


def kill_victim(paths: Paths, over: threading.Event, killed: list[int]) -> None:
    """Wait for the accident, however long the machine takes to come to it, or until the runs are over."""
    accident = paths.root / "accident"
    while not over.wait(0.1):
        if accident.exists() and (text := accident.read_text()):
            os.kill(int(text), signal.SIGKILL)
            killed.append(int(text))
            return


@pytest.mark.parametrize("where", ["cluster", "processes"])
def test_a_killed_worker_loses_one_run_and_that_is_done_again(
    smoke, undisturbed, address, where, tmp_path, monkeypatch
):
    (_, paths), runs = smoke, list(undisturbed)
    # The same data and features under another root, without the runs.
    elsewhere = replace(paths, root=tmp_path)
    for name in ("data", "features"):
        (tmp_path / name).symlink_to(paths.root / name)
    monkeypatch.setattr(execution, "execute_job", watched_job)
    over, killed = threading.Event(), []
    killer = threading.Thread(target=kill_victim, args=(elsewhere, over, killed))
    killer.start()
    try:
        if where == "cluster":
            with Cluster.of(address, elsewhere) as connection:
                records = run_all(runs, elsewhere, connection)
        else:
            records = run_all(runs, elsewhere, workers=2)
    finally:
        over.set()
        killer.join()
    assert len(killed) == 1
    assert list(records) == runs
    for run in runs:
        assert {name: undisturbed[run][name] for name in SAME} == {name: records[run][name] for name in SAME}
        for name in ("residuals.npz", "detector/model.safetensors"):
            assert (run.folder(elsewhere) / name).read_bytes() == (run.folder(paths) / name).read_bytes()
        assert not list(run.folder(elsewhere).glob("*.tmp"))
    done = Counter((tmp_path / "log").read_text().splitlines())
    assert done == Counter(["bagel 2 new", "bagel 3 new", "tire 2 new", "tire 3 new", "tire 3 resumed"])


def refuse(number: int) -> int:
    raise DataError(f"file {number} is damaged")


def full_disk(number: int) -> int:
    raise OSError(28, "No space left on device")


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def together(folder: Path) -> int:
    """How many others were at work in the same process."""
    mark = folder / str(os.getpid())
    mark.touch(exist_ok=False)
    time.sleep(0.05)
    mark.unlink()
    return os.getpid()


def test_errors_of_an_item_arrive_as_they_are(connected):
    with pytest.raises(DataError, match=r"file \d is damaged"):
        map_parallel(refuse, [1, 2, 3], connected)
    with pytest.raises(OSError, match="No space left"):
        map_parallel(full_disk, [1, 2, 3], connected)
    assert map_parallel(abs, [-1, -2, -3], connected) == [1, 2, 3]


def test_the_command_line_sends_its_work_to_a_scheduler(smoke, address, monkeypatch, capsys):
    _, paths = smoke
    monkeypatch.setenv("MAFR_HOME", str(paths.root))
    shutil.rmtree(Run("mvtec3d", "tire", replace(Config.preset("smoke"), seed=13), 2).folder(paths), ignore_errors=True)
    options = ["--profile", "smoke", "--set", "seed=13", "--scheduler", address]
    command = ["run", "--category", "tire", "--shots", "2", "--variant", "both", *options]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert printed.out.count("mvtec3d/tire") == 2
    assert main(["features", *options]) == 0
    assert not list(paths.root.rglob(".seen-by-workers-*"))


def test_what_is_missing_is_named(smoke, address, monkeypatch, capsys):
    _, paths = smoke
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    for nobody in ("tcp://127.0.0.1:9", "nonsense://host:1"):
        with pytest.raises(ConfigError, match=f"no Dask scheduler answers at {nobody} .*`dask scheduler`"):
            Cluster.of(nobody, paths)
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.setenv("MAFR_HOME", str(paths.root))
    assert main(["features", "--profile", "smoke", "--scheduler", address]) == 1
    assert "pip install -e '.[dask]'" in capsys.readouterr().err


def test_a_worker_of_another_version_is_refused(smoke, address, monkeypatch):
    _, paths = smoke
    monkeypatch.setattr(cluster, "source_digest", lambda: "other sources")
    with pytest.raises(ConfigError, match=r"the worker on \S+ has another copy of mafr .*install the same"):
        Cluster.of(address, paths)
    assert not list(paths.root.rglob(".seen-by-workers-*"))


def test_workers_of_another_precision_are_refused(smoke, address, monkeypatch):
    config, paths = smoke
    with Cluster.of(address, paths, config=config) as connection:  # all the same
        others = replace(connection._here, place="cuda in bfloat16")
        monkeypatch.setattr(connection, "_here", others)
        with pytest.raises(ConfigError, match=r"the worker on \S+ would compute on cpu in float32, the others on cuda"):
            list(connection.run(float, ["1"]))
    with pytest.raises(ConfigError, match=r'the worker on \S+: precision is "tf32"'):
        Cluster.of(address, paths, config=replace(config, precision="tf32"))


def test_workers_without_the_same_bytes_are_refused(smoke, address, monkeypatch):
    _, paths = smoke
    monkeypatch.setattr(cluster, "limited", lambda: "x86")
    with pytest.raises(ConfigError, match=r"the worker on \S+ was started with no limit, this .* `same-bytes x86`"):
        Cluster.of(address, paths)


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="needs a path that means another folder elsewhere")
@pytest.mark.parametrize("kind", ["folders", "read_only"])
def test_a_worker_that_does_not_see_the_files_is_named(address, tmp_path, monkeypatch, kind):
    (tmp_path / "bagel").mkdir()
    monkeypatch.chdir(tmp_path)  # here only: the workers have another current folder
    folders = {"folders": [], "read_only": [], kind: [Path("/proc/self/cwd")]}
    with pytest.raises(ConfigError, match=r"the worker on \S+ does not see /proc/self/cwd as it is on .*same path"):
        Cluster(address, **folders)
    assert [path.name for path in tmp_path.iterdir()] == ["bagel"]


def test_workers_with_threads_do_one_item_at_a_time_and_a_deadly_item_is_an_error(tmp_path):
    settings = {"n_workers": 1, "threads_per_worker": 3, "processes": True, "dashboard_address": ":0"}
    with (
        distributed.LocalCluster(**settings, silence_logs=50) as local,
        Cluster(local.scheduler_address, [tmp_path]) as crew,
    ):
        processes = map_parallel(together, [tmp_path] * 6, crew)
        assert len(set(processes)) == 1
        local.scheduler.allowed_failures = 0
        with pytest.raises(MafrError, match=r"were killed again and again while working on parts.*fewer workers"):
            map_parallel(die, [1, 2], crew, what="parts")


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_second_execution_of_a_run_keeps_the_first_ones_files(smoke, monkeypatch):
    """A worker that was thought dead finishes after the one that repeated its run, and the other way round."""
    config, paths = smoke
    run = Run("mvtec3d", "bagel", replace(config, seed=17), 2)
    real, kept = Detector.answer, {}

    def overtaken(*arguments):
        monkeypatch.setattr(Detector, "answer", real)
        kept["record"] = execute(run, paths)
        kept["times"] = times(run.folder(paths))
        return real(*arguments)

    monkeypatch.setattr(Detector, "answer", overtaken)
    assert execute(run, paths) == kept["record"]
    assert kept["times"] == times(run.folder(paths))


class Overtaken:
    """A data set whose features another process stores as soon as somebody reads its first sample."""

    def __init__(self, samples: FolderDataset, store) -> None:
        self.samples, self.store, self.times = samples, store, {}
        self.category, self.split, self.fingerprint = samples.category, samples.split, samples.fingerprint

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, number: int):
        if not self.times:
            with pytest.MonkeyPatch.context() as other:
                other.setattr(os, "getpid", os.getppid)  # as another process
                self.times = times(self.store(self.samples).folder)
        return self.samples[number]


def test_a_store_that_another_worker_finished_meanwhile_is_kept(smoke):
    config, paths = smoke
    config = replace(config, groups=40)
    samples = open_dataset("mvtec3d", paths.processed("mvtec3d"), "bagel", "validation", config)
    folder = store_folder(paths, "mvtec3d", samples, config)
    extractor = FeatureExtractor.from_config(config, paths.weights)
    overtaken = Overtaken(samples, lambda data: build_store(data, folder, config, extractor))
    store = build_store(overtaken, folder, config, extractor)
    assert store.folder == folder
    assert overtaken.times == times(folder) != {}
    assert not list(folder.parent.glob(f".{folder.name}*"))


def test_gpus_count_only_where_the_settings_use_them(monkeypatch):
    native_bfloat16.cache_clear()
    capabilities = [(8, 6), (8, 0)]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda number: capabilities[number])
    assert gpu_count(Config.preset("demo")) == 0
    assert gpu_count(Config.preset("full")) == 2
    native_bfloat16.cache_clear()
    capabilities[1] = (7, 5)
    with pytest.raises(ConfigError, match="some GPUs of this machine multiply bfloat16, others do not"):
        gpu_count(Config.preset("full"))
    assert gpu_count(Config.preset("full", overrides={"precision": "float32"})) == 2
    native_bfloat16.cache_clear()
    assert default_workers(gpus=2) == 2
    assert default_workers() >= 1
