"""Many parts: each scores as it does alone, bad ones are named and passed over, lines are written as they come."""

import csv
import gc
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import tracemalloc
from collections import deque
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mafr.cli import main
from mafr.cli.predict import _show as show_line
from mafr.data import load_pair
from mafr.errors import DataError, StorageError
from mafr.experiments.plan import Run
from mafr.predict import command, parts
from mafr.predict.engine import Scored, Scorer
from mafr.predict.outputs import FIELDS, Outputs, Places
from mafr.predict.parts import find_parts


@pytest.fixture
def given(smoke, monkeypatch) -> tuple[Path, Path]:
    """A saved detector and the raw folder of its category."""
    config, paths = smoke
    monkeypatch.setenv("MAFR_HOME", str(paths.root))
    return Run("mvtec3d", "bagel", config).folder(paths) / "detector", paths.raw("mvtec3d") / "bagel"


def a_few(raw: Path, target: Path, numbers: slice = slice(2)) -> list[Path]:
    """Copy some raw test parts into the layout `target/{rgb,xyz}`; returns their images."""
    images = sorted((raw / "test" / "good" / "rgb").glob("*.png"))[numbers]
    for image in images:
        for path in (image, image.parents[1] / "xyz" / f"{image.stem}.tiff"):
            (target / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target / path.parent.name)
    return images


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_part_scores_to_the_byte_as_alone(given, tmp_path, capsys):
    detector, raw = given
    out = tmp_path / "out"
    command = ["predict", "--detector", str(detector), "--parts", str(raw)]
    assert main([*command, "--csv", str(out / "a.csv"), "--json", str(out / "a.jsonl")]) == 0
    printed = capsys.readouterr().out.splitlines()
    lines = [json.loads(line) for line in (out / "a.jsonl").read_text().splitlines()]
    found = rows(out / "a.csv")
    assert [row["name"] for row in found] == [line["name"] for line in lines]
    assert {"test/good", "train/good"} <= {row["name"].rpartition("/")[0] for row in found}
    assert len(found) == len(list(raw.glob("*/*/rgb/*.png")))
    assert printed[len(found)].startswith(f"{len(found)} parts: ")
    for row, line in list(zip(found, lines, strict=True))[::5]:
        place, _, stem = row["name"].rpartition("/")
        pair = ["--rgb", str(raw / place / "rgb" / f"{stem}.png"), "--xyz", str(raw / place / "xyz" / f"{stem}.tiff")]
        assert main(["predict", "--detector", str(detector), *pair, "--json"]) == 0
        alone = json.loads(capsys.readouterr().out)
        assert alone["score"] == line["score"] == float(row["score"])
        assert alone["verdict"] == line["verdict"] == row["verdict"]
        assert alone["threshold"] == line["threshold"] == float(row["threshold"])


def test_the_number_of_threads_changes_no_score(given):
    from mafr.baselines.registry import load_detector

    detector, raw = given
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with Scorer(load_detector(detector), 1.0, "remove", readers=threads) as scorer:
                found.append([one.prediction.psi for one in scorer(find_parts(raw)[:3])])
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(*found)


def test_a_part_that_cannot_be_read_is_a_line_and_the_others_go_on(given, tmp_path, capsys):
    detector, raw = given
    folder = tmp_path / "parts"
    first, second = a_few(raw, folder)
    (folder / "xyz" / "broken.tiff").write_bytes((folder / "xyz" / f"{first.stem}.tiff").read_bytes()[:999])
    shutil.copy(first, folder / "rgb" / "broken.png")
    shutil.copy(first, folder / "rgb" / "alone.png")
    assert main(["predict", "--detector", str(detector), "--parts", str(folder), "--csv", str(tmp_path / "a.csv")]) == 1
    found = {row["name"]: row for row in rows(tmp_path / "a.csv")}
    assert list(found) == [first.stem, second.stem, "alone", "broken"]
    assert found["broken"]["verdict"] == found["alone"]["verdict"] == "error"
    assert found["broken"]["score"] == ""
    assert str(folder / "xyz" / "broken.tiff") in found["broken"]["error"]
    assert "no xyz/ file of this name" in found["alone"]["error"]
    assert not any(found[stem.stem]["error"] for stem in (first, second))
    assert "4 parts: " in (text := capsys.readouterr().out)
    assert "2 could not be read or scored" in text


def test_out_holds_lines_and_the_report_and_heatmaps_come_where_asked(given, tmp_path):
    detector, raw = given
    folder, out = tmp_path / "bracket", tmp_path / "out"
    (image, _) = a_few(raw, folder)
    (folder / "xyz" / "x.tiff").write_bytes(b"nothing")
    shutil.copy(image, folder / "rgb" / "x.png")
    options = ["--out", str(out), "--heatmaps", str(tmp_path / "heat"), "--threshold", "3.5"]
    assert main(["predict", "--detector", str(detector), "--parts", str(folder), *options]) == 1
    assert {path.name for path in out.iterdir()} == {"results.csv", "results.jsonl", "report.html"}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<h1>Parts in bracket</h1>" in page and "Threshold 3.5." in page and "threshold: as given" in page
    for row in rows(out / "results.csv"):
        if row["error"]:
            assert re.search(rf'class="part error" data-name="{row["name"]}".*{folder}/xyz/x.tiff: ', page, re.DOTALL)
        else:
            shown = float(re.search(rf'data-name="{row["name"]}" data-score="([^"]+)"', page).group(1))
            assert shown == pytest.approx(float(row["score"]), rel=1e-6)
            assert f'<span class="name">{row["name"]}</span>' in page
    assert page.count('type="application/json" id="part-') == 2
    with Image.open(tmp_path / "heat" / f"{image.stem}.png") as picture:
        assert picture.width > 300
    assert len(list((tmp_path / "heat").iterdir())) == 2


def test_a_second_call_goes_on_where_the_first_one_ended(given, tmp_path, capsys):
    detector, raw = given
    folder, out = tmp_path / "bracket", tmp_path / "out"
    a_few(raw, folder)
    call = ["predict", "--detector", str(detector), "--parts", str(folder), "--out", str(out)]
    assert main(call) == 0
    names = ("results.csv", "results.jsonl", "report.html")
    whole = {name: (out / name).read_bytes() for name in names}
    for name in names[:2]:  # killed while the second line was being written
        (out / name).write_bytes(whole[name][: whole[name].rindex(b"\n", 0, -1) + 3])
    capsys.readouterr()
    assert main([*call, "--resume"]) == 0
    assert {name: (out / name).read_bytes() for name in names} == whole
    assert re.search(r"^1 part: .*; scored before: 1; ", capsys.readouterr().out, re.MULTILINE)
    assert main([*call, "--resume"]) == 0  # nothing is left
    assert {name: (out / name).read_bytes() for name in names} == whole
    (out / "report.html").unlink()
    assert main([*call, "--resume"]) == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "2 parts of an earlier call that left no report: not shown here" in page
    assert main([*call[:-2], "--resume"]) == 1
    assert "--resume needs --csv FILE or --out PATH" in capsys.readouterr().err


def test_options_that_do_not_go_together(tmp_path, capsys):
    start = ["predict", "--detector", "none"]  # said before one is loaded
    for options, message in (
        ([], "nothing to score"),
        (["--parts", str(tmp_path), "--rgb", "a.png"], "not both"),
        (["--rgb", "a.png", "--xyz", "a.tiff", "--watch"], "--watch goes with --parts"),
        (["--parts", str(tmp_path), "--threshold", "nan"], "--threshold must be a finite number, not nan"),
        (["--rgb", "a.png", "--xyz", "a.tiff", "--threshold=-inf"], "must be a finite number, not -inf"),
        (["--parts", str(tmp_path), "--csv", "a/x", "--json", "a/../a/x"], "--csv and --json name the same file, "),
        (["--parts", str(tmp_path), "--out", "a", "--json", "a/report.html"], "--json and --report name the same file"),
        (["--rgb", "a.png", "--xyz", "a.tiff", "--json", "a.pdf", "--out", "./a.pdf"], "--json and --out name the"),
        (["--parts", str(tmp_path / "none")], "no such folder"),
        (["--parts", str(tmp_path)], "no parts; expected are rgb/NAME.png"),
    ):
        assert main([*start, *options]) == 1
        assert message in capsys.readouterr().err


def test_watching_waits_for_whole_files_and_goes_on_with_what_its_csv_lists(given, tmp_path):
    from mafr.baselines.registry import load_detector

    detector, raw = load_detector(given[0]), given[1]
    folder, places = tmp_path / "parts", Places(csv=tmp_path / "a.csv")
    folder.mkdir()
    first, second, third = a_few(raw, tmp_path / "later", slice(3))

    def copy(image: Path, share: float = 1.0) -> None:
        for kind, suffix in (("rgb", ".png"), ("xyz", ".tiff")):
            content = (tmp_path / "later" / kind / f"{image.stem}{suffix}").read_bytes()
            (folder / kind).mkdir(exist_ok=True)
            (folder / kind / f"{image.stem}{suffix}").write_bytes(content[: int(share * len(content))])

    def watch(steps: list, patience: float = 60.0) -> list[dict]:
        """Watch until the steps are done, one per look, and five looks more; returns the lines."""
        lines, stop = [], threading.Event()
        outputs = Outputs(places, 1.0, append=True)
        todo = iter([*steps, *[lambda: None] * 5])

        def next_step(_seconds: float) -> bool:
            step = next(todo, stop.set)
            step()
            return stop.is_set()

        stop.wait = next_step
        command.watch_folder(folder, Scorer(detector, 1.0, "remove"), outputs, lines.append, stop, 0.0, patience)
        outputs.finish()
        return lines

    lines = watch([lambda: copy(first), lambda: copy(second, 0.5), lambda: None, lambda: copy(second)])
    assert [line["name"] for line in lines] == [first.stem, second.stem]
    assert not any(line["error"] for line in lines)
    alone = load_pair(folder / "rgb" / f"{second.stem}.png", folder / "xyz" / f"{second.stem}.tiff", detector.config,
                      "remove")  # fmt: skip
    assert lines[1]["score"] == detector.predict(alone).score
    lines = watch([lambda: copy(third, 0.5)], patience=0.0)  # restarted: a part that stays damaged is a line in the end
    assert [(line["name"], line["verdict"]) for line in lines] == [(third.stem, "error")]
    assert [row["name"] for row in rows(places.csv)] == [first.stem, second.stem, third.stem]
    (tmp_path / "b.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="not the lines of an earlier call"):
        Outputs(Places(csv=tmp_path / "b.csv"), 1.0, append=True)


@pytest.mark.parametrize("watch", [True, False])
def test_an_interrupt_keeps_the_lines_and_ends_with_the_summary(given, tmp_path, watch):
    detector, raw = given
    folder = tmp_path / "parts"
    (image, _) = a_few(raw, folder)
    for k in range(0 if watch else 500):  # so many that they are not done before the interrupt
        for kind, suffix in (("rgb", ".png"), ("xyz", ".tiff")):
            (folder / kind / f"more{k}{suffix}").hardlink_to(folder / kind / f"{image.stem}{suffix}")
    call = [sys.executable, "-u", "-m", "mafr.cli", "predict", "--detector", str(detector), "--parts", str(folder)]
    call += ["--csv", str(tmp_path / "a.csv"), *(["--watch"] if watch else [])]
    with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=120)
    assert "score" in first
    assert process.returncode == (0 if watch else 130), errors
    assert "Traceback" not in errors
    count = len(rows(tmp_path / "a.csv"))
    assert 1 <= count < 500
    assert f"{count} part" in out
    assert ("interrupted" in errors) is not watch


def test_many_parts_need_no_more_memory_than_a_few(given):
    from mafr.baselines.registry import load_detector

    detector, raw = given
    few = find_parts(raw)[:4]
    held = []
    with Scorer(load_detector(detector), 1.0, "remove") as scorer:
        tracemalloc.start()
        try:
            for _ in range(4):  # looked at when nothing is read ahead
                deque(scorer(islice(cycle(few), 20)), maxlen=0)
                gc.collect()
                held.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
    one = 4 * 3 * detector_side(detector) ** 2  # bytes of one sample's cloud
    assert held[-1] - held[0] < one, held


def detector_side(detector: Path) -> int:
    return json.loads((detector / "detector.json").read_text())["config"]["image_size"]


def test_names_reach_the_terminal_as_text(tmp_path, capsys):
    line = dict.fromkeys(FIELDS, "") | {"name": "a\x1b[2J", "verdict": "OK"}
    show_line(line | {"score": 1.0})
    show_line(line | {"score": None, "error": "a\x1b[2J.tiff is empty"})
    assert capsys.readouterr().out == "OK      a\\x1b[2J: score 1.000\nOK      a\\x1b[2J: a\\x1b[2J.tiff is empty\n"
    assert Places(csv=Path("b\x1b[2J.csv")).made() == ["lines in b\\x1b[2J.csv"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("kind", ["csv", "json"])
def test_a_full_disk_is_named_while_lines_are_written(kind):
    outputs = None
    with pytest.raises(StorageError, match=r"^/dev: the disk is full \(.* free, \d+ bytes more needed\); make room"):
        outputs = Outputs(Places(**{kind: Path("/dev/full")}), 1.0)
        outputs.add(Scored(parts.PartFiles("a"), error="no scan"))
    if outputs is not None:
        with pytest.raises(StorageError, match=r"^/dev: the disk is full"):
            outputs.finish()


def test_a_file_where_the_folder_of_lines_is_needed_is_named(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(StorageError, match=r"out is a file where a folder is needed"):
        Outputs(Places(csv=tmp_path / "out/scores.csv"), 1.0)


def test_times_and_sizes_of_files_that_vanish_are_no_error(tmp_path):
    assert parts.PartFiles("a", tmp_path / "none.png").stamp() == ((-1, 0),)
