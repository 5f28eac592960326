"""The command `predict`: one scan, or many in a folder, by a saved detector."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mafr.cli.options import HELP_AS_WRITTEN, Commands, add_same_bytes
from mafr.cli.terminal import going_on
from mafr.config import UNTRAINED
from mafr.disk import CONTINUES
from mafr.errors import ConfigError, DataError, FullDiskError, StorageError, notice, printable

if TYPE_CHECKING:
    from mafr.method import Method
    from mafr.predict.outputs import Places

# With --out, for many parts.
LINES, JSON_LINES, REPORT = "results.csv", "results.jsonl", "report.html"
_FOR_MANY = ("csv", "report", "heatmaps", "watch", "resume")


def add_predict(commands: Commands) -> None:
    text = "score scans with a saved detector: one RGB + xyz pair, or all parts in a folder"
    sub = commands.add_parser("predict", help=text, description=text, formatter_class=HELP_AS_WRITTEN)
    sub.set_defaults(run=predict)
    sub.add_argument("--detector", required=True, metavar="DIR", help="a folder written by `mafr fit`")
    sub.add_argument("--threshold", type=float, help="instead of the detector's own")
    sub.add_argument("--processed", action="store_true", help="the scans come from a processed copy")
    text = "camera of depth images, or unit of PLY or PCD files: json with fx, fy, cx, cy, depth_scale, unit"
    sub.add_argument("--intrinsics", metavar="FILE", help=text)
    text = "machine-readable result instead of words, or into FILE; of many parts one line each"
    sub.add_argument("--json", nargs="?", const="-", metavar="FILE", help=text)
    text = "of one scan: heatmap picture (.png, .pdf, .svg or .jpg); of many parts: folder for "
    sub.add_argument("--out", metavar="PATH", help=f"{text}{LINES}, {JSON_LINES} and {REPORT}")
    add_same_bytes(sub)
    one = sub.add_argument_group("one scan")
    one.add_argument("--rgb", metavar="FILE", help="image, png or jpg")
    text = "organised point cloud: H x W x 3 tiff in metres, PLY or PCD; or a depth image"
    one.add_argument("--xyz", metavar="FILE", help=text)
    many = sub.add_argument_group("many parts")
    text = "folder with rgb/ and xyz/ (or depth/) in it or at any depth below it, files paired by name"
    many.add_argument("--parts", metavar="FOLDER", help=text)
    many.add_argument("--csv", metavar="FILE", help="a line per part: name, score, threshold, verdict, error")
    many.add_argument("--report", metavar="FILE", help="one html file with all parts, sorted by score")
    many.add_argument("--heatmaps", metavar="DIR", help="folder for heatmap pictures, png")
    text = "score parts as they come into the folder, until interrupted; those that --csv has scores of are passed over"
    many.add_argument("--watch", action="store_true", help=text)
    text = "go on after an interruption: parts that --csv has scores of are passed over, and taken into the report"
    many.add_argument("--resume", action="store_true", help=text)


def predict(arguments: argparse.Namespace) -> int:
    """One scan or many parts; returns the exit status."""
    try:
        return _predict(arguments)
    except FullDiskError as error:
        way = "; --resume goes on from there" if arguments.csv or (arguments.parts and arguments.out) else ""
        raise StorageError(str(error).replace(CONTINUES, way)) from error


def _predict(arguments: argparse.Namespace) -> int:
    if arguments.threshold is not None and not math.isfinite(arguments.threshold):
        raise ConfigError(f"--threshold must be a finite number, not {arguments.threshold}")
    if arguments.parts:
        if arguments.rgb or arguments.xyz:
            raise ConfigError("give --parts FOLDER, or --rgb FILE and --xyz FILE, not both")
        return predict_parts(arguments)
    if not (arguments.rgb and arguments.xyz):
        given = "--xyz is missing" if arguments.rgb else "--rgb is missing" if arguments.xyz else "nothing to score"
        raise ConfigError(f"{given}: give --rgb FILE and --xyz FILE, or --parts FOLDER")
    if wrong := [f"--{name}" for name in _FOR_MANY if getattr(arguments, name)]:
        raise ConfigError(f"{', '.join(wrong)} goes with --parts FOLDER, not with one scan")
    predict_pair(arguments)
    return 0


def predict_pair(arguments: argparse.Namespace) -> None:
    from mafr.data import load_pair
    from mafr.predict.engine import scoring_threads, verdict_of

    given = {"json": arguments.json if arguments.json != "-" else None, "out": arguments.out}
    _check_apart({name: Path(value) for name, value in given.items() if value})
    if arguments.out:
        from mafr.figures import picture_format, plot_heatmap, save_figure

        picture_format(Path(arguments.out))  # a wrong suffix costs no scoring
    detector, threshold, source = _detector(arguments)
    plane = None if arguments.processed else detector.config.plane
    sample = load_pair(arguments.rgb, arguments.xyz, detector.config, plane, arguments.intrinsics)
    try:
        with scoring_threads(detector.config):
            prediction = detector.predict(sample)
    except DataError as error:
        raise DataError(f"{arguments.xyz}: {str(error).strip()}") from error
    verdict = verdict_of(prediction.score, threshold)
    picture, warning = None, UNTRAINED if detector.config.random_weights else ""
    if arguments.out:
        picture = str(save_figure(plot_heatmap(sample, prediction, threshold, warning), Path(arguments.out)))
    if arguments.json:
        result = {"score": prediction.score, "threshold": threshold, "verdict": verdict, "picture": picture}
        text = json.dumps(result | ({"warning": warning} if warning else {}))
        if arguments.json == "-":
            print(text)
            return
        from mafr.paths import write_atomically

        write_atomically(Path(arguments.json), text + "\n")
    print(f"{verdict}: score {prediction.score:#.4g}, threshold {threshold:#.4g} ({source})")
    if warning:
        print(warning)
    if picture:
        print(f"heatmap in {printable(picture)}")


def predict_parts(arguments: argparse.Namespace) -> int:
    from mafr.predict.command import score_folder, stoppable, watch_folder
    from mafr.predict.engine import UNREADABLE, Scorer
    from mafr.predict.outputs import Outputs
    from mafr.predict.parts import find_parts

    folder, places = Path(arguments.parts).expanduser(), _places(arguments)
    find_parts(folder, missing_ok=arguments.watch)  # what is missing is said before anything is loaded or written
    detector, threshold, source = _detector(arguments)
    warning = UNTRAINED if detector.config.random_weights else ""
    plane = None if arguments.processed else detector.config.plane
    scorer = Scorer(detector, threshold, plane, arguments.intrinsics)
    if arguments.resume and not places.csv:
        raise ConfigError("--resume needs --csv FILE or --out PATH, where the lines of the earlier call are")
    outputs = Outputs(places, threshold, warning, append=arguments.watch or arguments.resume)
    notes = [f"threshold: {source}", f"method: {detector.name}, from {arguments.detector}"]
    outputs.open_report(f"Parts in {folder.resolve().name}", detector.validation_scores, notes)
    if warning:
        notice(f"warning: {warning}")
    if arguments.watch:
        notice(f"watching {folder}; Ctrl-C ends it")
    show, keep_on = _show_json if arguments.json == "-" else _show, bool(places.made())

    def show_while_read(line: dict[str, object]) -> None:
        with going_on(keep_on):
            show(line)

    with stoppable() as stop:
        try:
            work = watch_folder if arguments.watch else score_folder
            work(folder, scorer, outputs, show_while_read, stop)
        except KeyboardInterrupt:  # a second one
            stop.set()
        finally:
            counted = outputs.finish()
            words = [f"{counted}; threshold {threshold:#.4g} ({source})", *places.made()]
            with going_on(keep_on):
                print("\n".join(words), file=sys.stderr if arguments.json == "-" else sys.stdout, flush=True)
    if stop.is_set() and not arguments.watch:
        kept = "; the lines of the parts that were done are kept" if places.csv or places.json else ""
        notice(f"interrupted{kept}{'; --resume goes on from there' if places.csv else ''}")
        return 130
    return 1 if outputs.counts[UNREADABLE] else 0


def _detector(arguments: argparse.Namespace) -> tuple[Method, float, str]:
    """The detector, its threshold or the one given, and where that comes from."""
    from mafr.baselines.registry import load_detector
    from mafr.predict.engine import threshold_of

    detector = load_detector(arguments.detector)
    return detector, *threshold_of(detector, arguments.detector, arguments.threshold)


def _places(arguments: argparse.Namespace) -> Places:
    from mafr.predict.outputs import Places

    out = Path(arguments.out).expanduser() if arguments.out else None
    beside = {"csv": LINES, "json": JSON_LINES, "report": REPORT} if out else {}
    given = {name: getattr(arguments, name) for name in ("csv", "json", "report", "heatmaps")}
    if given["json"] == "-":
        given["json"] = None  # to the terminal
    paths = {name: Path(value).expanduser() for name, value in given.items() if value}
    paths = {name: out / file for name, file in beside.items()} | paths
    _check_apart(paths)
    return Places(**paths)


def _check_apart(paths: dict[str, Path]) -> None:
    """Raises ConfigError where two options, by their names, would write the same file."""
    seen: dict[Path, str] = {}
    for name, path in paths.items():
        if (other := seen.setdefault(path.resolve(), name)) != name:
            raise ConfigError(f"--{other} and --{name} name the same file, {path}; give each its own")


def _show(line: dict[str, object]) -> None:
    score = f"score {line['score']:#.4g}" if line["score"] is not None else printable(str(line["error"]))
    _print(f"{line['verdict']:6}  {printable(str(line['name']))}: {score}")


def _show_json(line: dict[str, object]) -> None:
    _print(json.dumps(line))


def _print(line: str) -> None:
    """A line at once, above the progress bar where there is one."""
    from tqdm.auto import tqdm

    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()
