"""The limit for the same bytes: it comes before torch or not at all, and does what it says on other processors."""

import hashlib
import json
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.places import CHECKOUT

from mafr import processor
from mafr.cli import main
from mafr.config import Config
from mafr.device import Place, instruction_sets
from mafr.errors import ConfigError
from mafr.experiments.provenance import processor as this_processor
from mafr.processor import REACHES, limit, limited, limits

needs_avx2 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or "AVX2" not in instruction_sets(),
    reason="the limit is for x86-64 processors with AVX2",
)
# By hand, and by more ways than the limit has: no library finds more than AVX2.
ELSEWHERE = {
    "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": limits("x86")["NPY_DISABLE_CPU_FEATURES"],
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX512DQ,-AVX512CD",
}  # fmt: skip
RUNS = ("reproduce", "--profile", "smoke", "--tables", "1", "--variant", "paper", "--methods", "cfm", "--stages",
        "data,features,runs", "--set", "mvtec3d_categories=bagel")  # fmt: skip


def free(**more: str) -> dict[str, str]:
    """The environment without a limit, on one thread, with the checkout's package."""
    own = {name: value for name, value in os.environ.items() if name not in limits("x86")}
    return own | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)} | more


def start(*command: str, **more: str) -> subprocess.Popen:
    whole = [sys.executable, "-m", "mafr.cli", *command]
    return subprocess.Popen(whole, env=free(**more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> tuple[str, str]:
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out, err


def results(root: Path) -> dict[str, str]:
    """Digests of generated data, features, maps, and of the numbers in records, by path."""
    found = {}
    for path in sorted(root.rglob("*")):
        content = b""
        if path.name == "metrics.json":
            record = json.loads(path.read_text())
            assert record["place"]["same_bytes"] == "x86" and record["place"]["processor"] == processor.processor_name()
            numbers = {name: record[name] for name in ("metrics", "scores", "threshold", "history")}
            content = json.dumps(numbers, sort_keys=True).encode()
        elif path.suffix in (".png", ".tiff", ".npy", ".npz"):
            content = path.read_bytes()
        if content:
            found[str(path.relative_to(root))] = hashlib.sha256(content).hexdigest()
    return found


@needs_avx2
def test_the_same_bytes_on_another_instruction_set(tmp_path):
    """From the generator to the scores; in worker processes, and in one that finds no more than AVX2 anywhere."""
    roots = [tmp_path / "option", tmp_path / "elsewhere"]
    made = [
        start(*RUNS, "--same-bytes", "x86", "--workers", "2", MAFR_HOME=str(roots[0])),
        start(*RUNS, "--workers", "1", MAFR_HOME=str(roots[1]), MKL_CBWR="COMPATIBLE", **ELSEWHERE),
    ]
    assert all(finish(process) for process in made)
    one, two = map(results, roots)
    assert one == two
    for kind in ("metrics.json", "residuals.npz", "maps.npz", "rgb.npy", ".png", ".tiff"):
        assert any(name.endswith(kind) for name in one), kind


PRODUCTS = """
import hashlib, numpy, scipy.linalg, torch
torch.manual_seed(0)
a, b = torch.randn(300, 200), torch.randn(200, 150)
f = a.double().numpy()
layer = torch.nn.Conv2d(8, 16, 3, padding=1)
made = [a @ b, torch.exp(a), torch.nn.functional.gelu(a), torch.softmax(a, 1), torch.linalg.qr(a)[0],
        layer(torch.randn(2, 8, 28, 28)).detach(), f @ f.T, numpy.exp(f), numpy.sin(f), scipy.linalg.eigh(f.T @ f)[0]]
print(*(hashlib.sha256(numpy.ascontiguousarray(one).tobytes()).hexdigest()[:8] for one in made))
"""


@needs_avx2
@pytest.mark.parametrize("reach", REACHES)
def test_each_library_takes_the_code_of_avx2(reach):
    if reach == "intel" and "AMD" in processor.processor_name():
        pytest.skip("this processor is not Intel's")
    one = start("same-bytes", reach, sys.executable, "-c", PRODUCTS)
    code = {"MKL_CBWR": limits(reach)["MKL_CBWR"]}
    by_hand = subprocess.run([sys.executable, "-c", PRODUCTS], env=free(**ELSEWHERE, **code), capture_output=True,
                             text=True, check=True)  # fmt: skip
    assert finish(one)[0].split() == by_hand.stdout.split() and len(by_hand.stdout.split()) == 10


@needs_avx2
def test_kernels_are_compiled_without_avx512():
    show = """
import mafr.fast.loops.elementary
from numba import float32, njit

@njit
def double(values):
    for k in range(values.size):
        values[k] += values[k]

double.compile((float32[::1],))
text = "".join(double.inspect_asm().values())
print("ymm" in text, "zmm" in text)
"""
    out, _ = finish(start("same-bytes", "x86", sys.executable, "-c", show))
    assert out.split() == ["True", "False"]


def test_the_reach_of_intel_ends_at_other_processors(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(processor, "_told", {"vendor_id": "AuthenticAMD", "model name": "AMD EPYC 7763"}.get)
    with pytest.raises(ConfigError, match=r"\(AMD EPYC 7763\) is not Intel's; for the same bytes here too take x86"):
        limit("intel")


@needs_avx2
def test_a_command_started_with_it_computes_by_avx2_and_so_do_its_children():
    show = "import torch, mafr.processor as p; print(torch.backends.cpu.get_cpu_capability(), p.limited())"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {show!r}], check=True)"
    out, err = finish(start("same-bytes", "x86", sys.executable, "-c", child, MKL_CBWR="AVX2"))
    assert out.split() == ["AVX2", "x86"]
    assert "MKL_CBWR is COMPATIBLE now, not AVX2" in err


@needs_avx2
def test_numpy_takes_avx2_without_a_warning():
    show = "import numpy._core._multiarray_umath as m; print(*(n for n, on in m.__cpu_features__.items() if on))"
    out, err = finish(start("same-bytes", "x86", sys.executable, "-W", "default", "-c", show))
    assert "AVX2" in out.split() and "Warning" not in err
    assert not {"X86_V4", "AVX512_SKX", "AVX512_ICL", "AVX512_SPR"} & set(out.split())


def test_too_late_it_says_so_and_changes_nothing(monkeypatch, capsys):
    for name in limits("x86"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert not limited()
    assert main(["seeds", "--profile", "smoke", "--same-bytes", "x86"]) == 1
    said = capsys.readouterr().err
    assert "no effect once numpy and torch are loaded" in said and "mafr same-bytes x86 jupyter lab" in said
    assert not limited() and not set(limits("x86")) & set(os.environ)
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    with pytest.raises(ConfigError, match="for x86-64 processors; this is arm64"):
        limit("x86")


@pytest.mark.parametrize(("arguments", "said"), [([], "give the command"), (["no-such-command"], "cannot be started")])
def test_what_cannot_be_started_is_said(monkeypatch, capsys, arguments, said):
    for name, value in limits("x86").items():
        monkeypatch.setenv(name, value)
    assert main(["same-bytes", "x86", *arguments]) == 1
    assert said in capsys.readouterr().err


@pytest.fixture
def smoke_config(monkeypatch) -> Config:
    """Settings for a process that stands under the limit, as far as settings are concerned."""
    for name, value in limits("x86").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    return Config.preset("smoke")


@pytest.mark.parametrize(
    ("settings", "instead"),
    [
        ({"precision": "bfloat16"}, "--set precision=float32"),
        ({"device": "cuda"}, "--set device=cpu"),
        ({"compiled": True}, "--set compiled=false"),
        ({"device": "cuda", "precision": "tf32"}, "--set device=cpu --set precision=float32"),
    ],
)
def test_settings_that_contradict_it_are_refused(smoke_config, settings, instead):
    with pytest.raises(ConfigError, match=f"the same bytes on other processors need {instead}$"):
        Place.of(replace(smoke_config, **settings))


def test_auto_means_the_processor_and_float32(smoke_config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    place = Place.of(replace(smoke_config, device="auto", precision="auto"))
    assert (place.device.type, place.dtype) == ("cpu", torch.float32)


def test_a_limit_set_after_torch_was_loaded_is_refused(smoke_config, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    with pytest.raises(ConfigError, match="torch computes by AVX512 code, not AVX2"):
        Place.of(smoke_config)


def test_the_limit_changes_no_digest(smoke_config):
    assert limited() == "x86" and "same_bytes" not in smoke_config.as_dict()
    assert this_processor()["same_bytes"] == "x86"
    assert this_processor()["instruction_sets"] == list(instruction_sets())  # the processor's, limited or not


def test_names_of_numpys_features_follow_its_version(monkeypatch):
    names = {}
    old, new = ("1.26.4", "2.3.0"), ("2.4.0rc1", "2.10.0", "3.0")
    for number in (*old, *new):
        monkeypatch.setattr(processor, "version", lambda package, number=number: number)
        limits.cache_clear()
        names[number] = limits("intel")["NPY_DISABLE_CPU_FEATURES"].split()[0]
    limits.cache_clear()
    assert names == dict.fromkeys(old, "AVX512F") | dict.fromkeys(new, "X86_V4")
