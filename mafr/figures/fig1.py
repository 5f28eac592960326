"""Fig. 1 drawn from a configuration: every number in it is read from the settings."""

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from mafr.config import CALIBRATED, UNTRAINED, VARIANTS, Config
from mafr.figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, Picture, new_figure

_RGB_NAMES = {
    "efficientnet_lite0": "EfficientNet-Lite0\nstrides 8 and 16",
    "efficientnet_lite2": "EfficientNet-Lite2\nstrides 8 and 16",
    "dino_vitb8": "DINO ViT-B/8\n28×28 tokens",
}
_POINT_NAMES = {
    "pointmae_small": "small Point-MAE", "pointmae_worn": "small Point-MAE", "fpfh": "FPFH", "pointmae": "Point-MAE",
}  # fmt: skip
_FILLS = {BLUE: "#D9EAF5", GREEN: "#D5EFE7", ORANGE: "#FBE3D3", GREY: "#EEEEEE", BLACK: "#FFFFFF"}


@dataclass(frozen=True)
class _Box:
    """A labelled box by its centre and size, in the diagram's units."""

    x: float
    y: float
    width: float
    height: float

    def side(self, name: str) -> tuple[float, float]:
        dx, dy = {"left": (-1, 0), "right": (1, 0), "top": (0, 1), "bottom": (0, -1)}[name]
        return self.x + dx * self.width / 2, self.y + dy * self.height / 2


def architecture(config: Config, differences: bool = True) -> Picture:
    """Fig. 1 of the paper with this configuration's dimensions; differences: with a table of the variants' own."""
    rows = variant_differences(config) if differences else []
    ours = f"The residual expected of a good cell, to the power {config.expected_share:g}, is divided away. "
    ours = ours if config.expected_share else ""
    if config.fusion in CALIBRATED:
        ours += "z: a map in standard deviations above the mean of good validation parts, never below 0. "
    caption = (
        "2D parts blue, 3D parts green, shared parts orange. The extractors are frozen; encoder and decoders are "
        "trained together on good samples by the loss (dashed), which compares Ê with E. "
        + ("Bold in the table: the variant drawn above. " if differences else "")
        + f"{ours}Feature maps have {config.grid}×{config.grid} cells, final maps "
        f"{config.image_size}×{config.image_size} pixels."
    )
    stamp = f"{config.profile} profile · {config.variant} variant · drawn from the settings, no data"
    if config.random_weights:
        stamp = f"{UNTRAINED} · {stamp}"
    below = 0.2 * (len(rows) + 1) if differences else 0.0
    figure = new_figure(11.5, 4.7 + below, "Fig. 1: architecture of MAFR", stamp, caption, config.random_weights)
    ratios = [4.7, below] if differences else [4.7]
    parts = figure.subplots(len(ratios), 1, squeeze=False, gridspec_kw={"height_ratios": ratios})[:, 0]
    _draw(parts[0], config)
    for axes in parts[1:]:
        _table(axes, rows, config.variant)
    return figure


_ATTENTION = {"map": "the {grid}×{grid} map", "pixel": "each cell by itself", "none": "nothing: left out"}


def variant_differences(config: Config) -> list[tuple[str, ...]]:
    """(topic, value in `paper`, value in `released`) of the settings that differ, in words."""
    described = [_describe(config.with_variant(variant)) for variant in VARIANTS]
    rows = zip(described[0], *(one.values() for one in described), strict=True)
    return [row for row in rows if len(set(row[1:])) > 1]


def _describe(c: Config) -> dict[str, str]:
    order = {"gelu-norm": "GELU, LayerNorm, dropout", "norm-gelu": "LayerNorm, GELU, dropout"}
    scaling = {"none": "as they are", "per-metric": "divided by a mean of the image"}
    return {
        "fused width": str(c.width),
        "fully connected layers per decoder": str(c.decoder_layers),
        "after each hidden layer of a decoder": order[c.decoder_order],
        "LayerNorm": "one for all hidden layers" if c.shared_norm else "one per layer",
        "CBAM acts on": _ATTENTION[c.cbam_scope].format(grid=c.grid),
        "ZNSSD normalises": {"pixels": "each channel over cells", "channels": "each cell over channels"}[c.znssd_over],
        "smoothness on": {"all": "all channels", "first_two": "the first two channels"}[c.smooth_channels],
        "cells in loss and head": "those with 3D points" if c.valid_only else "all",
        "blur": _blur(c),
        "image score": _score(c),
        "maps for the pixel metrics": scaling[c.map_scaling],
    }


def _blur(c: Config) -> str:
    return f"Gaussian, σ = {c.sigma:.1f} px" if c.blur == "gaussian" else "box: five 5×5, three 7×7"


def _score(c: Config) -> str:
    return {"max": "maximum", "max-over-root-mean": "maximum / √mean"}[c.image_score]


def _fused(c: Config) -> str:
    """What the fusion operator makes of the two maps."""
    weight = "" if c.xyz_weight == 1 else f"{c.xyz_weight:g} "  # of the standardised 3D map alone
    return {
        "product": "Ψ2D ⊙ Ψ3D", "sum": "Ψ2D + Ψ3D", "max": "max(Ψ2D, Ψ3D)", "rgb": "Ψ2D", "xyz": "Ψ3D",
        "calibrated_sum": f"z(Ψ2D) + {weight}z(Ψ3D)", "calibrated_max": f"max(z(Ψ2D), {weight}z(Ψ3D))",
    }[c.fusion]  # fmt: skip


def _draw(axes: Axes, c: Config) -> None:
    axes.set(xlim=(0, 23), ylim=(0.2, 9.3))
    axes.axis("off")
    total, upper, lower, middle = c.rgb_dim + c.xyz_dim, 7.2, 2.2, 4.7
    hidden = c.decoder_layers - 1
    weights = ((c.weight_sim, "ZNSSD", "sim"), (c.weight_smooth, "smoothness", "smooth"),
               (c.weight_census, "census", "census"))  # fmt: skip
    loss = "\n".join(f"{w:g} · {name}" for w, name, term in weights if term in c.loss_terms)

    image = _box(axes, 1.2, upper, 2.0, 1.3, f"RGB\n{c.image_size}×{c.image_size}×3", BLUE)
    cloud = _box(axes, 1.2, lower, 2.0, 1.3, f"point cloud\n{c.image_size}×{c.image_size}×3", GREEN)
    f2d = _box(axes, 4.2, upper, 2.9, 1.7, f"F2D, frozen\n{_RGB_NAMES[c.rgb_backbone]}", BLUE)
    points = f"F3D, frozen\n{_POINT_NAMES[c.point_backbone]}\n{c.groups} groups of {c.group_size}"
    f3d = _box(axes, 4.2, lower, 2.9, 1.7, points, GREEN)
    e2d = _box(axes, 7.2, upper, 1.9, 1.3, f"E2D\n{c.rgb_dim}×{c.grid}×{c.grid}", BLUE)
    e3d = _box(axes, 7.2, lower, 1.9, 1.3, f"E3D\n{c.xyz_dim}×{c.grid}×{c.grid}", GREEN)
    encoder = _box(axes, 9.2, middle, 2.7, 1.9,
                   f"fusion encoder\nconcatenate, 3 FC:\n{total}→{c.width}\n→{c.width}→{c.width}", ORANGE)  # fmt: skip
    fused = _box(axes, 11.9, middle, 1.5, 1.2, f"E_fus\n{c.width}", ORANGE)
    words = "{} decoder\n{} FC, CBAM, FC\n+ linear skip\n{}→{}"
    d2d = _box(axes, 13.3, upper, 2.6, 1.9, words.format("2D", hidden, c.width, c.rgb_dim), BLUE)
    d3d = _box(axes, 13.3, lower, 2.6, 1.9, words.format("3D", hidden, c.width, c.xyz_dim), GREEN)
    r2d = _box(axes, 16.2, upper, 1.7, 1.2, f"Ê2D\n{c.rgb_dim}", BLUE)
    r3d = _box(axes, 16.2, lower, 1.7, 1.2, f"Ê3D\n{c.xyz_dim}", GREEN)
    psi2d = _box(axes, 18.9, upper, 2.2, 1.2, "Ψ2D\n‖E2D − Ê2D‖₂", BLUE)
    psi3d = _box(axes, 18.9, lower, 2.2, 1.2, "Ψ3D\n‖E3D − Ê3D‖₂", GREEN)
    size = f"at {c.image_size}×{c.image_size} pixels,\n" if c.grid < c.image_size else ""
    outside = {"point": "without 3D point", "filled": "outside the part"}[c.scored]
    combined = _box(axes, 18.4, middle, 2.6, 1.2, f"{_fused(c)}\n{size}0 {outside}", ORANGE)
    blur = _box(axes, 21.5, middle, 2.5, 1.2, _blur(c).replace(", ", "\n").replace(": ", ":\n"), GREY)
    final = _box(axes, 21.5, upper, 2.5, 1.2, f"anomaly map Ψ\n{c.image_size}×{c.image_size}", BLACK)
    score = _box(axes, 21.5, lower, 2.5, 1.2, f"image score\n{_score(c)}", BLACK)
    training = _box(axes, 14.9, middle, 2.5, 1.5, f"training loss\n{loss}", GREY, "--")

    for a, b in ((image, f2d), (f2d, e2d), (cloud, f3d), (f3d, e3d), (encoder, fused), (d2d, r2d), (d3d, r3d),
                 (r2d, psi2d), (r3d, psi3d), (combined, blur)):  # fmt: skip
        _arrow(axes, a.side("right"), b.side("left"))
    _arrow(axes, e2d.side("bottom"), (e2d.x + 0.8, encoder.side("top")[1]), BLACK)
    _arrow(axes, e3d.side("top"), (e3d.x + 0.8, encoder.side("bottom")[1]), BLACK)
    _arrow(axes, fused.side("top"), (fused.x + 0.3, d2d.side("bottom")[1]))
    _arrow(axes, fused.side("bottom"), (fused.x + 0.3, d3d.side("top")[1]))
    _arrow(axes, psi2d.side("bottom"), (psi2d.x, combined.side("top")[1]))
    _arrow(axes, psi3d.side("top"), (psi3d.x, combined.side("bottom")[1]))
    _arrow(axes, blur.side("top"), final.side("bottom"))
    _arrow(axes, blur.side("bottom"), score.side("top"))
    # The original features also go straight to the residuals: the paper's reconstruction path.
    for e, psi, colour, y, name, end in (
        (e2d, psi2d, BLUE, 8.75, "E2D", "top"),
        (e3d, psi3d, GREEN, 0.65, "E3D", "bottom"),
    ):
        axes.plot([e.x, e.x, psi.x], [e.side(end)[1], y, y], color=colour, lw=1.1)
        _arrow(axes, (psi.x, y), psi.side(end), colour)
        axes.text(11.5, y + 0.08, f"original features {name}", fontsize=6.5, color=colour, ha="center", va="bottom")
    for r, end, other in ((r2d, "bottom", "top"), (r3d, "top", "bottom")):
        _arrow(axes, r.side(end), (r.x - 0.4, training.side(other)[1]), GREY, "--")


def _box(axes: Axes, x: float, y: float, width: float, height: float, text: str, colour: str, style: str = "-") -> _Box:
    corner = x - width / 2 + 0.1, y - height / 2 + 0.1
    look = {"facecolor": _FILLS[colour], "edgecolor": colour, "linewidth": 1.0, "linestyle": style}
    axes.add_patch(FancyBboxPatch(corner, width - 0.2, height - 0.2, boxstyle="round,pad=0.1", **look))
    axes.text(x, y, text, ha="center", va="center", fontsize=7.2, color=BLACK, linespacing=1.25)
    return _Box(x, y, width, height)


def _arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = BLACK, style: str = "-"
) -> None:
    look = {"arrowstyle": "-|>", "color": colour, "lw": 1.1, "linestyle": style, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", xy=end, xytext=start, arrowprops=look)


def _table(axes: Axes, rows: list[tuple[str, ...]], current: str) -> None:
    axes.axis("off")
    table = axes.table(
        cellText=[list(row) for row in rows], colLabels=["the variants differ in", *VARIANTS], cellLoc="left",
        colLoc="left", colWidths=[0.3, 0.35, 0.35], bbox=[0.02, 0, 0.96, 1],
    )  # fmt: skip
    table.auto_set_font_size(False)
    table.set_fontsize(7)
    for (row, column), cell in table.get_celld().items():
        cell.set_edgecolor("#CCCCCC")
        if row == 0:
            cell.set_facecolor("#EEEEEE")
        if column == 1 + VARIANTS.index(current):
            cell.set_text_props(fontweight="bold")
