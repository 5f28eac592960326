"""The residual expected of good cells: learned by a regression, divided away by a share, saved with the detector."""

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.linear_model import Ridge
from support.samples import FakeFeatures, small

from mafr.detector import Detector
from mafr.errors import WeightsError
from mafr.expected import RIDGE, Expected


def _cells(count=4, width=7, seed=0):
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(width, 2, generator=g)
    cells = []
    for _ in range(count):
        restored = 3 + 2 * torch.randn(500, width, generator=g)
        cells.append((restored, torch.exp(0.3 * restored @ weight + 0.1 * torch.randn(500, 2, generator=g))))
    return cells


def test_the_regression_is_ridge_on_standardised_features():
    cells = _cells()
    x, y = (torch.cat(part).double().numpy() for part in zip(*cells, strict=True))
    found = Expected.fit(cells)
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-6
    theirs = Ridge(alpha=RIDGE).fit((x - mean) / spread, np.log(y))
    expected = theirs.predict((x - mean) / spread)
    assert np.allclose(x @ found.weight.numpy() + found.bias.numpy(), expected, atol=1e-4)


def test_dividing_takes_the_share_of_what_is_expected():
    cells = _cells()
    found = Expected.fit(cells)
    restored, psi = _cells(1, seed=0)[0]
    assert torch.equal(found.divided(psi, restored, 0.0), psi)
    half, most = (found.divided(psi, restored, share).log().std(dim=0) for share in (0.5, 0.95))
    assert (most < 0.5 * half).all() and (half < 0.8 * psi.log().std(dim=0)).all()
    louder = found.divided(10 * psi, restored, 0.5)
    assert torch.allclose(louder, 10 * found.divided(psi, restored, 0.5)), "what restoring does not explain stays"


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_a_detector_learns_it_from_training_parts_and_keeps_it(variant, tmp_path):
    config = small(variant, epochs=3, expected_share=0.5)
    features = FakeFeatures(config, 6)
    detector = Detector(config).fit_split(features)
    plain = Detector(small(variant, epochs=3)).fit_split(features)
    tokens = features.tokens([0])
    ours, theirs = detector.residuals(tokens), plain.residuals(tokens)
    assert torch.equal(ours[2], theirs[2]) and not ours[0][~ours[2]].any()
    restored, psi = detector._restorer().restored(detector._scene(tokens))
    valid = theirs[2].flatten()
    rows = detector._scene(tokens).canvas.rows.cpu()
    for k in range(2):
        assert torch.allclose(psi[:, k][valid[rows]], theirs[k].flatten()[rows][valid[rows]], atol=1e-4)
    wanted = detector.expected.divided(psi, restored, 0.5)
    assert torch.allclose(ours[1].flatten()[rows][valid[rows]], wanted[:, 1][valid[rows]], atol=1e-5)
    loaded = Detector.load(detector.save(tmp_path / "detector"))
    assert all(torch.equal(a, b) for a, b in zip(loaded.residuals(tokens), ours, strict=True))
    (tmp_path / "detector/model.safetensors").write_bytes(safetensors.torch.save(plain.state()))
    with pytest.raises(WeightsError, match="expected residual"):
        Detector.load(tmp_path / "detector")
    assert plain.expected is None and not any(name.startswith("expected") for name in plain.state())
