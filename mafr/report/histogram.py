"""The scores of the parts above those of the validation parts, as an SVG picture inside the page."""

from collections.abc import Sequence
from html import escape

import numpy as np

WIDTH, TOP, PANEL, GAP, MARGIN = 640, 22, 78, 12, 46  # of the picture, in its own units
BINS = 40
SPREAD = 30.0  # highest over lowest score from which on the axis is logarithmic


def histogram(scores: Sequence[float], validation: Sequence[float], threshold: float) -> str:
    """SVG text with one panel, or two where validation scores are known; "" without scores.

    Bars are counts. The dashed line is the threshold.
    """
    everything = np.array([*scores, *validation], dtype=np.float64)
    everything = everything[np.isfinite(everything)]
    if not everything.size:
        return ""
    marked = np.append(everything, threshold) if np.isfinite(threshold) else everything
    logarithmic = marked.min() > 0 and marked.max() > SPREAD * marked.min()
    turn = np.log10 if logarithmic else np.asarray
    low, high = float(turn(marked.min())), float(turn(marked.max()))
    margin = 0.02 * (high - low) or max(abs(high), 1.0) * 0.1
    edges = np.linspace(low - margin, high + margin, BINS + 1)

    def place(value: float) -> float:
        return MARGIN + (float(turn(value)) - edges[0]) / (edges[-1] - edges[0]) * (WIDTH - MARGIN - 8)

    panels = [("parts", "bar", scores)] + ([("validation", "bar validation", validation)] if len(validation) else [])
    drawn = []
    for number, (name, kind, values) in enumerate(panels):
        finite = np.array([v for v in values if np.isfinite(v)], dtype=np.float64)
        above = turn(threshold) if name == "parts" and np.isfinite(threshold) else np.inf
        wrong = (edges[:-1] + edges[1:]) / 2 > above  # as the verdict is, but for the one bar that the threshold cuts
        drawn += _panel(TOP + number * (PANEL + GAP), name, kind, np.histogram(turn(finite), edges)[0], wrong)
    bottom = TOP + len(panels) * (PANEL + GAP) - GAP
    drawn += [
        f'<text class="tick" x="{place(value):.1f}" y="{bottom + 14}" text-anchor="middle">{value:.4g}</text>'
        for value in _ticks(edges, logarithmic)
    ]
    scale = " (logarithmic)" if logarithmic else ""
    drawn.append(
        f'<text class="tick" x="{(MARGIN + WIDTH) / 2:.0f}" y="{bottom + 30}" text-anchor="middle">score{scale}</text>'
    )
    if np.isfinite(threshold):
        x = place(threshold)
        side = "end" if x > 0.7 * WIDTH else "start"
        drawn.append(f'<line class="threshold" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{bottom}"/>')
        label = f"threshold {threshold:.4g}"
        shift = -4 if side == "end" else 4
        drawn.append(f'<text class="tick" x="{x + shift:.1f}" y="{TOP - 9}" text-anchor="{side}">{label}</text>')
    above = sum(score > threshold for score in scores)
    text = f"Histogram of the scores of {len(scores)} parts, {above} of them above the threshold {threshold:.4g}"
    text += f", over those of {len(validation)} validation parts." if len(validation) else "."
    head = f'<svg class="histogram" viewBox="0 0 {WIDTH} {bottom + 36}" role="img" aria-label="{escape(text)}">'
    return "\n".join([head, f"<title>{escape(text)}</title>", *drawn, "</svg>"])


def _panel(top: int, name: str, kind: str, counts: np.ndarray, wrong: np.ndarray) -> list[str]:
    """Bars on a base line, those of `wrong` scores in another colour, the highest count, and the panel's name."""
    most, width = max(int(counts.max()), 1), (WIDTH - MARGIN - 8) / BINS
    bars = [
        f'<rect class="{kind}{" wrong" if wrong[k] else ""}" x="{MARGIN + k * width + 0.5:.1f}" '
        f'y="{top + PANEL * (1 - n / most):.1f}" width="{width - 1:.1f}" height="{PANEL * n / most:.1f}"/>'
        for k, n in enumerate(counts.tolist()) if n
    ]  # fmt: skip
    base = top + PANEL
    return [
        *bars,
        f'<line class="axis" x1="{MARGIN}" x2="{WIDTH - 8}" y1="{base}" y2="{base}"/>',
        f'<text class="tick" x="{MARGIN - 5}" y="{top + 9}" text-anchor="end">{most}</text>',
        f'<text class="tick" x="{MARGIN - 5}" y="{base}" text-anchor="end">0</text>',
        f'<text class="name" x="{WIDTH - 10}" y="{top + 10}" text-anchor="end">{name}</text>',
    ]


def _ticks(edges: np.ndarray, logarithmic: bool) -> list[float]:
    """About five round values inside the axis."""
    low, high = edges[0], edges[-1]
    if logarithmic:
        exponents = range(int(np.floor(low)), int(np.ceil(high)) + 1)
        values = [factor * 10.0**e for e in exponents for factor in (1, 2, 5) if low <= np.log10(factor) + e <= high]
        return values if len(values) <= 7 else [value for value in values if f"{value:e}".startswith("1")]
    rough = (high - low) / 5
    size = 10.0 ** np.floor(np.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough)
    return (np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step).tolist()
