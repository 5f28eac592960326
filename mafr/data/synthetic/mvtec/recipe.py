"""What a category of the MVTec-like half consists of (`Recipe`), and the contaminations all of them share.

Lengths are millimetres, angles degrees, colours linear. Defect functions take (part, hits, rng, severity), with hits
the clean part as the camera sees it and severity from 0 (hardly visible) to 1 (obvious).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from mafr.data.synthetic.core import defects, noise
from mafr.data.synthetic.core.defects import Look, Site, paint_of
from mafr.data.synthetic.core.part import Part
from mafr.data.synthetic.core.render import Hits, Surface

Array = np.ndarray
Rng = np.random.Generator
DefectMaker = Callable[[Part, Hits, Rng, float], Part]


@dataclass(frozen=True)
class Recipe:
    """A category: how a part is made, photographed and spoilt.

    size: the real data set's (width, height). view: millimetres along the longer side at the table. tilt: of the camera
    off the vertical. spin: part's turn on the table, ± degrees. shift: ± millimetres. azimuth, elevation: of the
    lamp. lamp, ambient: strengths. warmth: red over blue. table: its albedo.
    """

    make: Callable[[Rng], Part]
    defects: Mapping[str, DefectMaker]
    size: tuple[int, int] = (800, 800)
    view: float = 140.0
    tilt: float = 8.0
    distance: float = 420.0
    spin: float = 180.0
    shift: float = 5.0
    azimuth: float = 130.0
    elevation: float = 50.0
    lamp: float = 1.0
    ambient: float = 0.35
    warmth: float = 1.08
    table: tuple[float, float, float] = (0.05, 0.05, 0.055)
    defect_codes: Mapping[str, int] = field(default_factory=dict)


def between(low: float, high: float, severity: float) -> float:
    """From low (severity 0) to high (severity 1)."""
    return low + (high - low) * severity


def stretched(p: Array, factors: object) -> Array:
    """Points scaled a coordinate, for textures."""
    return p * np.asarray(factors, np.float32)


def colours(*rows: tuple[float, float, float]) -> Array:
    """Colours as a float32 array (K, 3)."""
    return np.array(rows, np.float32)


def mix(a: object, b: object, weight: Array) -> Array:
    """Colours a where weight is 0, b where it is 1: (N, 3)."""
    return np.asarray(a, np.float32) * (1 - weight[:, None]) + np.asarray(b, np.float32) * weight[:, None]


_FOREIGN = (
    # colour, specular, shininess
    ((0.10, 0.28, 0.10), 0.10, 30.0),  # green plastic
    ((0.06, 0.12, 0.38), 0.12, 40.0),  # blue plastic
    ((0.42, 0.05, 0.04), 0.10, 30.0),  # red wax
    ((0.45, 0.46, 0.48), 0.50, 60.0),  # metal
    ((0.03, 0.03, 0.03), 0.05, 20.0),  # dirt
    ((0.70, 0.68, 0.62), 0.02, 10.0),  # paper, dough
    ((0.20, 0.12, 0.06), 0.02, 10.0),  # earth
)


def own_colour(part: Part, site: Site) -> Array:
    """The part's albedo about a site, (3,)."""
    around = site.point + np.random.default_rng(0).normal(0, 1.0, (16, 3)).astype(np.float32)
    seen = part.surface(around, np.broadcast_to(site.normal, around.shape)).full()
    return seen.albedo.mean(axis=0)


def foreign(part: Part, site: Site, rng: Rng, severity: float) -> Look:
    """A look that stands out from the part at the site, the less the lower the severity."""
    colour, specular, shininess = _FOREIGN[rng.integers(len(_FOREIGN))]
    own = own_colour(part, site)
    contrast = np.clip(between(0.45, 1.15, severity), 0, 1)
    colour = own + (np.asarray(colour, np.float32) - own) * contrast
    return paint_of(colour, specular, shininess, 0.0, 0.15, 0.4, int(rng.integers(1 << 31)))


def contamination(part: Part, hits: Hits, rng: Rng, severity: float, scale: float = 1.0,
                  kinds: str = "lump fibre flake stain", margin: float = 5) -> Part:  # fmt: skip
    """Something that does not belong: a lump, a thread, a chip (shape and colour) or a smear (colour only).

    Half sizes from about 1.3 to 5 mm, threads 8 to 32 mm long and 0.8 to 1.8 mm thick.
    """
    site = defects.pick_site(rng, hits, margin)
    look = foreign(part, site, rng, severity)
    kind = str(rng.choice(kinds.split()))
    if kind == "lump":
        size = scale * between(1.3, 5.0, severity) * rng.uniform(0.85, 1.2)
        radii = size * np.array([1.0, rng.uniform(0.6, 1.0), rng.uniform(0.35, 0.7)])
        return defects.lump(part, site, rng, radii, look, rough=0.3)
    if kind == "fibre":
        length, thick = scale * between(8, 32, severity), between(0.8, 1.8, severity)
        return defects.fibre(part, site, rng, length, thick, look, curl=rng.uniform(0.5, 2.0))
    if kind == "flake":
        size = scale * between(2.5, 9.0, severity) * rng.uniform(0.85, 1.2)
        return defects.flake(part, site, rng, size, between(0.6, 1.4, severity), look)
    radius = scale * between(1.8, 7.0, severity) * rng.uniform(0.85, 1.2)
    return defects.stain(part, site, rng, radius, look, between(0.35, 0.95, severity), spots=rng.random() < 0.3)


def laid_bare(part: Part, site: Site, rng: Rng, look: Look, severity: float) -> Look | None:
    """The look of what a defect uncovers: fresh if severe, close to the skin if not, sometimes just the skin's."""
    if rng.random() < 0.25:
        return None
    own, weight = own_colour(part, site), np.clip(between(0.25, 1.2, severity), 0, 1)

    def seen(p: Array, n: Array) -> Surface:
        fresh = look(p, n).full()
        return Surface(mix(own, fresh.albedo, np.full(len(p), weight)), fresh.specular, fresh.shininess, fresh.wrap)

    return seen


def fissure(part: Part, hits: Hits, rng: Rng, severity: float, look: Look, scale: float = 1.0) -> Part:
    """A crack 10 to 36 mm long, 1.2 to 3.6 mm wide and 1 to 7 mm deep (length times scale)."""
    site = defects.pick_site(rng, hits, 7)
    return defects.crack(
        part, site, rng, scale * between(10, 36, severity) * rng.uniform(0.9, 1.1), between(1.2, 3.6, severity),
        between(1.0, 7.0, severity), laid_bare(part, site, rng, look, severity), branch=rng.random() < 0.3,
    )  # fmt: skip


def pit(part: Part, hits: Hits, rng: Rng, severity: float, look: Look, scale: float = 1.0) -> Part:
    """A round hole 1.3 to 4.5 mm in radius and 1 to 9 mm deep, or a broken-out piece (times scale)."""
    site = defects.pick_site(rng, hits, 6)
    inside = laid_bare(part, site, rng, look, severity)
    if rng.random() < 0.3:
        radius, depth = scale * between(3.0, 10.0, severity), scale * between(1.2, 7.0, severity)
        return defects.bite(part, site, rng, radius, depth, inside)
    radius = scale * between(1.3, 4.5, severity) * rng.uniform(0.9, 1.1)
    return defects.hole(part, site, rng, radius, scale * between(1.0, 9.0, severity), inside)


def knife(part: Part, hits: Hits, rng: Rng, severity: float, look: Look, scale: float = 1.0,
          shave: float = 0.35) -> Part:  # fmt: skip
    """A cut 9 to 30 mm long, 1.1 to 3 mm wide and 1.2 to 8 mm deep, or (how often: shave) a slice 0.2 to 3 mm thick."""
    site = defects.pick_site(rng, hits, 6)
    inside = laid_bare(part, site, rng, look, severity)
    if rng.random() < shave:
        return defects.slice_off(part, site, rng, scale * between(0.2, 3.0, severity), rng.normal(0, 0.08), inside)
    return defects.slot(
        part, site, scale * between(9, 30, severity), between(1.1, 3.0, severity), between(1.2, 8.0, severity), inside,
        lean=rng.uniform(-0.5, 0.5),
    )  # fmt: skip


def shrunk(body: Callable[[Array], Array], amount: float) -> Callable[[Array], Array]:
    """A shadow caster for a displaced body: the smooth body, so much smaller that it lies within."""
    return lambda p: body(p) + np.float32(amount)


def seeds(rng: Rng, count: int) -> list[int]:
    """Seeds for the noises of one part."""
    return [int(s) for s in rng.integers(1 << 31, size=count)]


def combine(*makers: DefectMaker) -> DefectMaker:
    """Two different defects of the given makers on one part, both of the given severity."""

    def both(part: Part, hits: Hits, rng: Rng, severity: float) -> Part:
        first, second = rng.permutation(len(makers))[:2]
        return makers[second](makers[first](part, hits, rng, severity), hits, rng, severity)

    return both


def crumb(colour: tuple[float, float, float], seed: int, size: float = 0.9) -> Look:
    """The inside of baked things: pale, porous."""
    colour = np.asarray(colour, np.float32)

    def look(p: Array, n: Array) -> Surface:
        pores = noise.smoothstep(0.15, 0.5, noise.noise(p * np.float32(size), seed))
        tone = 1 + 0.12 * noise.fbm(p * np.float32(0.3), seed + 1, 2) - 0.4 * pores
        return Surface(np.clip(colour * tone[:, None], 0, 1), 0.0, 10.0, 0.25)

    return look
