"""M3DM: three memory banks, of image, point and fused features, and two learned fusions of their scores.

Wang et al., "Multimodal Industrial Anomaly Detection via Hybrid Fusion", CVPR 2023, arXiv 2303.00601, and the authors'
code, github.com/nomewang/M3DM. Point features are interpolated to the image and pooled to a coarser grid (Sec. 3.1),
image and point features fused by two projections (`FeatureFusion`, Sec. 3.2). Each of the three has a bank, a greedy
coreset of the training features (`parts.memory_bank`); a bank gives a map of distances to the nearest kept feature and
a reweighted largest distance (Sec. 3.3). One linear one-class SVM joins the three image scores, another the three maps
pixel by pixel; both are fitted on the training samples. Their inputs and so their coefficients are not negative: each
fusion is a weighted sum.

Where the text leaves room, the authors' code decides: features are divided by one number, the standard deviation of
the image features (on purpose, issue 18; the mean that is subtracted as well changes no distance); scores and maps
enter the SVMs with the weights, and each map with the blur, of the settings. The paper gives 750 steps of 16 samples
for the fusion, AdamW with 0.003 and 250 steps of warm-up, the number of steps with the best results; the code's default
is ten epochs, and the command in its README sums the gradients of 16 batches per step. Here every batch is a step, and
the rate falls to zero by the last one.

Reports. Training the fusion again lowers results (issues 30 and 36 there), and the authors of CFM reproduced the
numbers only without it (CVLAB-Unibo/crossmodal-feature-mapping, issue 10). The code that writes the features to train
the fusion on repeats the image's patches in another order than the points' (`DoubleRGBPointFeatures`), so that most of
its pairs are of different places; at test time places agree. Here pairs are of one place, as the text says.

At full size, images of MVTec 3D-AD are black off the part, as in the paper; the authors call the lines that their
preprocessing left out a bug (issue 14; the setting `image_background`). Banks and both fusions see at most the first
`m3dm_most` training samples, 400 as in the code, whose check lets one more through; of MVTec 3D-AD that is all.

Departures. The fusion is trained on each category's own good samples, not once per data set, since runs are
independent. The code takes 10 % of the point features into their bank and then, of the image and the fused features,
10 % of that bank's size; here each bank keeps 10 % of its own features. After that the code keeps the point features
without a zero among their values and adds one zero feature. Since the mean is subtracted before, that drops none, not
even those of cells without a point, and what it adds is a feature whose every value is the mean; here the bank is not
changed. The code blurs maps of 256 grey levels; here they stay floats, with zeros beyond the border. SVMs and
projection follow from `Config.seed`.

Small profiles: point and fused features lie on the stored grid (full: 56 x 56, the code's). Cells without a 3D point
are left out of banks and maps (`m3dm_cells` "valid"; full: "all", nothing is masked, as in the code), and images are
not blackened. The fusion trains for as many steps as AST's networks on all samples, each of 16 patches per sample. No
rule gives the 16: it was chosen by the seconds of a step, where 32 patches take twice as long and all of a part over a
hundred times. The map SVM is fitted on one pixel per cell, the one whose point the cell holds (full: on all). Widths
follow from the features' in the published ratio.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mafr.baselines.parts.feature_fusion import HIDDEN_RATIO, FeatureFusion
from mafr.baselines.parts.memory_bank import MemoryBank
from mafr.config import Config
from mafr.device import Place, send
from mafr.errors import DataError, MafrError
from mafr.fast.weights import FlatWeights
from mafr.features.extract import Tokens
from mafr.features.interpolation import channels_last, densify_xyz
from mafr.features.sources.splits import Split
from mafr.memory import keep_freed_memory
from mafr.method import Method, Prediction
from mafr.parallel.progress import bar
from mafr.scoring import smooth, upsample

BANKS = ("rgb", "xyz", "fused")
COARSER = 4  # pixels of the image per cell of the point features' grid and direction: 56 cells of 224 pixels
WARM_UP = 250 / 750  # share of the steps in which the learning rate rises
BETAS = (0.9, 0.95)
ENTRIES = 10  # of the history
SMALL = 2**19  # hidden values of a step up to which a CPU takes it without automatic gradients


@dataclass(frozen=True)
class Cells:
    """The features of one sample that banks see."""

    rgb: Tensor  # (P2, C) float32, the image's tokens
    xyz: Tensor  # (P, D) float32, the pooled point features
    beside: Tensor  # (P, C), image features at the places of xyz
    rgb_at: Tensor  # (h, w) bool, the cells of rgb, row by row
    xyz_at: Tensor  # (n, n) bool, the cells of xyz
    solid: Tensor  # (P,) bool, where the point features are not zero

    @classmethod
    def of(cls, tokens: Tokens, config: Config) -> Cells:
        """From one sample's tokens (B = 1). Raises DataError if no cell has a 3D point."""
        side = min(config.grid, config.image_size // COARSER)
        rgb = channels_last(tokens.rgb.float())
        dense = channels_last(densify_xyz(tokens.xyz, tokens.index, tokens.weight, config.grid))
        if config.xyz_pool > 1:
            dense = F.avg_pool2d(dense, config.xyz_pool, stride=1)
        xyz = F.adaptive_avg_pool2d(dense, side)  # means over each cell; finer cells repeat a coarser one
        solid = (xyz != 0).any(dim=1)  # (1, n, n)
        if not solid.any():
            raise DataError(
                f"none of the {side} x {side} cells of a sample has a 3D point; its part is too small or thin: leave "
                "the sample out, or raise the setting grid"
            )
        xyz_at = solid if config.m3dm_cells == "valid" else torch.ones_like(solid)
        rgb_at = F.adaptive_max_pool2d(xyz_at.float(), rgb.shape[-2:]) > 0
        beside = F.adaptive_avg_pool2d(rgb, side)
        return cls(_rows(rgb, rgb_at), _rows(xyz, xyz_at), _rows(beside, xyz_at), rgb_at[0], xyz_at[0], solid[xyz_at])


def _rows(features: Tensor, at: Tensor) -> Tensor:
    """(1, C, h, w) at the cells (1, h, w) -> (P, C)."""
    return features[0].permute(1, 2, 0)[at[0]].contiguous()


def train_fusion(
    rgb: Sequence[Tensor], xyz: Sequence[Tensor], config: Config, place: Place, show: bool = False
) -> tuple[FeatureFusion, list[dict[str, float]]]:
    """Train the fusion on the patches of good samples: (module in eval mode, the loss along the way).

    rgb, xyz: for each sample (P_k, C) and (P_k, D), row p of both at the same place. A step takes `m3dm_batch` samples
    and of each `m3dm_patches` patches. Weights and draws follow from `config.seed`. Raises MafrError if the loss is not
    finite.
    """
    generator = torch.Generator().manual_seed(config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = FeatureFusion(rgb[0].shape[1], xyz[0].shape[1]).to(place.device)
    weights, step_of = _stepper(model, config, place)
    optimiser = torch.optim.AdamW([weights.vector], lr=config.m3dm_rate, betas=BETAS, fused=True)
    keep_freed_memory()
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate(step, config.m3dm_steps))
    every, recent, history = max(1, config.m3dm_steps // ENTRIES), [], []
    for step in bar(range(1, config.m3dm_steps + 1), what="training the fusion", show=show):
        recent.append(step_of(*_draw(rgb, xyz, config, generator)))
        optimiser.step()
        schedule.step()
        if step % every == 0 or step == config.m3dm_steps:
            mean = torch.stack(recent).mean().item()
            if not math.isfinite(mean):
                raise MafrError(f"the contrastive loss became {mean} by step {step}; lower m3dm_rate")
            history.append({"step": step, "contrast": mean})
            recent = []
    weights.release()
    return model.eval(), history


def _stepper(
    model: FeatureFusion, config: Config, place: Place
) -> tuple[FlatWeights, Callable[[Tensor, Tensor], Tensor]]:
    """The model's weights as one vector, and a step from patches to their loss that leaves the vector's gradient."""
    widest = HIDDEN_RATIO * max(model.rgb_head.in_features, model.xyz_head.in_features)
    if place.device.type == "cpu" and not place.half and config.m3dm_batch * config.m3dm_patches * widest <= SMALL:
        from mafr.baselines.parts.fusion_step import FusionStep  # Numba takes half a second; scoring does without it

        step = FusionStep(model, config.m3dm_temperature)
        return step.weights, step
    weights = FlatWeights(model)

    def by_autograd(*batch: Tensor) -> Tensor:
        with torch.autocast(place.device.type, torch.bfloat16, enabled=place.half):
            loss = model.loss(*(send(part, place.device) for part in batch), config.m3dm_temperature)
        weights.zero()
        loss.backward()
        return loss.detach()

    return weights, by_autograd


def rate(step: int, steps: int) -> float:
    """The learning rate of a step as a share of the highest: a linear rise, then half a cosine down to zero."""
    rise = WARM_UP * steps
    if step < rise:
        return (step + 1) / (math.floor(rise) + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1)))


def _draw(
    rgb: Sequence[Tensor], xyz: Sequence[Tensor], config: Config, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Paired patches of a step, (P, C) and (P, D)."""
    chosen = torch.randperm(len(rgb), generator=generator)[: config.m3dm_batch].tolist()
    rows = {k: torch.randperm(len(rgb[k]), generator=generator)[: config.m3dm_patches] for k in chosen}
    return tuple(torch.cat([features[k].index_select(0, rows[k]) for k in chosen]) for features in (rgb, xyz))


@dataclass(frozen=True)
class DecisionFusion:
    """Decision layer fusion, Sec. 3.3: a linear one-class SVM on the three banks' scores."""

    weights: Tensor  # (3,) float64, the SVM's coefficients times the factors that its inputs were multiplied by

    @classmethod
    def fit(cls, scores: Tensor, config: Config) -> DecisionFusion:
        """Fit to the scores (N, 3) of good samples, columns as in `BANKS`."""
        from sklearn.exceptions import ConvergenceWarning  # slow to load
        from sklearn.linear_model import SGDOneClassSVM

        factors = torch.tensor(
            [config.m3dm_weight_rgb, config.m3dm_weight_xyz, config.m3dm_weight_fused], dtype=torch.float64
        )
        svm = SGDOneClassSVM(nu=config.m3dm_nu, max_iter=config.m3dm_iterations, random_state=config.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # to stop there is the published rule
            svm.fit((scores.double().cpu() * factors).numpy())
        return cls(torch.from_numpy(svm.coef_.reshape(-1)).double() * factors)

    def __call__(self, scores: Tensor) -> Tensor:
        """Scores (..., 3) -> (...), float64: the SVM's `score_samples`. They grow with each bank's score."""
        return scores.double() @ self.weights.to(scores.device)


class M3DM(Method):
    """Three memory banks with learned feature fusion and learned decision fusion."""

    name = "m3dm"

    def train(self, split: Split, indices: Sequence[int], show: bool) -> None:
        """Feature fusion, banks, decision fusion of the first `m3dm_most` samples, one after the other as published."""
        config, indices = self.config, indices[: self.config.m3dm_most]
        samples = [Cells.of(split.tokens([k]), config) for k in indices]
        pairs = [(one.beside[one.solid], one.xyz[one.solid]) for one in samples]
        self.fusion, self.history = train_fusion(*zip(*pairs, strict=True), config, self.place, show)
        self.scale = torch.cat([one.rgb for one in samples]).std()  # the features' common divisor
        self.banks = {}
        with torch.inference_mode():
            for name in BANKS:
                rows = torch.cat([self._features(one, name) for one in samples])
                self.banks[name] = MemoryBank.build(rows, config)
            scores, pixels, numbered = [], [], zip(samples, indices, strict=True)
            for one, k in bar(numbered, len(samples), "scoring good samples", show):
                mask = self._mask(split, k)
                maps, score = self._bank_scores(one, mask)
                scores.append(score)
                pixels.append(one_pixel_per_cell(smooth(maps, "gaussian", config.m3dm_sigma), mask, config))
        seen = {"image": torch.stack(scores), "map": torch.cat(pixels)}
        self.decide = {name: DecisionFusion.fit(values, config) for name, values in seen.items()}

    def score(self, split: Split, k: int) -> Prediction:
        """psi_rgb and psi_xyz are the distances to two of the banks, masked, not blurred."""
        maps, score = self._bank_scores(Cells.of(split.tokens([k]), self.config), self._mask(split, k))
        joined = self.decide["map"](maps[:, 0].permute(1, 2, 0)).to(maps.dtype)
        # A weighted sum may be taken before the blur as well as after it.
        psi = smooth(joined[None, None], "gaussian", self.config.m3dm_sigma)
        return Prediction.of(maps[0], maps[1], psi, float(self.decide["image"](score)))

    def searches(self) -> list[float]:
        return [seconds for bank in self.banks.values() for seconds in bank.searches]

    def state(self) -> dict[str, Tensor]:
        """Weights of the fusion, kept features, and the SVMs' coefficients."""
        parts = nn.ModuleDict({"fusion": self.fusion}).state_dict() | {"scale": self.scale}
        parts |= {f"bank.{name}": bank.vectors for name, bank in self.banks.items()}
        return parts | {f"decide.{name}": decide.weights for name, decide in self.decide.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        device = self.place.device
        self.fusion = FeatureFusion(self.config.rgb_dim, self.config.xyz_dim)
        weights = {name: tensor for name, tensor in state.items() if name.startswith("fusion.")}
        nn.ModuleDict({"fusion": self.fusion}).load_state_dict(weights)
        self.fusion.to(device).eval()
        self.banks = {name: MemoryBank.restore(state, f"bank.{name}", device) for name in BANKS}
        self.decide = {name: DecisionFusion(state[f"decide.{name}"]) for name in ("image", "map")}
        self.scale = state["scale"]

    def _features(self, cells: Cells, name: str) -> Tensor:
        """The rows of a bank's kind that a sample has, (P, D), on the banks' device."""
        device = self.place.device
        if name == "fused":
            rows = self.fusion(cells.beside.to(device), cells.xyz.to(device))
        else:
            rows = getattr(cells, name).to(device)
        return rows / self.scale.to(device)

    def _mask(self, split: Split, k: int) -> Tensor:
        """(1, 1, S, S) bool, the pixels of sample k that are scored."""
        valid = torch.from_numpy(split.mask(k))[None, None]
        return valid if self.config.m3dm_cells == "valid" else torch.ones_like(valid)

    def _bank_scores(self, cells: Cells, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Masked maps of distances, (3, 1, S, S), and image scores, (3,), of the banks; on the CPU."""
        maps, scores = [], []
        for name in BANKS:
            rows, bank = self._features(cells, name), self.banks[name]
            distance, index = bank.nearest(rows)
            scores.append(bank.image_score(rows, distance, index))
            at = cells.rgb_at if name == "rgb" else cells.xyz_at
            grid = torch.zeros(at.shape)
            grid[at] = distance[:, 0].cpu()
            maps.append(upsample(grid[None, None], at[None, None], self.config.image_size) * mask)
        return torch.cat(maps), torch.tensor(scores)


def one_pixel_per_cell(maps: Tensor, mask: Tensor, config: Config) -> Tensor:
    """Maps (3, 1, S, S) and mask (1, 1, S, S) -> (N, 3), the pixels whose points the stored cells hold."""
    step = config.image_size // config.grid
    lattice = (..., slice(step // 2, None, step), slice(step // 2, None, step))
    return maps[lattice][:, 0][:, mask[lattice][0, 0]].T
