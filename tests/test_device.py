"""Precision "auto": bfloat16 where it is faster, which is by AMX; asked for, wherever it is native."""

import pytest
import torch

from mafr import device
from mafr.bench.work import describe_machine
from mafr.config import Config
from mafr.device import Place, fast_bfloat16, instruction_sets, native_bfloat16, why_precision
from mafr.errors import ConfigError

QUESTIONS = {
    "AVX2": "_is_avx2_supported", "AVX512": "_is_avx512_supported", "AVX512_BF16": "_is_avx512_bf16_supported",
    "AMX": "_is_amx_tile_supported",
}  # fmt: skip
ALL = tuple(QUESTIONS)


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch):
    """Sets the processor's instruction sets, oneDNN's limit, and whether the system grants AMX."""

    def choose(sets: tuple[str, ...], limit: str | None = None, granted: bool = True) -> None:
        for name, question in QUESTIONS.items():
            monkeypatch.setattr(torch.cpu, question, lambda there=name in sets: there, raising=False)
        monkeypatch.setattr(torch.cpu, "_init_amx", lambda: granted, raising=False)
        monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
        monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
        if limit is not None:
            monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
        native_bfloat16.cache_clear()
        fast_bfloat16.cache_clear()

    yield choose
    monkeypatch.undo()
    native_bfloat16.cache_clear()
    fast_bfloat16.cache_clear()


def on_cpu(precision: str) -> Config:
    return Config.preset("smoke", overrides={"precision": precision, "device": "cpu"})


@pytest.mark.parametrize(
    ("sets", "limit", "granted", "auto", "native", "reason"),
    [
        (ALL, None, True, True, True, "by AMX"),
        (ALL, "all", True, True, True, "by AMX"),
        (ALL, "avx512_core_amx", True, True, True, "by AMX"),
        (ALL, "AVX10_1_512_AMX", True, True, True, "by AMX"),
        (ALL, "AVX512_CORE_BF16", True, False, True, "ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 forbids it"),
        (ALL, "AVX512_CORE_FP16", True, False, True, "ONEDNN_MAX_CPU_ISA=AVX512_CORE_FP16 forbids it"),
        (ALL, "AVX2", True, False, False, "ONEDNN_MAX_CPU_ISA=AVX2 forbids it"),
        (ALL, None, False, False, True, "by AVX512_BF16 alone"),
        (ALL[:3], None, True, False, True, "by AVX512_BF16 alone"),
        (ALL[:2], None, True, False, False, "no bfloat16 products"),
        ((), None, True, False, False, "no bfloat16 products"),
    ],
)  # fmt: skip
def test_auto_takes_bfloat16_by_amx_only(processor, sets, limit, granted, auto, native, reason):
    processor(sets, limit, granted)
    assert instruction_sets() == sets
    config = on_cpu("auto")
    assert Place.of(config).half == auto
    assert reason in why_precision(config) and ("bfloat16" if auto else "float32") in why_precision(config)
    assert not Place.of(on_cpu("float32")).half and why_precision(on_cpu("float32")) == "float32, as set"
    if native:
        assert Place.of(on_cpu("bfloat16")).half
    else:
        with pytest.raises(ConfigError, match="does not multiply natively"):
            Place.of(on_cpu("bfloat16"))


def test_the_older_name_of_the_limit_counts_too(processor, monkeypatch):
    processor(ALL)
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "AVX512_CORE")
    assert not Place.of(on_cpu("auto")).half


@pytest.mark.parametrize(("capability", "half"), [((8, 0), True), ((9, 0), True), ((7, 5), False)])
def test_gpus_are_judged_by_their_generation(processor, monkeypatch, capability, half):
    processor(())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number=None: capability)
    monkeypatch.setattr(device, "_this_gpu", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda where=None: "a GPU")
    config = Config.preset("smoke", overrides={"precision": "auto", "device": "cuda"})
    assert Place.of(config).half == half
    assert f"capability {'8.0 or later' if half else 'below 8.0'}" in why_precision(config)


def test_the_benchmark_says_why(processor, monkeypatch):
    monkeypatch.setattr("mafr.bench.work._rate", lambda *_: 1.0)
    processor(ALL[:3])
    machine = describe_machine(on_cpu("auto"))
    assert machine["precision"] == "float32" and machine["instruction_sets"] == ["AVX2", "AVX512", "AVX512_BF16"]
    assert "AVX512_BF16 alone" in machine["why"]
