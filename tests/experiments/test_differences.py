"""Text and code one difference at a time, and scores with corrected restored features."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from mafr import Detector
from mafr.cli import main
from mafr.config import BY_VARIANT, BY_VARIANT_AT_FULL_SIZE, VARIANTS, Config
from mafr.errors import ResultError
from mafr.experiments.corrected import CORRECTIONS, OWN, corrected_scores
from mafr.experiments.differences import ABLATED, WIDTH, changes, loss_ablations
from mafr.experiments.plan import Run
from mafr.experiments.run_store import RECORD, read_record
from mafr.intervals import compare
from mafr.metrics import metric_names
from mafr.tables.differences import METRICS, corrected_table, differences_table

SMOKE = Config.preset("smoke")


@pytest.mark.parametrize("profile", ["demo", "full"])
def test_every_difference_is_taken_alone_from_both_ends(profile):
    config = Config.preset(profile)
    made = changes(config)
    names = [*BY_VARIANT, *BY_VARIANT_AT_FULL_SIZE, WIDTH, *ABLATED]
    for base in VARIANTS:
        own, other = (config.with_variant(variant) for variant in (base, *(v for v in VARIANTS if v != base)))
        rows = [change for change in made if change.base == base]
        assert [change.name for change in rows] == ["", *names]
        assert rows[0].config == own
        for change in rows[1:]:
            changed = {n for n, value in change.config.as_dict().items() if value != own.as_dict()[n]}
            assert changed == {change.name}
            if change in rows[-len(ABLATED) :]:
                assert change.value == ABLATED[change.name] not in (getattr(c, change.name) for c in (own, other))
            elif change.name in BY_VARIANT or (profile == "full" and change.name != WIDTH):
                assert change.value == getattr(other, change.name)
        assert rows[-1 - len(ABLATED)].config.width == other.width != own.width
    assert [run.category for run in made[0].runs()] == list(config.categories("mvtec3d"))


def _record(run: Run, seed: int) -> dict:
    rng = np.random.default_rng(seed)
    labels = [0] * 9 + [1] * 9
    metrics = {name: float(rng.uniform(0.5, 1)) for name in ("i_auroc", *metric_names())}
    return {
        "dataset": run.dataset, "category": run.category, "method": "mafr", "seed": run.config.seed, "shots": None,
        "samples": {"ids": [f"test/{k}" for k in range(18)], "labels": labels}, "metrics": {"product": metrics},
        "scores": {"product": (rng.normal(size=18) + np.array(labels)).tolist()},
        "counts": {"train": 6, "validation": 2, "test_good": 9, "test_defective": 9},
    }  # fmt: skip


def test_the_tables_compare_each_row_with_its_start_on_the_same_images():
    made = changes(SMOKE)
    every = dict.fromkeys(run for change in made for run in change.runs())
    records = {run: _record(run, number) for number, run in enumerate(every)}
    frame = differences_table(records, SMOKE).frame
    assert len(frame) == len(made) and frame["Start"].tolist() == [change.base for change in made]
    start, change = made[0], made[1]
    row = frame.iloc[1]
    parts = [
        (records[a]["samples"]["labels"], records[a]["scores"]["product"], records[b]["scores"]["product"])
        for a, b in zip(start.runs(), change.runs(), strict=True)
    ]
    found = compare(parts, SMOKE.bootstrap, SMOKE.seed)
    assert row["difference_mean"] == pytest.approx(found.mean) and row["Result"] == found.verdict
    means = [np.mean([records[run]["metrics"]["product"][name] for run in change.runs()]) for name in METRICS]
    assert row[list(METRICS)].tolist() == pytest.approx(means)
    records.pop(change.runs()[0])
    with pytest.raises(ResultError, match="1 run is missing"):
        differences_table(records, SMOKE)


def test_the_table_of_corrected_scores_holds_each_loss_beside_all_three_terms():
    ablations = loss_ablations(SMOKE)
    every = dict.fromkeys(run for rows in ablations.values() for row in rows.values() for run in row)
    records = {run: _record(run, number) for number, run in enumerate(every)}
    corrected = {run: dict.fromkeys(CORRECTIONS, records[run]["scores"]["product"]) for run in every}
    frame = corrected_table(records, corrected, SMOKE).frame
    assert len(frame) == 2 * 4 * 3
    same = frame[frame["Score"] != "as trained"]
    assert (same[["gain_mean", "gain_low", "gain_high"]].to_numpy() == 0).all()  # these corrections change nothing
    full = frame[frame["Loss function"] == "L_sim + L_census + L_smooth"]
    assert full["Result"].tolist() == ["", "level", "level"] * 2
    assert set(corrected_table(records, corrected, SMOKE, ("paper",)).frame["Variant"]) == {"paper"}


def test_corrected_scores_do_not_see_scale_and_offset_of_the_restored_features(smoke, tmp_path, capsys):
    config, paths = smoke
    own = replace(paths, root=tmp_path)
    for name in ("data", "features"):
        (tmp_path / name).symlink_to(paths.root / name)
    run = Run("mvtec3d", "bagel", config)
    shutil.copytree(run.folder(paths), run.folder(own))
    (plain,) = corrected_scores([run], own)
    raw = read_record(run, own)["scores"]["product"]
    assert set(plain) == set(CORRECTIONS) and all(len(scores) == len(raw) for scores in plain.values())
    assert plain[OWN] != raw
    before = (run.folder(own) / "corrected.json").read_bytes()
    assert corrected_scores([run], own) == [plain]  # read, not made again
    assert (run.folder(own) / "corrected.json").read_bytes() == before
    for damaged in ("{", "[]", "{}", json.dumps(json.loads(before) | {OWN: None})):
        (run.folder(own) / "corrected.json").write_text(damaged)
        assert corrected_scores([run], own) == [plain]
        assert "corrected.json is damaged" in capsys.readouterr().err
        assert (run.folder(own) / "corrected.json").read_bytes() == before

    detector = Detector.load(run.folder(own) / "detector")
    with torch.no_grad():
        for decoder in (detector.model.decoder_rgb, detector.model.decoder_xyz):
            rng = torch.Generator().manual_seed(1)
            scale = torch.rand(len(decoder.output_fc.bias), generator=rng) * 3 + 0.5
            decoder.output_fc.weight.mul_(scale[:, None])
            decoder.output_fc.bias.mul_(scale).add_(5 * scale)
            decoder.skip.weight.mul_(scale[:, None])
            if decoder.skip.bias is not None:
                decoder.skip.bias.mul_(scale)
    detector.save(run.folder(own) / "detector")
    (run.folder(own) / "corrected.json").unlink()
    (changed,) = corrected_scores([run], own)
    for how in CORRECTIONS:
        assert changed[how] == pytest.approx(plain[how], rel=2e-3)
    # Scores of another training are not taken.
    record = json.loads((run.folder(own) / RECORD).read_text())
    record["scores"]["product"] = [1.0] * len(raw)
    (run.folder(own) / RECORD).write_text(json.dumps(record))
    assert corrected_scores([run], own) == [changed]
    with pytest.raises(ResultError, match="has not been run"):
        corrected_scores([Run("mvtec3d", "bagel", replace(config, dropout=0.5))], own)


def test_the_command_is_there(capsys):
    with pytest.raises(SystemExit):
        main(["differences", "--help"])
    assert "S8 and S9" in capsys.readouterr().out
