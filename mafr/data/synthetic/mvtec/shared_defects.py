"""Defects that several MVTec-like categories share, each a `DefectMaker` once its look and sizes are given."""

import numpy as np

from mafr.data.synthetic.core import defects
from mafr.data.synthetic.core.operations import Site, pick_site, plain_look, warp
from mafr.data.synthetic.core.part import Look, Part, Surface
from mafr.data.synthetic.core.render import Hits
from mafr.data.synthetic.core.rows import Array, Rng
from mafr.data.synthetic.mvtec.recipe import DefectMaker, between, mix

Range = tuple[float, float]  # a size at severity 0 and 1
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


def _own_colour(part: Part, site: Site) -> Array:
    """The part's albedo about a site, (3,)."""
    around = site.point + np.random.default_rng(0).normal(0, 1.0, (16, 3)).astype(np.float32)
    seen = part.surface(around, np.broadcast_to(site.normal, around.shape)).full()
    return seen.albedo.mean(axis=0)


def _foreign_look(part: Part, site: Site, rng: Rng, severity: float) -> Look:
    """A look that stands out from the part at the site, more so at a higher severity."""
    colour, specular, shininess = _FOREIGN[rng.integers(len(_FOREIGN))]
    own = _own_colour(part, site)
    contrast = np.clip(between(0.45, 1.15, severity), 0, 1)
    colour = own + (np.asarray(colour, np.float32) - own) * contrast
    return plain_look(colour, specular, shininess, 0.0, 0.15, 0.4, int(rng.integers(1 << 31)))


def contamination(part: Part, hits: Hits, rng: Rng, severity: float, scale: float = 1.0, margin: float = 5) -> Part:
    """Foreign material: a lump, a thread, a chip (shape and colour) or a smear (colour only).

    Half sizes from about 1.3 to 5 mm, threads 8 to 32 mm long and 0.8 to 1.8 mm thick.
    """
    site = pick_site(rng, hits, margin)
    look = _foreign_look(part, site, rng, severity)
    kind = str(rng.choice(("lump", "fibre", "flake", "stain")))
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


def exposed(part: Part, site: Site, rng: Rng, look: Look, severity: float) -> Look | None:
    """The look of what a defect uncovers: fresh if severe, close to the skin if not; None (a quarter): the skin's."""
    if rng.random() < 0.25:
        return None
    own, weight = _own_colour(part, site), np.clip(between(0.25, 1.2, severity), 0, 1)

    def seen(p: Array, n: Array) -> Surface:
        fresh = look(p, n).full()
        return Surface(mix(own, fresh.albedo, np.full(len(p), weight)), fresh.specular, fresh.shininess, fresh.wrap)

    return seen


def fissure(part: Part, hits: Hits, rng: Rng, severity: float, look: Look, scale: float = 1.0) -> Part:
    """A crack 10 to 36 mm long (times scale), 1.2 to 3.6 mm wide and 1 to 7 mm deep."""
    site = pick_site(rng, hits, 7)
    return defects.crack(
        part, site, rng, scale * between(10, 36, severity) * rng.uniform(0.9, 1.1), between(1.2, 3.6, severity),
        between(1.0, 7.0, severity), exposed(part, site, rng, look, severity), branch=rng.random() < 0.3,
    )  # fmt: skip


def pit(part: Part, hits: Hits, rng: Rng, severity: float, look: Look, scale: float = 1.0) -> Part:
    """A round hole 1.3 to 4.5 mm in radius and 1 to 9 mm deep, or a broken-out piece (times scale)."""
    site = pick_site(rng, hits, 6)
    inside = exposed(part, site, rng, look, severity)
    if rng.random() < 0.3:
        radius, depth = scale * between(3.0, 10.0, severity), scale * between(1.2, 7.0, severity)
        return defects.bite(part, site, rng, radius, depth, inside)
    radius = scale * between(1.3, 4.5, severity) * rng.uniform(0.9, 1.1)
    return defects.hole(part, site, rng, radius, scale * between(1.0, 9.0, severity), inside)


def knife_cut(
    part: Part, hits: Hits, rng: Rng, severity: float, look: Look, scale: float = 1.0, shave: float = 0.35
) -> Part:
    """A cut 9 to 30 mm long, 1.1 to 3 mm wide and 1.2 to 8 mm deep, or (share: shave) a slice 0.2 to 3 mm thick."""
    site = pick_site(rng, hits, 6)
    inside = exposed(part, site, rng, look, severity)
    if rng.random() < shave:
        return defects.slice_off(part, site, rng, scale * between(0.2, 3.0, severity), rng.normal(0, 0.08), inside)
    return defects.slot(
        part, site, scale * between(9, 30, severity), between(1.1, 3.0, severity), between(1.2, 8.0, severity), inside,
        lean=rng.uniform(-0.5, 0.5),
    )  # fmt: skip


def cut_or_shave(
    part: Part, hits: Hits, rng: Rng, severity: float, look: Look, facing: float, shave: float, thickness: Range,
    length: Range, width: Range, depth: Range, rough: float = 0.0,
) -> Part:  # fmt: skip
    """A knife cut of the given sizes, or (share: shave) a slice."""
    site = pick_site(rng, hits, 5, facing)
    shaved = rng.random() < shave
    inside = exposed(part, site, rng, look, severity)
    if shaved:
        return defects.slice_off(part, site, rng, between(*thickness, severity), rng.normal(0, 0.1), inside, rough)
    return defects.slot(part, site, *(between(*size, severity) for size in (length, width, depth)), inside)


def puncture(
    part: Part, hits: Hits, rng: Rng, severity: float, look: Look, facing: float, radius: Range, depth: Range,
    ragged: float,
) -> Part:  # fmt: skip
    """A round hole of the given sizes."""
    site = pick_site(rng, hits, 5, facing)
    inside = exposed(part, site, rng, look, severity)
    return defects.hole(part, site, rng, between(*radius, severity), between(*depth, severity), inside, ragged)


def pushed_aside(part: Part, hits: Hits, rng: Rng, severity: float, facing: float) -> Part:
    """A spot of 4 to 10 mm whose material is pushed aside by 0.7 to 3.5 mm, mostly along the surface."""
    site = pick_site(rng, hits, 4, facing)
    reach, far = between(2.0, 5.0, severity), between(0.7, 3.5, severity)
    way = (site.frame @ np.array([1.0, 0.0, rng.uniform(-0.6, 0.3)])).astype(np.float32) * np.float32(far)

    def mapping(p: Array) -> Array:
        q = (p - site.point) / np.float32(reach)
        return p - np.exp(-0.5 * np.einsum("ij,ij->i", q, q))[:, None] * way

    return warp(part, mapping, part.grown(far))


def with_combined(**makers: DefectMaker) -> dict[str, DefectMaker]:
    """The given defects and "combined": two different ones of them on one part, both of the given severity."""
    kinds = list(makers.values())

    def combined(part: Part, hits: Hits, rng: Rng, severity: float) -> Part:
        first, second = rng.permutation(len(kinds))[:2]
        return kinds[second](kinds[first](part, hits, rng, severity), hits, rng, severity)

    return {**makers, "combined": combined}
