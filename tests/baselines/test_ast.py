"""AST: a case that it must solve, its depth map by hand, losses and backbone against references, round trip."""

from dataclasses import replace
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image
from scipy import ndimage

from mafr.baselines.ast import AST, depth_map, distance, in_square, student_network
from mafr.baselines.parts.inputs import without_holes
from mafr.config import Config
from mafr.data.samples import Sample
from mafr.data.scan import Scan
from mafr.data.transforms import mask_tensor, pad_square, rgb_tensor, xyz_tensor
from mafr.errors import ConfigError, DataError, MafrError, WeightsError
from mafr.features.extract import FeatureExtractor
from mafr.features.sources.splits import Split, split_of
from mafr.features.timm_maps import EFFICIENTNET_B5, EfficientNetB5, timm_network
from mafr.features.weights import files as weight_files
from mafr.scoring import smooth

SIDE = 112
SETTINGS = {"ast_epochs": 12, "ast_teacher_hidden": 8, "ast_student_hidden": 32}


def plate(number: int, defect: str = "good") -> Sample:
    """A grey round plate; a defect is a red blotch or a bump of 4 mm, right of the middle."""
    g = np.random.default_rng(number)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    x, y = (columns - 55.5) * 1e-3, (rows - 55.5) * 1e-3
    away = np.hypot(rows - 50, columns - 70)
    gt = (away < 11) & (defect != "good")
    colour = 0.5 + 0.03 * np.sin(columns / 6 + g.uniform(0, 6)) + g.normal(0, 0.02, (3, SIDE, SIDE))
    if defect == "colour":
        colour[:, gt] = np.array([0.9, 0.1, 0.1])[:, None]
    depth = 0.4 + g.uniform(-0.01, 0.01) + g.normal(0, 1e-4, (SIDE, SIDE))
    if defect == "bump":
        depth -= 4e-3 * np.clip(1 - (away / 11) ** 2, 0, None)
    xyz = np.stack([x, y, depth])
    xyz[:, np.hypot(x, y) > 0.048] = 0
    return Sample(
        colour.clip(0, 1).astype(np.float32), xyz.astype(np.float32), gt[None], int(gt.any()), defect, "plate",
        f"test/{defect}/{number:03d}",
    )  # fmt: skip


@pytest.fixture(scope="module")
def config() -> Config:
    return Config.preset("smoke", overrides=SETTINGS)


@pytest.fixture(scope="module")
def extractor(config) -> FeatureExtractor:
    return FeatureExtractor.from_config(config)


@pytest.fixture(scope="module")
def training(extractor) -> Split:
    return split_of([plate(k) for k in range(12)], extractor)


@pytest.fixture(scope="module")
def tested(extractor) -> Split:
    return split_of([plate(k, d) for k, d in enumerate(["good"] * 4 + ["colour", "bump"], start=50)], extractor)


@pytest.fixture(scope="module")
def trained(config, extractor, training) -> AST:
    return AST(config, extractor).fit_split(training)


def scores(detector: AST, split: Split) -> list[float]:
    return [p.score for p in detector.score_split(split, range(len(split)))]


# ------------------------------------------------------------------ the method


def test_obvious_defects_score_above_every_good_part(trained, tested):
    *good, colour, bump = scores(trained, tested)
    assert colour > max(good) and bump > max(good)


@pytest.mark.parametrize(("mode", "seen"), [("rgb", 4), ("depth", 5)])
def test_one_modality_sees_its_own_defect(config, extractor, training, tested, mode, seen):
    detector = AST(replace(config, ast_mode=mode), extractor).fit_split(training)
    values = scores(detector, tested)
    assert values[seen] > max(values[:4])


def test_the_map_is_highest_on_the_defect_and_zero_far_from_the_part(trained, tested):
    for k in (4, 5):
        found = trained.score_split(tested, [k])[0]
        row, column = np.unravel_index(found.psi.argmax(), found.psi.shape)
        assert np.hypot(row - 50, column - 70) < 22  # within a cell and a half
        assert found.psi.shape == (SIDE, SIDE) and found.psi.dtype == np.float32
        assert (found.psi >= 0).all() and found.psi[:4, :4].max() < 1e-3 * found.psi.max()
        assert np.array_equal(found.psi, found.psi_rgb) and np.array_equal(found.psi, found.psi_xyz)


def test_the_map_is_the_weighted_distance_of_student_and_teacher(trained, tested, config):
    sample = tested.sample(5)
    x, weight = trained.inputs(sample, tested.tokens([5]))
    with torch.inference_mode():
        teacher = trained.teacher(x, trained.positions)[0][0].double()
        student = trained.student(torch.cat([trained.positions, x], dim=1))[0].double()
    part = weight[0, 0].double()
    # The foreground's share enters twice, in the student's loss and again where the map is masked, as published.
    cells = part**2 * (teacher - student).square().mean(dim=0)
    large = torch.nn.functional.interpolate(cells[None, None], (SIDE, SIDE), mode="bicubic").clamp_min(0)
    expected = smooth(large * torch.from_numpy(sample.valid), config.blur, config.sigma)[0, 0]
    found = trained.score_split(tested, [5])[0]
    assert np.allclose(found.psi, expected, rtol=1e-3, atol=1e-4 * float(expected.max()))
    assert found.score == pytest.approx(float(cells.max()), rel=1e-3)


def test_both_losses_fall(trained):
    assert len(trained.history) == 12
    first, last = trained.history[0], trained.history[-1]
    assert last["teacher"] < first["teacher"] and last["student"] < first["student"]


def test_saved_and_loaded_it_predicts_the_same(trained, tested, extractor, tmp_path):
    loaded = AST.load(trained.save(tmp_path / "detector"))
    again = AST(loaded.config, extractor)
    again.restore(trained.state())
    again.trained = True
    for k in (0, 4):
        expected = trained.score_split(tested, [k])[0]
        for other in (loaded, again):
            found = other.score_split(tested, [k])[0]
            assert found.score == expected.score and np.array_equal(found.psi, expected.psi)
    assert loaded.history == trained.history and loaded.nbytes() == trained.nbytes() > 1e5


def test_a_damaged_file_is_named(trained, tmp_path):
    folder = trained.save(tmp_path / "detector")
    state = safetensors.torch.load((folder / "model.safetensors").read_bytes())
    del state["student.0.weight"]
    (folder / "model.safetensors").write_bytes(safetensors.torch.save(state))
    with pytest.raises(WeightsError, match="no complete ast detector"):
        AST.load(folder)


def test_the_same_seed_gives_the_same_bits_and_another_one_does_not(config, extractor, training, trained):
    again = AST(config, extractor).fit_split(training)
    assert all(torch.equal(value, again.state()[name]) for name, value in trained.state().items())
    other = AST(replace(config, seed=7, ast_epochs=1, min_steps=0), extractor).fit_split(training)
    assert not torch.equal(other.state()["student.0.weight"], trained.state()["student.0.weight"])


def test_few_samples_are_a_batch_and_reach_the_least_number_of_steps(config, extractor, training):
    few = replace(config, ast_batch=8, ast_epochs=1, min_steps=3)
    assert len(AST(few, extractor).fit_split(training, [0, 5, 7]).history) == 3
    assert len(AST(few, extractor).fit_split(training).history) == 3  # 12 samples: one step an epoch, 4 left out
    assert len(AST(replace(few, ast_batch=2), extractor).fit_split(training).history) == 1


def test_a_training_that_diverges_is_stopped(config, extractor, training):
    with pytest.raises(MafrError, match="lower ast_learning_rate"):
        AST(replace(config, ast_learning_rate=1e9), extractor).fit_split(training)


# ------------------------------------------------------------------- its parts


def square_part(depth: np.ndarray) -> Sample:
    size = len(depth)
    xyz = np.stack([np.zeros_like(depth), np.zeros_like(depth), depth]).astype(np.float32)
    return Sample(np.zeros((3, size, size), np.float32), xyz, np.zeros((1, size, size), bool), 0, "good", "part", "a")


def test_the_depth_map_by_hand():
    depth = np.zeros((16, 16))
    depth[4:12, 4:12] = np.linspace(0.5, 0.57, 8)
    depth[7, 7] = 0  # a missing point: its neighbours' mean is 0.53
    found, foreground = depth_map(square_part(depth), 16, 3)
    expected = np.zeros((16, 16))
    expected[4:12, 4:12] = 100 * (np.linspace(0.5, 0.57, 8) - 0.535)
    np.testing.assert_allclose(found[0, 0].numpy(), expected, atol=1e-4)
    grown = np.zeros((16, 16))
    grown[3:13, 3:13] = 1
    assert np.array_equal(foreground[0, 0].numpy(), grown)


def test_only_missing_points_inside_the_part_are_filled_three_deep():
    depth = np.full((20, 20), 0.5)
    depth[:, :3] = 0
    depth[5:15, 6:16] = 0  # 10 x 10: its inner 4 x 4 stays background
    _, foreground = depth_map(square_part(depth), 20, 1)
    expected = np.ones((20, 20))
    expected[:, :3] = expected[8:12, 9:13] = 0
    assert np.array_equal(foreground[0, 0].numpy(), expected)
    with pytest.raises(DataError, match="no 3D point"):
        depth_map(square_part(np.zeros((8, 8))), 8, 3)


def test_the_inputs_are_pooled_tokens_beside_unshuffled_depth(trained, training):
    x, weight = trained.inputs(training.sample(0), training.tokens([0]))
    assert x.shape == (1, 152 + 64, 7, 7) and weight.shape == (1, 1, 7, 7)
    tokens = training.tokens([0]).rgb.float()
    torch.testing.assert_close(x[0, :152, 2, 3], tokens[0, :, 4:6, 6:8].mean(dim=(1, 2)))
    depth, _ = depth_map(training.sample(0), 56, 8)
    assert torch.equal(x[0, 152:, 2, 3].view(8, 8), depth[0, 0, 16:24, 24:32])
    assert weight[0, 0, 3, 3] == 1 and weight[0, 0, 0, 0] < 1


def test_depth_is_taken_along_the_viewing_axis_whatever_the_clouds_axes(config, extractor, training):
    """Eyecandies' clouds come with swapped axes: the depth map must be the same."""
    class Swapped:
        labels, name = training.labels, training.name

        def __len__(self):
            return len(training)

        def sample(self, k):
            one = training.sample(k)
            return replace(one, xyz=np.ascontiguousarray(one.xyz[[0, 2, 1]] * np.float32([1, -1, 1])[:, None, None]))

        def mask(self, k):
            return training.mask(k)

        def tokens(self, indices):
            return training.tokens(indices)

    few = replace(config, ast_epochs=1, min_steps=1)
    plain, swapped = (AST(few, extractor).fit_split(split, [0, 1]) for split in (training, Swapped()))
    assert (plain.view.direction, swapped.view.direction) == ((0, 0, 1), (0, -1, 0))
    tokens = training.tokens([2])
    expected = plain.inputs(training.sample(2), tokens)[0]
    torch.testing.assert_close(swapped.inputs(Swapped().sample(2), tokens)[0], expected, rtol=0, atol=1e-4)


def test_the_distance_is_a_weighted_mean_over_channels():
    g = torch.Generator().manual_seed(0)
    target, output = torch.randn(2, 6, 3, 3, generator=g), torch.randn(2, 6, 3, 3, generator=g)
    weight = torch.rand(2, 1, 3, 3, generator=g)
    expected = weight[1, 0, 2, 0] * sum((target[1, c, 2, 0] - output[1, c, 2, 0]) ** 2 for c in range(6)) / 6
    found = distance(target, output, weight)
    assert found.shape == (2, 1, 3, 3)
    torch.testing.assert_close(found[1, 0, 2, 0], expected)


def test_the_published_networks_have_the_published_sizes():
    config = Config.preset("full", overrides={"random_weights": True, "device": "cpu"})
    detector = AST(config)
    assert (detector.channels, detector.side, detector.reads, detector.extractor) == (368, 24, (), None)
    student = student_network(368 + 32, 368, 1024, 4)
    convolutions = (400 * 9 + 1) * 1024 + 8 * (1024 * 9 + 1) * 1024 + (1024 * 9 + 1) * 368
    assert sum(p.numel() for p in student.parameters()) == convolutions + 8 * 2 * 1024
    settings = (config.ast_coupling_blocks, config.ast_last_kernel, config.ast_clamp, config.ast_batch)
    assert settings == (4, 5, 1.9, 8) and config.ast_teacher_hidden == 64
    assert (config.ast_learning_rate, config.ast_weight_decay, config.ast_epochs) == (2e-4, 1e-5, 72)


def test_a_map_that_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="multiple of the stride"):
        AST(Config.preset("full", overrides={"ast_image_side": 100}))


# ------------------------------------------------------- images in their own pixels


PADDED = 200  # side of the square that preprocessing pads 80 x 180 pixels to: 60 rows above, 10 columns to the left


def strip(number: int, defect: bool = False, height: int = 80, width: int = 180) -> Sample:
    """A long plate as data on disk: 2 mm thick, with missing points; a defect is a bump of 4 mm far to the right."""
    g = np.random.default_rng(number)
    rows, columns = np.mgrid[:height, :width]
    depth = 0.4 + g.uniform(-0.01, 0.01) + g.normal(0, 1e-4, (height, width))
    away = np.hypot(rows - 30, columns - 150)
    if defect:
        depth -= 4e-3 * np.clip(1 - (away / 8) ** 2, 0, None)
    xyz = np.stack([columns * 1e-3, rows * 1e-3, depth], axis=2).astype(np.float32)
    inside = (abs(rows - (height - 1) / 2) < 0.4 * height) & (abs(columns - (width - 1) / 2) < 0.45 * width)
    xyz[~inside | (g.random((height, width)) < 0.01)] = 0
    rgb = np.where(inside[..., None], 120, 30) + g.integers(0, 20, (height, width, 3))
    scan = Scan.of(rgb.astype(np.uint8), pad_square(xyz, PADDED))
    arrays = rgb_tensor(scan.rgb, PADDED, SIDE), xyz_tensor(scan.xyz, PADDED, SIDE)
    gt = mask_tensor((away < 8) & defect, PADDED, SIDE)
    return Sample(*arrays, gt, int(defect), "bump" if defect else "good", "strip", f"{number}", lambda: scan)


def test_a_defect_of_a_long_image_lands_where_it_is(published):
    config = replace(published, ast_image_side=256, ast_mode="depth", ast_epochs=12, ast_teacher_hidden=8)
    detector = AST(replace(config, ast_student_hidden=32)).fit([strip(k) for k in range(12)], show=False)
    found, good = detector.predict(strip(100, defect=True)), [detector.predict(strip(k)) for k in (101, 102)]
    assert found.score > max(one.score for one in good)
    row, column = np.unravel_index(found.psi.argmax(), found.psi.shape)
    # A cell is 6 rows and 13 columns of the map's pixels.
    assert abs(row - (60 + 30) * SIDE / PADDED) < 6 and abs(column - (10 + 150) * SIDE / PADDED) < 13
    assert found.psi[: 40 * SIDE // PADDED].max() < 1e-3 * found.psi.max(), "nothing is scored in the padding"


def test_maps_of_the_image_lie_in_the_padded_square():
    scan = Scan.of(np.zeros((40, 90, 3), np.uint8), np.zeros((100, 100, 3), np.float32))
    n = 200  # of the square; two map pixels per image pixel
    ramp = torch.linspace(0, 1, 11)  # the centres of 11 cells from the image's one edge to the other
    placed = in_square(torch.stack([ramp.expand(11, 11), ramp.expand(11, 11).T])[None], scan, n)[0]
    at = (np.arange(n) + 0.5) / 2
    for found, start, length in ((placed[0, 100], 5, 90), (placed[1, :, 100], 30, 40)):
        inner = (at > start + length * 2 / 11) & (at < start + length * 9 / 11)
        cells = 11 * (at - start) / length - 0.5
        # Torch's bicubic interpolation bends straight lines by up to a twentieth of a cell.
        np.testing.assert_allclose(found.numpy()[inner], cells[inner] / 10, atol=5e-3)
    whole = Scan.of(np.zeros((60, 60, 3), np.uint8), np.zeros((60, 60, 3), np.float32))
    maps = torch.rand(1, 1, 7, 7, generator=torch.Generator().manual_seed(4))
    expected = torch.nn.functional.interpolate(maps, (112, 112), mode="bicubic")
    assert torch.equal(in_square(maps, whole, 112), expected)
    padded = in_square(maps, Scan.of(np.zeros((58, 58, 3), np.uint8), np.zeros((100, 100, 3), np.float32)), 100)
    torch.testing.assert_close(padded[..., 21:79, 21:79], torch.nn.functional.interpolate(maps, 58, mode="bicubic"))


def test_the_full_profile_sees_the_images_own_pixels(published):
    """The backbone gets the stored image, the depth map the stored cloud, both stretched to squares."""
    sample, detector = strip(7), AST(replace(published, ast_image_side=256))
    seen = []
    detector.backbone.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    x, weight = detector.inputs(sample, None, detector.scan(sample))
    image = Image.fromarray(sample.scan().rgb).resize((256, 256), Image.Resampling.BILINEAR)
    assert np.array_equal(seen[0][0].numpy(), np.asarray(image).transpose(2, 0, 1) / np.float32(255))
    depth = torch.nn.functional.pixel_shuffle(x[:, 304:], 8)[0, 0]
    inside = slice(int(0.15 * 64), int(0.85 * 64))
    assert weight[0, 0].min() > 0, "the part fills the frame"
    assert (depth[inside, inside] != 0).all() and depth[0].abs().max() == 0
    # In memory, without files, it is the sample's own pixels.
    alone = replace(sample, scan=None)
    assert detector.scan(alone) is None
    assert torch.equal(detector.inputs(alone, None)[0][:, :304], detector.backbone(torch.from_numpy(sample.rgb)[None]))
    assert AST(replace(published, ast_backbone="tokens")).scan(sample) is None


# ---------------------------------------------------------------- its backbone


@pytest.fixture(scope="module")
def published() -> Config:
    overrides = {"ast_backbone": "efficientnet_b5", "ast_image_side": 128, "random_weights": True, "ast_epochs": 1}
    return Config.preset("smoke", overrides=overrides | {"min_steps": 1})


def test_layer_36_is_timms(published):
    backbone = EfficientNetB5.from_config(published, 128)
    network, digest = timm_network("tf_efficientnet_b5.aa_in1k", EFFICIENTNET_B5, published)
    assert digest == "random" and sum(len(stage) for stage in network.blocks[:6]) == 36
    seen = []
    network.blocks[5].register_forward_hook(lambda *call: seen.append(call[-1]))
    rgb = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    network((rgb - mean) / std)
    found = backbone(rgb)
    assert found.shape == (1, 304, 4, 4)
    torch.testing.assert_close(found, seen[0])


def test_with_its_own_backbone_it_needs_no_tokens(published):
    detector = AST(published).fit([plate(k) for k in range(2)], show=False)
    assert detector.extractor is None and detector.channels == 304 + 64
    found = detector.predict(plate(3))
    assert np.isfinite(found.psi).all() and found.score > 0


def test_missing_and_unfit_weights_are_named(published, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def unreachable(url: str) -> None:
        raise OSError(f"{url}: no network")

    monkeypatch.setattr(weight_files, "reach", unreachable)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    trained = replace(published, random_weights=False)
    with pytest.raises(WeightsError, match="1 weight file is missing") as caught:
        EfficientNetB5.from_config(trained, 128, tmp_path)
    for text in (EFFICIENTNET_B5.address, str(tmp_path / "efficientnet_b5.safetensors"), "no network"):
        assert text in str(caught.value)
    path = tmp_path / "efficientnet_b5.safetensors"
    path.write_bytes(safetensors.torch.save({"conv_stem.weight": torch.zeros(3)}))
    with pytest.raises(WeightsError, match="not readable as EfficientNet-B5 weights"):
        EfficientNetB5.from_config(trained, 128, tmp_path)


def test_weights_are_read_from_either_file(published, tmp_path: Path):
    torch.manual_seed(9)
    state = timm.create_model("tf_efficientnet_b5", pretrained=False).state_dict()
    torch.save(state, tmp_path / "tf_efficientnet_b5_aa-99018a74.pth")
    backbone = EfficientNetB5.from_config(replace(published, random_weights=False), 128, tmp_path)
    assert torch.equal(backbone.layers[0].weight, state["conv_stem.weight"])
    assert torch.equal(backbone.layers[-1][-1].bn3.running_var, state["blocks.5.8.bn3.running_var"])


def test_holes_are_filled_as_by_filters_over_the_whole_image() -> None:
    g = np.random.default_rng(10)
    inside = ndimage.gaussian_filter(g.normal(size=(40, 50)), 4) > 0
    missing = inside & (ndimage.gaussian_filter(g.normal(size=(40, 50)), 2) > 0.02)
    missing |= inside & (np.hypot(*np.mgrid[-20:20, -25:25]) < 12)  # deeper than three pixels
    known = inside & ~missing
    depth = np.where(known, g.normal(5, 1, known.shape), 0)
    found = without_holes(depth, known, missing, 3)
    there, values = known.copy(), depth.copy()
    for _ in range(3):
        share = ndimage.uniform_filter(there.astype(np.float64), 3, mode="constant")
        new = missing & ~there & (share > 0.5 / 9)
        values[new] = ndimage.uniform_filter(values, 3, mode="constant")[new] / share[new]
        there |= new
    assert known.sum() < there.sum() < inside.sum()
    assert np.array_equal(found[1], there)
    np.testing.assert_allclose(found[0], values, rtol=1e-12)
