"""Checkpoints of the released code: read into the `released` variant, equal to a plain forward pass, or refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mafr import Detector
from mafr.cli import main
from mafr.config import Config
from mafr.errors import ConfigError, WeightsError
from mafr.paths import Paths
from mafr.released import load_checkpoints

RGB, XYZ = 40, 56
CONFIG = Config.preset("smoke", "released", {"rgb_dim": RGB, "xyz_dim": XYZ})
WIDTH = (RGB + XYZ) // 2
NAMES = {"encoder": "fusion_encoder_bagel_100ep_1bs.pth", "2D": "decoder_2D_bagel_100ep_1bs.pth",
         "3D": "decoder_3D_bagel_100ep_1bs.pth"}  # fmt: skip


def linear(weights: dict[str, Tensor], name: str, inputs: int, outputs: int, generator: torch.Generator) -> None:
    weights[f"{name}.weight"] = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
    weights[f"{name}.bias"] = 0.3 * torch.randn(outputs, generator=generator)


def norm(weights: dict[str, Tensor], name: str, width: int, generator: torch.Generator) -> None:
    weights[f"{name}.weight"] = 1 + 0.2 * torch.randn(width, generator=generator)
    weights[f"{name}.bias"] = 0.2 * torch.randn(width, generator=generator)


def checkpoints(seed: int = 0, rgb: int = RGB, xyz: int = XYZ) -> dict[str, dict[str, Tensor]]:
    """Random weights under the keys of the released code, written out by hand."""
    generator = torch.Generator().manual_seed(seed)
    width = (rgb + xyz) // 2
    encoder: dict[str, Tensor] = {}
    linear(encoder, "input_fc", rgb + xyz, width, generator)
    linear(encoder, "layers.0", width, width, generator)
    linear(encoder, "output_fc", width, width, generator)
    norm(encoder, "layer_norm", width, generator)
    files = {"encoder": encoder}
    for name, out in (("2D", rgb), ("3D", xyz)):
        decoder: dict[str, Tensor] = {}
        linear(decoder, "input_fc", width, out, generator)
        linear(decoder, "layers.0", out, out, generator)
        linear(decoder, "layers.1", out, out, generator)
        linear(decoder, "output_fc", out, out, generator)
        norm(decoder, "norm", out, generator)
        linear(decoder, "cbam.channel_attention.fc.0", out, out // 16, generator)
        linear(decoder, "cbam.channel_attention.fc.2", out // 16, out, generator)
        decoder["cbam.spatial_attention.conv.weight"] = torch.randn(1, 2, 7, 7, generator=generator)
        linear(decoder, "skip", width, out, generator)
        files[name] = decoder
    return files


def write(folder: Path, files: dict[str, dict[str, Tensor]]) -> Path:
    folder.mkdir(exist_ok=True)
    for part, weights in files.items():
        torch.save(weights, folder / NAMES[part])
    return folder


def plain_encoder(w: dict[str, Tensor], x: Tensor) -> Tensor:
    """(P, 2D + 3D channels) -> (P, width), layer by layer."""
    for name in ("input_fc", "layers.0"):
        x = nn.functional.gelu(x @ w[f"{name}.weight"].T + w[f"{name}.bias"])
        x = nn.functional.layer_norm(x, (WIDTH,), w["layer_norm.weight"], w["layer_norm.bias"])
    return x @ w["output_fc.weight"].T + w["output_fc.bias"]


def plain_decoder(w: dict[str, Tensor], fused: Tensor) -> Tensor:
    """(P, width) -> (P, channels); every pixel is a 1 x 1 map for the attention."""
    x = fused
    for name in ("input_fc", "layers.0", "layers.1"):
        x = x @ w[f"{name}.weight"].T + w[f"{name}.bias"]
        x = nn.functional.gelu(nn.functional.layer_norm(x, x.shape[1:], w["norm.weight"], w["norm.bias"]))
    first, second = (f"cbam.channel_attention.fc.{k}" for k in (0, 2))

    def mlp(values: Tensor) -> Tensor:
        return torch.relu(values @ w[f"{first}.weight"].T + w[f"{first}.bias"]) @ w[f"{second}.weight"].T + w[
            f"{second}.bias"
        ]

    image = x[:, :, None, None]
    average, maximum = nn.AdaptiveAvgPool2d(1)(image).flatten(1), nn.AdaptiveMaxPool2d(1)(image).flatten(1)
    image = image * torch.sigmoid(mlp(average) + mlp(maximum))[:, :, None, None]
    summary = torch.cat([image.mean(dim=1, keepdim=True), image.amax(dim=1, keepdim=True)], dim=1)
    gate = torch.sigmoid(nn.functional.conv2d(summary, w["cbam.spatial_attention.conv.weight"], padding=3))
    x = (image * gate).flatten(1)
    return x @ w["output_fc.weight"].T + w["output_fc.bias"] + fused @ w["skip.weight"].T + w["skip.bias"]


def test_the_loaded_head_does_what_the_released_code_does(tmp_path: Path) -> None:
    files = checkpoints()
    model = load_checkpoints(write(tmp_path / "bagel", files), CONFIG)
    assert not model.training
    generator = torch.Generator().manual_seed(5)
    e_rgb, e_xyz = (torch.randn(1, c, 6, 7, generator=generator) for c in (RGB, XYZ))
    with torch.inference_mode():
        found = model(e_rgb, e_xyz)
        rows = torch.cat([e_rgb, e_xyz], dim=1)[0].flatten(1).T
        fused = plain_encoder(files["encoder"], rows)
        expected = [plain_decoder(files[part], fused) for part in ("2D", "3D")]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours[0].flatten(1).T, theirs, rtol=1e-5, atol=1e-5)


def test_published_sizes_fit_the_full_profile(tmp_path: Path) -> None:
    """768 and 1,152 channels through 960: the shapes that the released code builds."""
    from mafr.model import MAFR

    with torch.device("meta"):
        state = MAFR.from_config(Config.preset("full", "released")).state_dict()
    assert state["encoder.input_fc.weight"].shape == (960, 1920)
    assert state["decoder_rgb.skip.weight"].shape == (768, 960)
    assert state["decoder_xyz.cbam.channel_attention.fc.0.weight"].shape == (72, 1152)
    hand = {f"{ours}.{name}" for ours, part in (("encoder", "encoder"), ("decoder_rgb", "2D"), ("decoder_xyz", "3D"))
            for name in checkpoints()[part]}  # fmt: skip
    assert hand == set(state)


def test_the_three_files_themselves(tmp_path: Path) -> None:
    folder = write(tmp_path / "bagel", checkpoints())
    torch.save(checkpoints(1)["2D"], folder / "decoder_2D_bagel_50ep_1bs.pth")
    with pytest.raises(WeightsError, match=r"several files match decoder_2D_\*.pth .*50ep"):
        load_checkpoints(folder, CONFIG)
    model = load_checkpoints([folder / name for name in NAMES.values()], CONFIG)
    torch.testing.assert_close(model.decoder_rgb.skip.weight.data, checkpoints()["2D"]["skip.weight"])


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "bagel"
    with pytest.raises(WeightsError, match="no such folder"):
        load_checkpoints(folder, CONFIG)
    write(folder, checkpoints())
    (folder / NAMES["3D"]).unlink()
    with pytest.raises(WeightsError, match=r"decoder_3D_\*\.pth is missing"):
        load_checkpoints(folder, CONFIG)
    for change, message in (
        (lambda w: w.pop("layers.1.bias"), r"layers\.1\.bias is missing"),
        (lambda w: w.update(extra=torch.ones(2)), "extra is not known"),
        (lambda w: w.update({"norm.weight": torch.ones(3)}), r"norm\.weight has shape \(3,\) instead of \(56,\)"),
    ):
        files = checkpoints()
        change(files["3D"])
        write(folder, files)
        with pytest.raises(WeightsError, match=message) as caught:
            load_checkpoints(folder, CONFIG)
        assert NAMES["3D"] in str(caught.value)
    write(folder, checkpoints())
    for settings in (CONFIG.with_variant("paper"), dataclasses.replace(CONFIG, cbam_scope="map")):
        with pytest.raises(ConfigError, match="variant released"):
            load_checkpoints(folder, settings)


def test_files_that_could_run_code_are_refused(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    folder = write(tmp_path / "bagel", checkpoints())
    path = folder / NAMES["2D"]

    class Touch:
        def __reduce__(self):
            return (Path.touch, (mark,))

    torch.save({"skip.weight": Touch()}, path)
    with pytest.raises(WeightsError, match="could run code"):
        load_checkpoints(folder, CONFIG)
    assert not mark.exists()
    torch.save([1, 2], path)
    with pytest.raises(WeightsError, match="state_dict"):
        load_checkpoints(folder, CONFIG)
    path.write_bytes(b"nothing")
    with pytest.raises(WeightsError, match=NAMES["2D"] + r": not readable as released decoder weights .*copy it again"):
        load_checkpoints(folder, CONFIG)
    path.unlink()
    with pytest.raises(WeightsError, match=NAMES["2D"] + ": there is no such file"):
        load_checkpoints([folder / name for name in NAMES.values()], CONFIG)


def test_an_imported_detector_is_saved_and_loads(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder, out = write(tmp_path / "bagel", checkpoints()), tmp_path / "detector"
    command = ["import-released", "--profile", "smoke", "--set", f"rgb_dim={RGB}", "--set", f"xyz_dim={XYZ}"]
    assert main([*command, "--folder", str(folder), "--out", str(out)]) == 0
    assert "--threshold" in capsys.readouterr().out
    detector = Detector.load(out)
    by_batch_statistics = dataclasses.replace(CONFIG, extractor_mode="batch-statistics")  # as the released code's
    assert detector.config == by_batch_statistics and detector.threshold is None
    command += ["--set", "extractor_mode=eval"]
    assert main([*command, "--folder", str(folder), "--out", str(out)]) == 0
    assert Detector.load(out).config == CONFIG
    given = Detector.from_released(folder, CONFIG).model.state_dict()
    for name, tensor in detector.model.state_dict().items():
        torch.testing.assert_close(tensor, given[name], rtol=0, atol=0)
    assert main([*command, "--folder", str(tmp_path), "--out", str(out)]) == 1
    assert "fusion_encoder_*.pth is missing" in capsys.readouterr().err


def test_an_imported_detector_predicts(
    smoke: tuple[Config, Paths], tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, paths = smoke
    monkeypatch.setenv("MAFR_HOME", str(paths.root))
    folder = write(tmp_path / "bagel", checkpoints(2, config.rgb_dim, config.xyz_dim))
    out = str(tmp_path / "detector")
    files = [str(folder / name) for name in NAMES.values()]
    assert main(["import-released", "--profile", "smoke", "--files", *files, "--out", out]) == 0
    rgb = sorted((paths.raw("mvtec3d") / "bagel" / "test" / "good" / "rgb").iterdir())[0]
    pair = ["--rgb", str(rgb), "--xyz", str(rgb.parent.parent / "xyz" / f"{rgb.stem}.tiff")]
    assert main(["predict", "--detector", out, *pair]) == 1
    assert "give one with --threshold" in capsys.readouterr().err
    assert main(["predict", "--detector", out, *pair, "--threshold", "1e9"]) == 0
    assert capsys.readouterr().out.startswith("OK: score")
