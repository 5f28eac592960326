"""Checkpoints with more in them than weights: NumPy's values are passed over, nothing else is."""

import argparse
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from mafr.errors import WeightsError
from mafr.features.pointmae import PUBLISHED, PointMAE, load_checkpoint
from mafr.features.weights.files import NumpyValue, read_checkpoint, read_tensors

BESIDE = {
    "float": np.float64(91.5), "small float": np.float32(0.5), "integer": np.int64(3), "truth": np.bool_(True),
    "array": np.arange(3.0), "order": np.asfortranarray(np.ones((2, 3))), "objects": np.array(["a"], dtype=object),
    "text": np.str_("x"), "records": np.zeros(2, [("a", "f4"), ("b", "i2")]),
}  # fmt: skip


@pytest.mark.parametrize("as_zip", [True, False])
@pytest.mark.parametrize("kind", BESIDE)
def test_numpy_values_beside_the_weights_are_passed_over(kind: str, as_zip: bool, tmp_path: Path) -> None:
    weights = {"layer": torch.arange(3.0)}
    content = {"base_model": weights, "metrics": {"acc": BESIDE[kind]}, "epoch": 300}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=as_zip)
    before = torch.serialization.get_safe_globals()
    found = read_checkpoint(tmp_path / "a.pth", "Point-MAE")
    assert torch.equal(found["base_model"]["layer"], weights["layer"]) and found["epoch"] == 300
    assert isinstance(found["metrics"]["acc"], NumpyValue)
    assert set(torch.serialization.get_safe_globals()) == set(before)


def test_numpys_names_before_version_2_are_known(tmp_path: Path) -> None:
    given = {"weight": torch.ones(2), "acc": np.float64(1)}
    torch.save(given, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "a.pth").read_bytes()
    names = b"cnumpy._core.multiarray\nscalar", b"cnumpy.core.multiarray\nscalar"
    assert any(name in content for name in names)
    for name in names:
        (tmp_path / "b.pth").write_bytes(content.replace(names[0], name).replace(names[1], name))
        assert isinstance(read_checkpoint(tmp_path / "b.pth", "Point-MAE")["acc"], NumpyValue)


def test_a_published_layout_with_numpy_numbers_loads(tmp_path: Path) -> None:
    model = PointMAE(PUBLISHED)
    weights = {f"module.MAE_encoder.{name}": tensor for name, tensor in model.state_dict().items()}
    content = {"base_model": OrderedDict(weights), "epoch": 300, "metrics": {"acc": np.float64(0)}}
    torch.save(content | {"best_metrics": {"acc": np.float64(0)}}, tmp_path / "pretrain.pth")
    found = load_checkpoint(tmp_path / "pretrain.pth").state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in model.state_dict().items())


def test_other_things_are_refused_with_what_to_save(tmp_path: Path) -> None:
    torch.save({"base_model": {}, "args": argparse.Namespace(a=1)}, tmp_path / "a.pth")
    message = r"a.pth: .*holds argparse.Namespace, which could run code; only plain tensors are read\); save the"
    with pytest.raises(WeightsError, match=message + r' tensors .*: torch.save\({"base_model": model.state_dict'):
        load_checkpoint(tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=message + r" tensors .*: torch.save\(model.state_.*, or copy it again"):
        read_tensors(tmp_path / "a.pth", "released decoder", "copy it again")


def test_weights_that_are_numpy_arrays_are_not_dropped_in_silence(tmp_path: Path) -> None:
    torch.save({"base_model": {"MAE_encoder.a": np.ones(3), "b": torch.ones(2)}}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"a.pth: the weights are NumPy arrays; save tensors where it was made"):
        load_checkpoint(tmp_path / "a.pth")
    torch.save({"a": torch.ones(2), "b": np.ones(3)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"should be a module's state_dict\(\), names with tensors"):
        read_tensors(tmp_path / "a.pth", "DINO")


@pytest.mark.parametrize("as_zip", [True, False])
def test_code_behind_numpys_values_does_not_run(as_zip: bool, tmp_path: Path) -> None:
    mark = tmp_path / "ran"

    class Touch:
        def __reduce__(self) -> tuple:
            return Path.touch, (mark,)

    hidden = np.array([Touch()], dtype=object)
    torch.save({"base_model": {}, "acc": hidden}, tmp_path / "a.pth", _use_new_zipfile_serialization=as_zip)
    with pytest.raises(WeightsError, match="which could run code; only plain tensors are read"):
        read_checkpoint(tmp_path / "a.pth", "Point-MAE")
    (tmp_path / "a.pth").write_bytes(pickle.dumps({"acc": hidden}, protocol=2))
    with pytest.raises(WeightsError):
        read_checkpoint(tmp_path / "a.pth", "Point-MAE")
    assert not mark.exists()
