"""The method as pictures: one good and one defective part beside each other through every step, on common scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch
from torch import Tensor

from mafr.config import Config
from mafr.data.samples import Sample
from mafr.features.extract import Tokens
from mafr.features.interpolation import densify
from mafr.figures.maps import HAIRLINE
from mafr.figures.samples import crop, show_map, show_rgb
from mafr.figures.style import BLACK, BLUE, HEAT, NO_POINT, Picture, bare, new_figure, outline
from mafr.model import MAFR
from mafr.scoring import ResidualMaps, fuse, image_score, residual_map, upsample

STEPS = (
    "frozen networks\nE2D, E3D", "fusion encoder\nE_fus (1)", "decoders, CBAM\nÊ2D, Ê3D (2)", "losses\n(3) – (6)",
    "training", "residuals\nΨ2D, Ψ3D (7)", "product, blur,\nscore (8)",
)  # fmt: skip
_TRAINING = (3, 4)  # steps that a part under test does not pass: a branch below
_PLACES = ((0.0, 0.0), (2.0, 0.0), (4.0, 0.0), (4.0, -0.95), (2.0, -0.95), (6.0, 0.0), (8.0, 0.0))
_ARROWS = (
    ((1.65, 0.3), (1.97, 0.3)), ((3.65, 0.3), (3.97, 0.3)), ((5.65, 0.3), (5.97, 0.3)), ((7.65, 0.3), (7.97, 0.3)),
    ((4.8, -0.03), (4.8, -0.32)), ((3.97, -0.65), (3.65, -0.65)), ((2.8, -0.32), (2.8, -0.03)),
)  # fmt: skip


@dataclass(frozen=True)
class Walk:
    """What every step makes of one sample, S = `Config.image_size`, g = `Config.grid`.

    e_rgb, e_xyz, e_fus, hat_rgb, hat_xyz: (1, C, g, g), zero where a cell has no point; valid: (1, 1, g, g) bool.
    psi_rgb, psi_xyz, product, psi: (S, S) residual maps, their fusion, and the blurred final map; score: its maximum.
    """

    sample: Sample
    valid: Tensor
    e_rgb: Tensor
    e_xyz: Tensor
    e_fus: Tensor
    hat_rgb: Tensor
    hat_xyz: Tensor
    psi_rgb: np.ndarray
    psi_xyz: np.ndarray
    product: np.ndarray
    psi: np.ndarray
    score: float


@torch.no_grad()
def walk(model: MAFR, sample: Sample, tokens: Tokens, config: Config) -> Walk:
    """A sample's way through a head; tokens: of `FeatureExtractor.extract`."""
    e_rgb, e_xyz, valid = densify(tokens, config)
    rows = torch.cat([e_rgb, e_xyz], dim=1).permute(0, 2, 3, 1)[valid[:, 0]]
    e_fus = torch.zeros(1, *valid.shape[-2:], config.width)
    e_fus[valid[:, 0]] = model.encoder(rows)
    hats = model(e_rgb, e_xyz, valid if config.valid_only else None)
    cells = [residual_map(e, hat) * valid for e, hat in zip((e_rgb, e_xyz), hats, strict=True)]
    mask = torch.from_numpy(sample.valid)[None]
    psi_rgb, psi_xyz = (upsample(part, valid, config.image_size) * mask for part in cells)
    answer = ResidualMaps(*cells, valid, mask, config)
    final = answer.maps(config.fusion)
    fused = fuse(psi_rgb, psi_xyz, config.fusion)
    maps = (part[0, 0].numpy() for part in (psi_rgb, psi_xyz, fused, final))
    score = float(image_score(final, config.image_score))
    return Walk(sample, valid, e_rgb, e_xyz, e_fus.permute(0, 3, 1, 2), *(hat * valid for hat in hats), *maps, score)


def plot_place(step: int) -> Picture:
    """The steps of Fig. 1 in a row, with the current one marked; step: its number in `STEPS`."""
    figure = new_figure(9.6, 1.05)
    figure.alt = f"The steps of the method; you are here: {STEPS[step]}".replace("\n", ", ")
    axes = figure.subplots()
    for number, (name, (x, y)) in enumerate(zip(STEPS, _PLACES, strict=True)):
        here, weight = number == step, "bold" if number == step else "normal"
        box = FancyBboxPatch(
            (x, y), 1.6, 0.6, boxstyle="round,pad=0.03", facecolor="#FFD9A0" if here else "#F3F3F3",
            edgecolor=BLACK if here else "0.7", linewidth=1.2 if here else 0.6,
            linestyle="--" if number in _TRAINING else "-",
        )  # fmt: skip
        axes.add_patch(box)
        axes.text(x + 0.8, y + 0.3, name, ha="center", va="center", fontsize=7, fontweight=weight)
        if here:
            below = number in _TRAINING
            axes.text(
                x + 0.8, y + (-0.1 if below else 0.7), "you are here", ha="center", va="top" if below else "bottom",
                fontsize=7,
            )  # fmt: skip
    for start, end in _ARROWS:
        axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "0.3"})
    text = "dashed: in training only; it changes the encoder and the decoders"
    axes.text(6.1, -0.65, text, fontsize=6.5, color="0.4", va="center")
    axes.set(xlim=(-0.1, 9.7), ylim=(-1.25, 1.0))
    bare(axes)
    return figure


def plot_walks(
    walks: Sequence[Walk], names: Mapping[str, str], title: str, stamp: str, warn: bool = False
) -> Picture:
    """Feature maps of several samples, one row each, cropped to the part; names: field of `Walk` -> heading.

    Colours: the first three principal components of the original features (of E_fus: its own) over the cells of all
    these samples. The restored ones take those of the original, so that what is restored well looks the same.
    """
    figure = new_figure(1.6 * (1 + len(names)), 1.6 * len(walks), title, stamp, warn=warn)
    grid = figure.subplots(len(walks), 1 + len(names), squeeze=False)
    colours = {name: _Colours.of(walks, name.replace("hat_", "e_")) for name in names}
    for row, one in zip(grid, walks, strict=True):
        show_rgb(row[0], one.sample)
        outline(row[0], one.sample.gt[0], HAIRLINE)
        for axes, name in zip(row[1:], names, strict=True):
            _show_cells(axes, colours[name].picture(getattr(one, name), one.valid), one.sample)
            outline(axes, one.sample.gt[0], HAIRLINE)
        for axes in row:
            bare(axes)
            crop(axes, one.sample.valid[0], margin=6)
        row[0].set_ylabel("defective" if one.sample.label else "good", fontsize=9)
    for axes, name in zip(grid[0], ("image", *names.values()), strict=True):
        axes.set_title(name, fontsize=9)
    return figure


def plot_columns(
    walks: Sequence[Walk], columns: Mapping[str, Sequence[np.ndarray]], title: str, stamp: str, warn: bool = False,
    colours: str = HEAT, scores: bool = True,
) -> Picture:  # fmt: skip
    """Maps of several samples, one row each; every column has one scale for all rows, with its bar, heat from 0.

    columns: heading -> one map (S, S), or of cells (g, g), per sample; NaN, and pixels without a 3D point, are grey.
    scores: whether the scores of the final maps are written beside the rows.
    """
    figure = new_figure(1.75 * (1 + len(columns)), 1.7 * len(walks) + 0.3, title, stamp, warn=warn)
    grid = figure.subplots(len(walks), 1 + len(columns), squeeze=False)
    for number, (heading, maps) in enumerate(columns.items(), start=1):
        large = [np.where(w.sample.valid[0], _enlarged(m, w.sample), np.nan) for m, w in zip(maps, walks, strict=True)]
        inside = np.concatenate([part[np.isfinite(part)] for part in large])
        low, high = 0.0 if colours == HEAT else inside.min(), inside.max()
        for axes, part in zip(grid[:, number], large, strict=True):
            axes.set_facecolor(NO_POINT)
            image = axes.imshow(part, cmap=colours, vmin=low, vmax=high)
        bar = figure.colorbar(image, ax=grid[:, number].tolist(), location="bottom", shrink=0.8, aspect=12, pad=0.02)
        bar.ax.tick_params(labelsize=7)
        grid[0, number].set_title(heading, fontsize=9)
    for row, one in zip(grid, walks, strict=True):
        show_rgb(row[0], one.sample)
        for axes in row:
            outline(axes, one.sample.gt[0], HAIRLINE)
            bare(axes)
            crop(axes, one.sample.valid[0], margin=6)
        kind = "defective" if one.sample.label else "good"
        row[0].set_ylabel(f"{kind}\nscore {one.score:.2f}" if scores else kind, fontsize=9)
    grid[0, 0].set_title("image", fontsize=9)
    return figure


def plot_frames(frames: Mapping[str, Walk], title: str, stamp: str, warn: bool = False) -> Picture:
    """The same sample through a head while it learns: restored image features, Ψ2D and the final map; name -> walk.

    The colours of the maps go from 0 to where those of the last frame end.
    """
    walks = list(frames.values())
    last, sample = walks[-1], walks[-1].sample
    colours = _Colours.of([last], "e_rgb")
    figure = new_figure(1.55 * len(frames), 1.55 * 3, title, stamp, warn=warn)
    grid, images = figure.subplots(3, len(frames), squeeze=False), {}
    for column, (name, one) in zip(grid.T, frames.items(), strict=True):
        _show_cells(column[0], colours.picture(one.hat_rgb, one.valid), sample)
        for axes, field in zip(column[1:], ("psi_rgb", "psi"), strict=True):
            high = getattr(last, field)[sample.valid[0]].max()
            images[field] = show_map(axes, getattr(one, field), sample.valid[0], 0.0, high)
        for axes in column:
            outline(axes, sample.gt[0], HAIRLINE)
            bare(axes)
            crop(axes, sample.valid[0], margin=6)
        column[0].set_title(name, fontsize=9)
    for row, image in zip(grid[1:], images.values(), strict=True):
        # The short form of numbers: "10.0" would not fit beside the others' width.
        bar = figure.colorbar(image, ax=row.tolist(), shrink=0.8, aspect=12, pad=0.01, format="{x:g}")
        bar.ax.tick_params(labelsize=7)
    for axes, name in zip(grid[:, 0], ("Ê2D, restored", "Ψ2D", "Ψ, fused and blurred"), strict=True):
        axes.set_ylabel(name, fontsize=9)
    return figure


def plot_losses(
    one: Walk, versions: Mapping[str, Tensor], values: Mapping[str, Mapping[str, float]], title: str, stamp: str,
    warn: bool = False, marks: Mapping[str, np.ndarray] | None = None,
) -> Picture:  # fmt: skip
    """What each loss sees: versions of E2D in place of the restored features, and the losses of each.

    versions: heading -> (1, C, g, g), the first one E2D itself; shown is the channel of E2D that varies most, on one
    scale. values: version -> {loss: value}; each bar is relative to the largest of its loss. marks: version -> cells
    (g, g) bool to outline.
    """
    figure = new_figure(1.6 * len(versions) + 0.6, 3.3, title, stamp, warn=warn)
    maps, bars = figure.subplots(2, len(versions), squeeze=False)
    channel = _rows(one.e_rgb, one.valid).std(dim=0).argmax()
    shown = [part[0, channel].where(one.valid[0, 0], torch.nan).numpy() for part in versions.values()]
    low, high = np.nanmin(shown), np.nanmax(shown)
    largest = {name: max(each[name] for each in values.values()) for each in values.values() for name in each}
    names = list(largest)[::-1]
    for axes, below, (heading, each), part in zip(maps, bars, values.items(), shown, strict=True):
        axes.set_facecolor(NO_POINT)
        axes.imshow(_enlarged(part, one.sample), cmap="viridis", vmin=low, vmax=high)
        axes.set_title(heading, fontsize=8)
        if heading in (marks or {}):
            outline(axes, _enlarged(np.asarray(marks[heading]), one.sample))
        bare(axes)
        crop(axes, one.sample.valid[0], margin=6)
        below.barh(names, [each[name] / largest[name] for name in names], color=BLUE, height=0.6)
        for number, name in enumerate(names):
            below.text(each[name] / largest[name] + 0.04, number, f"{each[name]:.2f}", va="center", fontsize=7)
        below.set(xlim=(0, 1.5), xticks=[])
        below.tick_params(labelsize=7, left=False, labelleft=below is bars[0])
        below.spines[["top", "right", "bottom"]].set_visible(False)
    return figure


@dataclass(frozen=True)
class _Colours:
    """Principal components as red, green and blue: (C,) mean, (C, 3) directions, (3,) scale."""

    mean: Tensor
    directions: Tensor
    scale: Tensor

    @classmethod
    def of(cls, walks: Sequence[Walk], name: str) -> _Colours:
        rows = torch.cat([_rows(getattr(one, name), one.valid) for one in walks])
        mean = rows.mean(dim=0)
        _, _, directions = torch.linalg.svd(rows - mean, full_matrices=False)
        # A component's sign is arbitrary: its largest entry is made positive.
        largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True)).sign()
        directions = (directions * largest)[:3].T
        return cls(mean, directions, ((rows - mean) @ directions).std(dim=0))

    def picture(self, features: Tensor, valid: Tensor) -> np.ndarray:
        """(g, g, 3), white where a cell has no point."""
        picture = torch.ones(*valid.shape[-2:], 3)
        parts = (_rows(features, valid) - self.mean) @ self.directions
        picture[valid[0, 0]] = (parts / self.scale / 4 + 0.5).clamp(0, 1)
        return picture.numpy()


def _rows(features: Tensor, valid: Tensor) -> Tensor:
    return features[0].permute(1, 2, 0)[valid[0, 0]]


def _enlarged(cells: np.ndarray, sample: Sample) -> np.ndarray:
    """Cells (g, g, …) as blocks of pixels."""
    times = sample.gt.shape[-1] // len(cells)
    return cells.repeat(times, axis=0).repeat(times, axis=1)


def _show_cells(axes: Axes, picture: np.ndarray, sample: Sample) -> None:
    axes.imshow(_enlarged(picture, sample))
