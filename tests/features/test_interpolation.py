"""The sparse matrices from tokens to pixels, against the dense maps."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mafr.features.interpolation import Rows, channels_last, densify_rgb, densify_xyz, rgb_rows, xyz_rows

GRID, GROUPS = 21, 40


def _cells(seed: int = 0, share: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    """Stored index and weight of a blob of cells, with equal groups and zero weights among them."""
    rng = np.random.default_rng(seed)
    v, u = np.mgrid[:GRID, :GRID]
    inside = ((u - 8) ** 2 + (v - 12) ** 2 < share * GRID**2 / np.pi).reshape(-1)
    index = np.stack([rng.permutation(GROUPS)[:3] for _ in range(GRID**2)]).astype(np.int16)
    weight = rng.dirichlet(np.ones(3), GRID**2).astype(np.float16) * inside[:, None]
    weight[inside.argmax(), 1] = 0
    index[~inside] = 0
    return torch.from_numpy(index), torch.from_numpy(weight.astype(np.float16))


def _pixels(dense: torch.Tensor) -> torch.Tensor:
    return dense[0].permute(1, 2, 0).reshape(-1, dense.shape[1])


@pytest.mark.parametrize("pool", [1, 3, 5])
def test_rows_of_the_cloud_equal_the_dense_maps_and_their_validity(pool: int) -> None:
    index, weight = _cells()
    tokens = torch.randn(GROUPS, 17, generator=torch.Generator().manual_seed(1))
    dense = densify_xyz(tokens[None], index[None], weight[None], GRID, pool)
    rows, valid = xyz_rows(index, weight, GRID, pool, groups=GROUPS)
    np.testing.assert_array_equal(valid, (dense != 0).any(1)[0].numpy())
    assert 0 < valid.sum() < valid.size
    assert len(rows) == GRID**2 and rows.columns == GROUPS and (rows.weight != 0).all()
    torch.testing.assert_close(rows.apply(tokens), _pixels(dense), rtol=1e-6, atol=1e-6)
    few, same = xyz_rows(index, weight, GRID, pool, groups=GROUPS, only_valid=True)
    np.testing.assert_array_equal(valid, same)
    assert len(few) == valid.sum()
    assert torch.equal(few.apply(tokens), rows.apply(tokens)[torch.from_numpy(valid.reshape(-1))])


@pytest.mark.parametrize(("height", "width"), [(7, 7), (3, 10), (21, 21), (1, 4)])
def test_rows_of_the_image_equal_bilinear_interpolation(height: int, width: int) -> None:
    tokens = torch.randn(1, 9, height, width, generator=torch.Generator().manual_seed(2))
    dense = _pixels(densify_rgb(tokens, GRID))
    flat = _pixels(tokens).contiguous()
    torch.testing.assert_close(rgb_rows(height, width, GRID).apply(flat), dense, rtol=1e-6, atol=4e-6)
    chosen = np.arange(GRID**2) % 5 == 2
    for selected in (chosen, chosen.reshape(GRID, GRID)):
        some = rgb_rows(height, width, GRID, selected)
        torch.testing.assert_close(some.apply(flat), dense[torch.from_numpy(chosen)], rtol=1e-6, atol=4e-6)


def test_gradients_equal_those_of_the_dense_maps_and_repeat_exactly() -> None:
    index, weight = _cells(3)
    rows, _ = xyz_rows(index, weight, GRID, 3, groups=GROUPS)
    factor = torch.randn(GRID**2, 6, generator=torch.Generator().manual_seed(4))
    gradients = []
    for dense in (True, False, False):
        tokens = torch.randn(GROUPS, 6, generator=torch.Generator().manual_seed(5)).requires_grad_()
        pixels = _pixels(densify_xyz(tokens[None], index[None], weight[None], GRID, 3)) if dense else rows.apply(tokens)
        (pixels**2 * factor).sum().backward()
        gradients.append(tokens.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-5)
    assert torch.equal(gradients[1], gradients[2])


def test_the_transposed_matrix_is_one() -> None:
    rows, _ = xyz_rows(*_cells(6), GRID, 3, groups=GROUPS)
    turned = rows.transposed
    assert len(turned) == GROUPS and turned.columns == GRID**2
    np.testing.assert_array_equal(turned.to_scipy().toarray(), rows.to_scipy().toarray().T)
    assert rows.transposed is turned


def test_several_samples_stack_to_one_matrix() -> None:
    parts = [xyz_rows(*_cells(k, 0.1 + 0.2 * k), GRID, 1, groups=GROUPS, only_valid=True)[0] for k in range(3)]
    tokens = torch.randn(3, GROUPS, 5, generator=torch.Generator().manual_seed(7))
    together = Rows.stack(parts).apply(tokens.flatten(0, 1))
    assert torch.equal(together, torch.cat([part.apply(tokens[k]) for k, part in enumerate(parts)]))


def test_a_sample_without_a_point_has_no_rows() -> None:
    index, weight = _cells()
    rows, valid = xyz_rows(index, weight * 0, GRID, 3, groups=GROUPS, only_valid=True)
    assert not valid.any() and len(rows) == 0
    assert rows.apply(torch.ones(GROUPS, 2)).shape == (0, 2)


def test_channels_last_changes_no_value_of_a_pooling() -> None:
    g = torch.Generator().manual_seed(8)
    for maps in (
        torch.randn(2, 5, 12, 10, generator=g),
        torch.randn(12, 10, 5, generator=g).permute(2, 0, 1)[None],
    ):
        laid = channels_last(maps)
        assert torch.equal(laid, maps) and laid.stride() == (maps[0].numel(), 1, 10 * maps.shape[1], maps.shape[1])
        for pooled in (partial(F.avg_pool2d, kernel_size=3, stride=1), partial(F.adaptive_avg_pool2d, output_size=7)):
            torch.testing.assert_close(pooled(laid), pooled(maps.contiguous()), rtol=1e-6, atol=1e-7)
