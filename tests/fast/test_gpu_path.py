"""The GPU path: checked without one as far as that goes, and on one where there is one.

On torch's meta device nothing is computed, but an operation on a tensor of the CPU and one of the device fails, and so
does every look at a value: what passes there neither mixes devices nor waits for a result.
"""

from dataclasses import replace

import pytest
import torch
from support.cfm import method_of
from support.samples import CPU, FakeFeatures, config_of, make_sample, model_of, relative, small, state, tokens_of

from mafr import training
from mafr.baselines.cfm import ROWS
from mafr.baselines.parts.flow import Flow, likelihood_loss, pad_edges
from mafr.baselines.registry import method_class
from mafr.config import Config
from mafr.detector import Detector
from mafr.device import Place, compiling, computing, gpu_products, kernel, loadable, native_bfloat16
from mafr.errors import ConfigError
from mafr.fast.layers import Dropout, _activated, _activated_back
from mafr.fast.restorer import Restorer, open_scene, scores_every_pixel
from mafr.features.extract import FeatureExtractor
from mafr.model import MAFR

META = torch.device("meta")
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
VARIANTS = pytest.mark.parametrize("variant", ["paper", "released"])


class AnyMask(Dropout):
    """Masks where no random generator is."""

    def mask(self, layer, first, rows, width, device):
        return torch.zeros(rows, width, dtype=torch.bool, device=device)


def test_the_meta_device_tells_what_a_gpu_would_wait_for():
    there = torch.ones(2, device=META)
    with pytest.raises(RuntimeError):
        there + torch.ones(2)
    with pytest.raises(RuntimeError):
        there.sum().item()
    with pytest.raises((RuntimeError, NotImplementedError)):
        there.nonzero()


@VARIANTS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_steps_and_residuals_wait_for_nothing(variant, dtype):
    config, place = config_of(variant, dropout=0.1), Place(META, dtype)
    model = MAFR.from_config(config).to(META)
    restorer = Restorer(model, config, place)
    optimiser = torch.optim.Adam(model.parameters())
    scene = open_scene(tokens_of(config), config, place, every_pixel=not config.valid_only)
    values = restorer.step(scene, AnyMask(0.1, (1,)))
    optimiser.step()
    assert {value.device for value in values.values()} == {META}
    scene = open_scene(tokens_of(config), config, place, every_pixel=scores_every_pixel(config))
    assert {psi.device for psi in restorer.residuals(scene)} == {META}


def test_backbones_wait_for_nothing():
    config = Config.preset("smoke")
    extractor = FeatureExtractor.from_config(config)
    one = extractor.prepare(make_sample())
    extractor.place = Place(META, torch.float32)
    extractor.rgb.to(META)
    extractor.points.to(META)
    assert extractor.image_tokens([one]).device == META
    assert extractor.cloud_tokens([one]).device == META


def test_steps_of_cfm_and_of_the_flow_wait_for_nothing(monkeypatch):
    monkeypatch.setitem(ROWS, "meta", ROWS["cuda"])
    method = method_of(config_of("paper"))
    method.place = Place(META, torch.float32)
    method.maps.to(META)
    scene = open_scene(tokens_of(method.config), method.config, method.place)
    assert method.step([scene, scene]).device == META
    with torch.inference_mode():
        assert {psi.device for psi in method.distances(scene)} == {META}
    flow = Flow(8, 4, 16, [3, 3], 1.9).to(META)
    z, jacobian = flow(torch.ones(2, 8, 6, 6, device=META), torch.ones(1, 4, 6, 6, device=META))
    likelihood_loss(z, jacobian, torch.ones(2, 1, 6, 6, device=META)).backward()


def test_tf32_is_on_where_it_was_asked_for_and_nowhere_else(monkeypatch):
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn

    def flags():
        reduced = matmul.allow_bf16_reduced_precision_reduction
        return matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, reduced

    before = flags()
    with gpu_products("tf32"):
        assert flags() == before  # no GPU is there
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for precision, wanted in (("tf32", True), ("float32", False), ("auto", False)):
        with gpu_products(precision):
            assert flags() == (wanted, wanted, True, False)
    assert flags() == before
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="tf32"):
        Place.of(Config.preset("smoke", overrides={"precision": "tf32"}))


def test_a_gpu_that_this_torch_does_not_support_is_named(monkeypatch):
    config = Config.preset("smoke", overrides={"device": "auto"})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "Old")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_90a", "compute_90"])
    for capability, fits in (((7, 0), False), ((7, 5), True), ((8, 6), True), ((9, 0), True), ((12, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number, found=capability: found)
        if fits:
            assert Place.of(config).device == torch.device("cuda", 1)
        else:
            with pytest.raises(ConfigError, match=r"does not support this GPU \(Old, compute capability 7.0\)"):
                Place.of(config)


def test_what_was_saved_on_a_gpu_is_loaded_without_one():
    saved = Config.preset("smoke", overrides={"device": "cuda", "compiled": True, "precision": "tf32"})
    here = loadable(saved)
    if not torch.cuda.is_available():
        assert (here.device, here.precision) == ("cpu", "auto")
    assert not here.compiled
    assert loadable(Config.preset("smoke")) == Config.preset("smoke")


def test_edges_are_padded_as_torch_pads_them():
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    for width in (0, 1, 2):
        wanted = torch.nn.functional.pad(x, [width] * 4, mode="replicate")
        assert torch.equal(pad_edges(x, width), wanted)
        weight = torch.randn_like(wanted)
        (ours,), (theirs,) = (torch.autograd.grad((y * weight).sum(), x) for y in (pad_edges(x, width), wanted))
        torch.testing.assert_close(ours, theirs)


def test_samples_opened_far_ahead_change_nothing(monkeypatch):
    """As on a GPU: three threads ahead, nothing kept; and fewer samples than threads."""
    config = small()
    for count in (7, 2):
        features = FakeFeatures(config, count)
        monkeypatch.undo()
        wanted, history = training.fit(config, features, range(count))
        monkeypatch.setattr(training, "CACHE_BYTES", 0)
        monkeypatch.setitem(training.AHEAD, "cpu", 3)
        got, again = training.fit(config, features, range(count))
        assert again == history
        assert all(torch.equal(a, b) for a, b in zip(state(got).values(), state(wanted).values(), strict=True))


def test_kernels_that_are_counted_are_never_compiled(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda *args, **settings: pytest.fail("compiled"))
    with compiling(None), compiling(True):
        kernel(torch.neg)(torch.ones(1))


@pytest.mark.slow
def test_compiled_kernels_change_nothing():
    generator = torch.Generator().manual_seed(0)
    h, gradient = (torch.randn(50, 24, generator=generator).bfloat16() for _ in range(2))
    gamma, beta = (torch.randn(24, generator=generator) for _ in range(2))
    dropped = torch.rand(50, 24, generator=generator) < 0.1
    found = []
    for wanted in (True, False):
        with compiling(wanted):
            out = _activated(h, gamma, beta, "gelu-norm", dropped, 1.1)
            found.append((out, *_activated_back(h, gradient, gamma, beta, "gelu-norm", dropped, 1.1)))
    for compiled, plain in zip(*found, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-5, atol=1e-5)


def test_a_machine_that_cannot_compile_is_told_so(monkeypatch):
    @kernel
    def doubled(x):
        return 2 * x

    def refuse(function, dynamic):
        def call(*args):
            raise torch._inductor.exc.InductorError(RuntimeError("no C++ compiler"), None)

        return call

    monkeypatch.setattr(torch, "compile", refuse)
    assert doubled(torch.ones(1)) == 2
    with compiling(True), pytest.raises(ConfigError, match=r"cannot compile here .*leave the setting out"):
        doubled(torch.ones(1))


@pytest.mark.full
@VARIANTS
def test_a_step_of_compiled_kernels_changes_nothing(variant):
    config = config_of(variant, dropout=0.1, compiled=True)
    tokens, model = tokens_of(config), model_of(config).train()
    scene = open_scene(tokens, config, CPU, every_pixel=not config.valid_only)
    found = []
    for wanted in (config, replace(config, compiled=False)):
        model.zero_grad()
        with computing(wanted):
            Restorer(model, config, CPU).general_step(scene, Dropout(0.1, (1,)))
        found.append({name: p.grad.clone() for name, p in model.named_parameters()})
    for name, gradient in found[1].items():
        assert gradient.norm() == 0 or relative(found[0][name], gradient) < 1e-4, name


# ---- on a GPU


def on_gpu(config: Config, precision: str) -> Config:
    return replace(config, device="cuda", precision=precision)


# Relative differences of maps and gradients: rounding of the factors to 24, 11 and 8 bits, through a dozen layers.
ROUNDING = {"float32": 1e-4, "tf32": 1e-2, "bfloat16": 5e-2}
PRECISIONS = pytest.mark.parametrize(("precision", "tolerance"), ROUNDING.items())


@gpu
@VARIANTS
@PRECISIONS
def test_a_gpu_agrees_with_the_processor(variant, precision, tolerance):
    if precision != "float32" and not native_bfloat16("cuda"):
        pytest.skip("an older GPU")
    config = config_of(variant)
    tokens, model = tokens_of(config), model_of(config)
    found = []
    for where in (replace(config, device="cpu", precision="float32"), on_gpu(config, precision)):
        place = Place.of(where)
        model.to(place.device).train().zero_grad()
        with computing(where):
            restorer = Restorer(model, where, place)
            restorer.step(open_scene(tokens, where, place, every_pixel=not where.valid_only), Dropout(0.0, (1,)))
            gradients = {name: p.grad.cpu().clone() for name, p in model.named_parameters()}
            scene = open_scene(tokens, where, place, every_pixel=scores_every_pixel(where))
            found.append((gradients, [psi.cpu() for psi in restorer.residuals(scene)]))
    (wanted, wanted_maps), (got, got_maps) = found
    for theirs, ours in zip(wanted_maps, got_maps, strict=True):
        assert relative(ours, theirs) < tolerance
    whole = [torch.cat([g.flatten() for g in side.values()]) for side in (got, wanted)]
    assert relative(*whole) < 3 * tolerance


@gpu
def test_a_training_on_a_gpu_repeats_and_keeps_its_samples_there(monkeypatch):
    config = on_gpu(small(), "float32")
    features = FakeFeatures(config, 5)
    first, history = training.fit(config, features, range(5))
    monkeypatch.setattr(training, "CACHE_BYTES", 0)
    monkeypatch.setattr(training, "GPU_SHARE", 0.0)  # every sample is opened again, some ahead
    second, again = training.fit(config, features, range(5))
    assert history == again
    assert all(torch.equal(a, b) for a, b in zip(state(first).values(), state(second).values(), strict=True))


@gpu
@pytest.mark.parametrize(
    "method", ["mafr", "cfm", "btf", "m3dm", "ast", "rgbd", "depthgan", "depthae", "voxelvm", "fpfh", "sift"]
)
def test_every_kind_of_method_runs_on_a_gpu(method):
    config = replace(Config.preset("smoke"), device="cuda", epochs=1, min_steps=2)
    samples = [replace(make_sample(seed), label=0) for seed in range(3)]
    detector = Detector(config) if method == "mafr" else method_class(method)(config)
    assert detector.fit(samples, show=False).predict(samples[0]).psi.shape == (112, 112)


@gpu
def test_compiled_kernels_run_on_a_gpu():
    config = on_gpu(small(compiled=True), "float32")
    features = FakeFeatures(config, 3)
    _, compiled = training.fit(config, features, range(3))
    _, plain = training.fit(replace(config, compiled=False), features, range(3))
    assert compiled[0]["total"] == pytest.approx(plain[0]["total"], rel=1e-3)
