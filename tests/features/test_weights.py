"""Weight files: found, downloaded, resumed, checked; and untrained backbones that every output owns up to."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
import threading
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from support.fake_results import fake_features, write_runs
from support.samples import has_warning_colour
from support.server import Server
from torch import nn

from mafr.baselines.registry import weight_files as weight_files_of
from mafr.cli import main
from mafr.config import UNTRAINED, Config
from mafr.data.acquire import fetch as fetching
from mafr.data.acquire.fetch import BrokenError, fetch
from mafr.errors import MafrError, ResultError, WeightsError
from mafr.features import encoders
from mafr.features.encoders import known_weights, point_encoder
from mafr.features.pointmae import load_checkpoint
from mafr.features.rgb import RANDOM, rgb_backbone
from mafr.features.timm_maps import timm_network
from mafr.features.weights import files as weight_files
from mafr.features.weights.files import (
    DINO,
    EFFICIENTNET_B5,
    HUB_FILE,
    POINTMAE,
    WIDE_RESNET,
    WeightFile,
    find_file,
    provide_files,
)
from mafr.features.weights.report import weight_status, weights_report
from mafr.paths import Paths
from mafr.released import load_checkpoints

CONTENT = np.random.default_rng(0).bytes(3 * 2**20 + 17)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
FULL = Config.preset("full")


@pytest.fixture
def server(server: Server) -> Server:
    server.files["/file.pth"] = CONTENT
    return server


def address(server: Server) -> str:
    return f"{server.address}/file.pth"


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the hub nor its cache."""

    def unreachable(url: str) -> None:
        raise OSError(f"{url}: no network")

    monkeypatch.setattr(weight_files, "reach", unreachable)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)


def other_pointmae(monkeypatch: pytest.MonkeyPatch, **changes: str) -> WeightFile:
    """Point-MAE's file with another address or hash."""
    changed = dataclasses.replace(POINTMAE, **changes)
    for module in (weight_files, encoders):
        monkeypatch.setattr(module, "POINTMAE", changed)
    return changed


# ------------------------------------------------------------------ downloads


def test_a_download_that_breaks_off_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    server.cut = [1_000_000, 500_000]
    target = tmp_path / "new" / "file.pth"
    assert fetch(address(server), target, DIGEST) == target
    assert target.read_bytes() == CONTENT
    assert server.spans == [None, "bytes=1000000-", "bytes=1500000-"]
    assert [p.name for p in target.parent.iterdir()] == ["file.pth"]
    fetch(address(server), target, DIGEST)  # it is there: nothing is asked for
    assert len(server.spans) == 3


def test_what_an_earlier_process_left_is_used(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "file.pth.part"
    part.write_bytes(CONTENT[:2_000_000])
    assert fetch(address(server), tmp_path / "file.pth", DIGEST).read_bytes() == CONTENT
    assert server.spans == ["bytes=2000000-"]
    part.write_bytes(CONTENT)  # all of it, only the last step was missing
    assert fetch(address(server), tmp_path / "second.pth", DIGEST).read_bytes() == CONTENT
    part.rename(tmp_path / "third.pth.part")
    assert fetch(address(server), tmp_path / "third.pth", DIGEST).read_bytes() == CONTENT
    (tmp_path / "fourth.pth.part").write_bytes(CONTENT + b"more")
    assert fetch(address(server), tmp_path / "fourth.pth", DIGEST).read_bytes() == CONTENT


def test_bytes_of_unknown_origin_are_kept_only_where_a_checksum_tells(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.pth.part").write_bytes(b"?" * 1000)
    assert fetch(address(server), tmp_path / "file.pth").read_bytes() == CONTENT
    assert server.spans == [None]


def test_a_server_that_never_gets_further_is_given_up(server: Server, tmp_path: Path) -> None:
    server.ranges, server.cut = False, [1_000_000] * 50
    with pytest.raises(BrokenError, match=r"broke \(closed early\); 1,000,000 bytes are kept in .*file.pth.part"):
        fetch(address(server), tmp_path / "file.pth", DIGEST)
    assert len(server.asked) < 10


def test_a_server_that_cannot_resume(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "file.pth.part").write_bytes(b"something else")
    assert fetch(address(server), tmp_path / "file.pth", DIGEST).read_bytes() == CONTENT


def test_wrong_content_and_wrong_addresses(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file.pth"
    with pytest.raises(MafrError, match="instead of 0123"):
        fetch(address(server), target, "0123")
    with pytest.raises(OSError, match="404"):
        fetch(f"{server.address}/nothing", target)
    server.cut = [0] * 10
    with pytest.raises(OSError, match=address(server)):
        fetch(address(server), target)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_seen_before(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = fetching.shutil.disk_usage(tmp_path)._replace(free=10**6)
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="3 MB are needed"):
        fetch(address(server), tmp_path / "file.pth")


def test_two_at_once_download_once(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file.pth"
    threads = [threading.Thread(target=fetch, args=(address(server), target, DIGEST)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_bytes() == CONTENT and server.spans == [None]
    assert [p.name for p in tmp_path.iterdir()] == ["file.pth"]


# ------------------------------------------------------------- finding weights


def test_both_files_are_asked_for_at_once(no_hub: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other_pointmae(monkeypatch, address="http://127.0.0.1:9/pretrain.pth")
    for call in (lambda: rgb_backbone(FULL, tmp_path), lambda: provide_files(FULL, tmp_path)):
        with pytest.raises(WeightsError) as caught:
            call()
        for text in (
            "2 weight files are missing",
            "timm/vit_base_patch8_224.dino",
            str(tmp_path / "dino_vitb8.safetensors"),
            str(tmp_path / "dino_vitbase8_pretrain.pth"),
            "http://127.0.0.1:9/pretrain.pth",
            str(tmp_path / "pointmae_pretrain.pth"),
            POINTMAE.sha256,
        ):
            assert text in str(caught.value)
    assert str(caught.value).count("not reached") == 2
    (tmp_path / "dino_vitb8.safetensors").touch()
    with pytest.raises(WeightsError, match="1 weight file is missing") as caught:
        point_encoder(FULL, tmp_path)
    assert "dino" not in str(caught.value).lower().replace(str(tmp_path).lower(), "")


def test_missing_files_are_downloaded(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = other_pointmae(monkeypatch, address=address(server), sha256=DIGEST)
    blob = tmp_path / "cache" / "blobs" / DIGEST
    link = tmp_path / "cache" / HUB_FILE

    def download(repository: str, name: str) -> str:
        assert name == HUB_FILE
        asked.append(repository)
        if not link.exists():
            blob.parent.mkdir(parents=True)
            blob.write_bytes(CONTENT)
            link.symlink_to(blob)
        return str(link)

    asked: list[str] = []

    monkeypatch.setattr(weight_files, "reach", lambda _: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: str(link) if link.exists() else None)
    monkeypatch.setenv("MAFR_HOME", str(tmp_path))
    assert main(["weights"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("MISSING") == 4 and "--fetch" in shown  # the backbones of BTF and AST too
    assert not server.asked and not link.exists()
    assert main(["weights", "--fetch"]) == 0
    shown = capsys.readouterr().out
    # This cache answers for every repository once it holds a file.
    assert asked == ["timm/vit_base_patch8_224.dino"]
    assert "MISSING" not in shown and shown.count(f"SHA-256 {DIGEST}, as published") == 4
    assert provide_files(FULL, tmp_path / "weights") == {
        DINO: link, file: tmp_path / "weights" / "pointmae_pretrain.pth"
    }  # fmt: skip
    blob.write_bytes(b"damaged")
    dino, points, *others = weight_status(FULL, tmp_path / "weights", weight_files_of(FULL))
    assert [status.title for status in others] == ["WideResNet-50-2", "EfficientNet-B5"]
    assert not dino.is_right and points.is_right
    assert "WRONG" in weights_report(FULL, tmp_path / "weights", weight_files_of(FULL))
    with pytest.raises(WeightsError, match="instead of"):
        rgb_backbone(FULL, tmp_path / "weights")


def test_local_files_come_first(no_hub: None, tmp_path: Path) -> None:
    for file in (DINO, POINTMAE):
        assert find_file(file, tmp_path) is None
        for name in reversed(file.names):
            (tmp_path / name).touch()
            assert find_file(file, tmp_path) == tmp_path / name
    mixed = dataclasses.replace(Config.preset("demo"), rgb_backbone="dino_vitb8", rgb_dim=768)
    assert set(provide_files(mixed, tmp_path)) == {DINO}
    assert provide_files(Config(), tmp_path) == {}


def test_the_packages_own_weights_are_shown_too(tmp_path: Path) -> None:
    assert all(status.is_right for status in weight_status(Config(), tmp_path, ()))
    assert weights_report(Config(), tmp_path, ()).count("as published") == 2


def test_an_unreachable_hub_is_not_waited_for() -> None:
    with pytest.raises(OSError, match=r"http://127\.0\.0\.1:9/file"):
        weight_files.reach("http://127.0.0.1:9/file")


# ------------------------------------------------- damaged and dangerous files

# Who reads a file of weights -> the file's name(s), and the call that reads it from a folder.
READERS = {
    "dino": (DINO.names, lambda folder: rgb_backbone(FULL, folder)),
    "btf": (WIDE_RESNET.names, lambda folder: timm_network("wide_resnet50_2", WIDE_RESNET, FULL, folder)),
    "ast": (EFFICIENTNET_B5.names, lambda folder: timm_network("tf_efficientnet_b5", EFFICIENTNET_B5, FULL, folder)),
    "pointmae": (("own.safetensors", "pretrain.pth"), lambda folder: load_checkpoint(next(folder.iterdir()))),
    "released": (("decoder_2D_bagel.pth",), lambda folder: load_released(folder)),
}
FILES = [(reader, name) for reader, (names, _) in READERS.items() for name in names]


def load_released(folder: Path) -> None:
    (path,) = folder.iterdir()
    others = [path.with_name(f"{part}_bagel.pth") for part in ("fusion_encoder", "decoder_3D")]
    config = Config.preset("smoke", "released", {"rgb_dim": 40, "xyz_dim": 56})
    with pytest.MonkeyPatch.context() as patch:  # the other two files are read before and after; they are not asked for
        patch.setattr("mafr.released.PARTS", {"decoder_2D_": "decoder_rgb"})
        load_checkpoints([path, *others], config)


@pytest.fixture
def little_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """One layer in place of timm's networks: they never get as far as their weights here."""
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: nn.Linear(3, 2))


def damaged_contents(suffix: str, folder: Path) -> dict[str, bytes]:
    """Contents that are no weights."""
    path = folder / f"whole{suffix}"
    weights = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.ones(2)}
    if suffix == ".pth":
        torch.save(weights, path, _use_new_zipfile_serialization=False)
        old = path.read_bytes()
        torch.save(weights, path)
    else:
        save_file(weights, path)
        old = path.read_bytes()
    whole = path.read_bytes()
    contents = {"empty": b"", "page": b"<html>not found</html>", "text": b"e words", "short": whole[: len(whole) // 2]}
    rng = np.random.default_rng(0)
    for k in range(40):
        content = np.frombuffer(whole if k % 2 else old, np.uint8).copy()
        content[rng.integers(0, len(content), 8)] = rng.integers(0, 256, 8)
        contents[f"damage {k}"] = content.tobytes()
    contents |= {f"noise {k}": rng.bytes(300) for k in range(20)}
    for k, other in enumerate((["a list"], {"weight": "text"}, {1: torch.ones(2)}, {"weight": torch.ones(7)})):
        torch.save(other, path)
        contents[f"other {k}"] = path.read_bytes()
    path.unlink()
    return contents


@pytest.mark.filterwarnings("ignore")  # torch's remarks on what it finds in damaged files
@pytest.mark.parametrize(("reader", "name"), FILES)
def test_damaged_files_are_named_with_a_reason(
    no_hub: None, little_network: None, tmp_path: Path, reader: str, name: str
) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    path = folder / name
    for kind, content in damaged_contents(path.suffix, tmp_path).items():
        path.write_bytes(content)
        try:
            READERS[reader][1](folder)
        except WeightsError as error:
            text = str(error)
            assert str(path) in text and "weights ()" not in text and "weights_only" not in text, (kind, text)
            assert len(text) < 1000, (kind, text)
        except AttributeError as error:  # the damage spared the layout: the little network is no backbone
            assert "'Linear' object" in str(error) and kind.startswith("damage"), kind
        else:
            assert kind.startswith("damage"), kind
    path.write_bytes(b"")
    with pytest.raises(WeightsError, match=r"not readable as .* weights \(.*(EOFError|SafetensorError).*\); .* again"):
        READERS[reader][1](folder)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["zip", "old", "pickle"])
@pytest.mark.parametrize(("reader", "name"), [(reader, name) for reader, name in FILES if name.endswith(".pth")])
def test_pickles_that_would_run_code_do_not(
    no_hub: None, little_network: None, tmp_path: Path, reader: str, name: str, form: str
) -> None:
    mark, folder = tmp_path / "ran", tmp_path / "weights"
    folder.mkdir()

    class Touch:
        def __reduce__(self) -> tuple:
            return Path.touch, (mark,)

    content = {"weight": Touch(), "base_model": Touch()}
    if form == "pickle":
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, folder / name, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(WeightsError, match="could run code; only plain tensors are read") as caught:
        READERS[reader][1](folder)
    assert str(folder / name) in str(caught.value) and not mark.exists()


# ---------------------------------------------------------- untrained backbones


def test_random_weights_need_no_file(no_hub: None, tmp_path: Path) -> None:
    config = dataclasses.replace(Config.preset("smoke"), random_weights=True)
    assert known_weights(config) == {"rgb": RANDOM, "points": RANDOM}
    assert rgb_backbone(config)[1] == point_encoder(config)[1] == RANDOM
    trained = rgb_backbone(Config.preset("smoke"))[0].state_dict()
    assert any(not v.equal(trained[k]) for k, v in rgb_backbone(config)[0].state_dict().items())
    full = dataclasses.replace(FULL, random_weights=True)
    assert provide_files(full, tmp_path) == {}
    assert point_encoder(full, tmp_path)[1] == RANDOM
    assert config.feature_digest() != Config.preset("smoke").feature_digest()
    assert UNTRAINED in weights_report(full, tmp_path, ())


def test_every_output_says_so(
    smoke: tuple[Config, Paths], tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole small reproduction with untrained backbones; the trained one's files stay as they are."""
    _, paths = smoke
    monkeypatch.setenv("MAFR_HOME", str(paths.root))
    before = {p: p.read_bytes() for f in (paths.tables, paths.figures) for p in f.iterdir() if p.is_file()}
    common = ["--profile", "smoke", "--random-weights", "--set", "epochs=1", "--set", "min_steps=0"]
    stages = ["--stages", "features,runs,tables,figures", "--workers", "1"]
    assert main(["reproduce", *common, *stages]) == 0
    assert UNTRAINED in capsys.readouterr().err
    assert {p: p.read_bytes() for f in (paths.tables, paths.figures) for p in f.iterdir() if p.is_file()} == before

    (tables,) = paths.tables.glob("random-weights-*")
    numbers = (*"12345", "S1", "S2", "S3", "S5", "S7")
    assert {p.stem for p in tables.iterdir()} == {f"table{n}" for n in numbers} | {"cost"}
    for path in tables.iterdir():
        text = path.read_text()
        lines = [line for line in text.splitlines() if ",measured," in line] if path.suffix == ".csv" else [text]
        assert lines and all(UNTRAINED in line for line in lines), path
    (figures,) = paths.figures.glob("random-weights-*")
    assert {p.name for p in figures.iterdir()} == {p.name for p in paths.figures.glob("*.png")}

    assert main(["run", *common, "--category", "bagel", "--workers", "1"]) == 0
    assert UNTRAINED in capsys.readouterr().out
    records = [json.loads(path.read_text()) for path in paths.runs("mvtec3d").glob("*/*/metrics.json")]
    assert {r["config"]["random_weights"]: r.get("warning") for r in records} == {True: UNTRAINED, False: None}
    folder = str(tmp_path / "bagel")
    assert main(["fit", *common, "--category", "bagel", "--out", folder]) == 0
    assert UNTRAINED in capsys.readouterr().out
    rgb = sorted((paths.raw("mvtec3d") / "bagel" / "test" / "good" / "rgb").iterdir())[0]
    command = ["predict", "--detector", folder, "--rgb", str(rgb),
               "--xyz", str(rgb.parent.parent / "xyz" / f"{rgb.stem}.tiff")]  # fmt: skip
    assert main(command) == 0
    assert UNTRAINED in capsys.readouterr().out
    picture = tmp_path / "heat.png"
    assert main([*command, "--json", "--out", str(picture)]) == 0
    assert json.loads(capsys.readouterr().out)["warning"] == UNTRAINED
    assert has_warning_colour(picture)
    assert main(["notebooks", *common, "--workers", "1"]) == 1
    assert "--random-weights" in capsys.readouterr().err




def test_figures_of_real_data_warn_of_untrained_backbones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mafr.experiments import results
    from mafr.figures.curves import score_histograms
    from mafr.figures.fig1 import architecture
    from mafr.figures.style import save_png

    monkeypatch.setattr(results, "load_features", fake_features)
    config, paths = write_runs(tmp_path)
    for random in (False, True):
        changed = dataclasses.replace(config, random_weights=random, generated=False)
        assert (UNTRAINED in results.stamp(changed, ["mvtec3d"], ["paper"])) is random
        assert has_warning_colour(save_png(architecture(changed), tmp_path / "fig1.png")) is random
        assert results.needs_warning(changed) is random
    assert has_warning_colour(save_png(score_histograms(config, paths), tmp_path / "scores.png"))


def test_the_readme_refuses_numbers_that_mean_nothing(tmp_path: Path) -> None:
    from mafr.tables.readme import BEGIN, END, update_readme

    readme = tmp_path / "README.md"
    readme.write_text(f"a {BEGIN} b {END} c")
    rows = f"Method,bagel,kind,data\nMAFR,0.5,measured,{UNTRAINED}; measured on generated data\n"
    for number in range(1, 6):
        (tmp_path / f"table{number}.csv").write_text(rows)
    with pytest.raises(ResultError, match="UNTRAINED"):
        update_readme(readme, tmp_path)
    assert readme.read_text() == f"a {BEGIN} b {END} c"
