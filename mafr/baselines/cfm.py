"""CFM and its pruned medium version: features of one modality predicted from the other's, pixel by pixel.

Costanzino et al., "Multimodal Industrial Anomaly Detection by Crossmodal Feature Mapping", CVPR 2024 (Sec. 3), and the
authors' code (CVLAB-Unibo/crossmodal-feature-mapping), from which widths, loss, taps, blur and image score are taken:

- Two MLPs with GELU between their linear layers, all hidden ones of the mean width of both features: for DINO's 768 and
  Point-MAE's 1,152 channels, 960. On MVTec 3D-AD three layers, C → (C + D) / 2 → (C + D) / 2 → D and back; on
  Eyecandies seven, the code's deeper network, which its author names for that data set (issue 11 there).
- Loss: one minus the cosine similarity of mapped and observed features, the mean over the valid pixels of the whole
  batch, summed over the two directions. Adam at 1e-3; MVTec 3D-AD 250 epochs at batch 4 (as the published checkpoints
  are named), Eyecandies 50 epochs at batch 2 (both of the authors' scripts).
- Maps: Euclidean distances of the features brought to unit length, zero at invalid pixels; their product is blurred by
  five 5 x 5 and three 7 x 7 means (some sqrt(22) pixels of Gaussian).
- Image score: the maximum of the blurred map over the root of the mean of its non-zero pixels.
- CFM-M keeps the first 8 of 12 blocks of both transformers: DINO's tokens are those of block 8 after the final norm,
  Point-MAE's those of blocks 2, 5 and 8. The code lists these taps for 8 blocks, and others for 12 and 4, without the
  versions' names; 8 is taken for the medium one. It reads features of its own, see `CFMMedium.feature_config`.

What follows the data set is set by `mafr.baselines.registry.method_settings`; a detector that is made from other
settings has three layers.

Small profiles, by rule: hidden widths follow from the features', and the number of layers, batch and learning rate are
the published ones, but for the batch on Eyecandies, which is MVTec 3D-AD's 4. Epochs stand in that data set's ratio to
MAFR's, 250 : 100, on both, with more of them where few samples would make fewer than `min_steps` steps. CFM-M keeps two
thirds of the blocks of any backbone, to the nearest block: 7 of the 11 of EfficientNet-Lite0 that reach stride 16, and
4 of the small Point-MAE's 6, tapped at 1, 3 and 4.

Departures. The authors' training script for MVTec 3D-AD says 50 epochs; the published checkpoints, of 250, decide.
CFM-M's training on Eyecandies is not documented: it is CFM's. Their backbones never leave train mode; here they follow
the setting `extractor_mode`, as MAFR's. For pixel metrics they scale each map by its own mean, in another way for each
metric; here the map is left as it is. A pixel is invalid where its 3D features are all zero, not where they sum to
zero.

Computed on tokens, equal to the MLPs on dense maps: the first layer commutes with interpolation, so it is applied to
whichever are fewer, tokens or pixels; the rest is computed on parts of the valid pixels, which bounds memory. A loss's
gradients are summed part by part. Few pixels on a CPU, as in the small profiles, take `mafr.fast.crossmodal` instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mafr.baselines.registry import title
from mafr.config import Config
from mafr.device import computing
from mafr.errors import ConfigError, MafrError
from mafr.fast.restorer import SMALL, Scene, open_scene
from mafr.fast.weights import FlatWeights
from mafr.features.encoders import point_shape
from mafr.features.extract import FeatureExtractor
from mafr.features.interpolation import Rows
from mafr.features.rgb import rgb_depth, rgb_dim
from mafr.features.sources.splits import Split
from mafr.memory import keep_freed_memory
from mafr.method import Method, Prediction
from mafr.parallel.progress import bar
from mafr.scoring import at_pixels, fuse, image_score, score_mask, smooth
from mafr.training import Scenes, shuffled

BLUR, IMAGE_SCORE = "box", "max-over-root-mean"  # as the authors' code does, under the names of mafr.scoring
MEDIUM = 8 / 12  # share of the blocks that CFM-M keeps
ROWS = {"cpu": 2**13, "cuda": 2**16}  # pixels whose hidden values exist at a time
COSINE_EPS = 1e-6  # smallest length that is divided by (authors' code)


class Mapping(nn.Module):
    """One direction: features (…, C) of one modality to (…, D) of the other, by `layers` linear ones with GELU between.

    Saved detectors know the parameters by these names: three layers are `first`, `second` and `last`, others come
    between the last two.
    """

    def __init__(self, inputs: int, outputs: int, layers: int = 3) -> None:
        super().__init__()
        hidden = (inputs + outputs) // 2
        self.first, self.second = nn.Linear(inputs, hidden), nn.Linear(hidden, hidden)
        self.between = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers - 3))
        self.last = nn.Linear(hidden, outputs)

    def forward(self, features: Tensor) -> Tensor:
        return self.rest(self.first(features))

    @property
    def layers(self) -> list[nn.Linear]:
        """All linear layers, the first one first."""
        return [self.first, self.second, *self.between, self.last]

    def rest(self, hidden: Tensor) -> Tensor:
        """The layers after the first."""
        for layer in self.layers[1:]:
            hidden = layer(F.gelu(hidden))
        return hidden


@dataclass(frozen=True)
class Modality:
    """Tokens (T, C) and their interpolation to P pixels."""

    tokens: Tensor
    rows: Rows

    @classmethod
    def join(cls, parts: Sequence[Modality]) -> Modality:
        """The tokens and pixels of several samples, one after the other."""
        if len(parts) == 1:
            return parts[0]
        return cls(torch.cat([part.tokens for part in parts]), Rows.stack([part.rows for part in parts]))

    def features(self, start: int, end: int) -> Tensor:
        """The features of some pixels, (p, C)."""
        return self.rows.part(start, end).apply(self.tokens)


def backward(mapping: Mapping, source: Modality, target: Modality, pixels: int) -> Tensor:
    """Add some samples' share of a direction's loss to the gradients and return it; `pixels`: of the whole batch."""
    total = torch.zeros((), device=source.tokens.device)
    for hidden, wanted in _parts(mapping, source, target):
        mapped = mapping.rest(hidden)
        # The cosine, divided by the lengths last: torch's own makes unit vectors of both first, which takes longer.
        lengths = mapped.norm(dim=1).clamp_min(COSINE_EPS) * wanted.norm(dim=1).clamp_min(COSINE_EPS)
        loss = (1 - (mapped * wanted).sum(dim=1) / lengths).sum() / pixels
        loss.backward()
        total += loss.detach()
    return total


def distances(mapping: Mapping, source: Modality, target: Modality) -> Tensor:
    """Euclidean distances of mapped and observed features, both brought to unit length: (P,)."""
    parts = _parts(mapping, source, target)
    return torch.cat([(F.normalize(mapping.rest(h)) - F.normalize(wanted)).norm(dim=1) for h, wanted in parts])


def _parts(mapping: Mapping, source: Modality, target: Modality) -> Iterator[tuple[Tensor, Tensor]]:
    """Of some pixels at a time: the first layer's output (p, H) and the observed features (p, D).

    Where the first layer is applied to the tokens, its gradient is computed after the last part.
    """
    pixels, step = len(source.rows), ROWS[source.tokens.device.type]
    early = len(source.tokens) < pixels
    if early:
        tokens = F.linear(source.tokens, mapping.first.weight)
        leaf = Modality(tokens.detach().requires_grad_(tokens.requires_grad), source.rows)
    for start in range(0, pixels, step):
        end = min(start + step, pixels)
        pixel = (leaf if early else source).features(start, end)
        hidden = pixel + mapping.first.bias if early else mapping.first(pixel)
        yield hidden, target.features(start, end)
    if early and tokens.requires_grad:
        tokens.backward(leaf.tokens.grad)


class CFM(Method):
    """Crossmodal feature mapping, CVPR 2024."""

    name = "cfm"

    def __init__(self, config: Config, extractor: FeatureExtractor | None = None) -> None:
        """Raises ConfigError where the extractor was built for other features than the method's."""
        super().__init__(config, extractor)
        self.features = self.feature_config(config)
        if extractor is not None and extractor.config.feature_digest() != self.features.feature_digest():
            name = title(self.name)
            raise ConfigError(f"{name} needs an extractor of other features; build it for feature_config(config)")
        self.maps = nn.ModuleDict()
        self.small: list[Callable] | None = None  # while it is trained, see `mafr.fast.crossmodal`

    def train(self, split: Split, indices: Sequence[int], show: bool) -> None:
        config = self.config
        self.maps, self.history = self.new_maps(), []
        weights = FlatWeights(self.maps)
        optimiser = torch.optim.Adam([weights.vector], lr=config.cfm_learning_rate, fused=True)
        keep_freed_memory()
        epochs, size = range(epochs_for(config, len(indices))), config.cfm_batch
        opened = Scenes(lambda k: self.open(split, indices[k]), len(indices), self.place, split, size, config)
        with computing(config), opened as scenes:
            for epoch in bar(epochs, what="training", show=show):
                walk = scenes.walk(shuffled(config, epoch, len(scenes)), epoch)
                losses = []
                while batch := list(islice(walk, size)):
                    weights.zero()
                    losses.append(self.step(batch))
                    optimiser.step()
                rgb, xyz = torch.stack(losses).mean(dim=0).tolist()
                self.history.append({"total": rgb + xyz, "rgb": rgb, "xyz": xyz})
                if not math.isfinite(rgb + xyz):
                    raise MafrError(f"the loss became {rgb + xyz} in epoch {epoch + 1}; lower cfm_learning_rate")
        self.small = None
        weights.release()

    def step(self, batch: Sequence[Scene]) -> Tensor:
        """A batch's losses, (2,): 3D to 2D and 2D to 3D; their gradients are added to those of the weights."""
        if not self._is_small(batch):
            return self.general_step(batch)
        from mafr.fast import crossmodal  # Numba takes half a second, and scoring does without it

        if self.small is None:
            for p in self.maps.parameters():
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            self.small = [crossmodal.SmallMapping(self.maps[name].layers, COSINE_EPS) for name in ("to_rgb", "to_xyz")]
        pixels = sum(len(scene.canvas) for scene in batch)
        (rgb, rgb_length), (xyz, xyz_length) = (crossmodal.features(batch, which, COSINE_EPS) for which in (0, 1))
        to_rgb, to_xyz = self.small
        return torch.tensor([to_rgb(xyz, rgb, rgb_length, pixels), to_xyz(rgb, xyz, xyz_length, pixels)])

    def _is_small(self, batch: Sequence[Scene]) -> bool:
        """Whether the calls of the general step would cost more than its arithmetic."""
        if self.place.device.type != "cpu":
            return False
        width = self.features.rgb_dim + self.features.xyz_dim
        return sum(len(scene.canvas) for scene in batch) * width <= SMALL

    def general_step(self, batch: Sequence[Scene]) -> Tensor:
        """`step` for every size and place."""
        pixels = sum(len(scene.canvas) for scene in batch)
        # Small samples go together: otherwise the calls would cost more than the computation.
        together = pixels <= ROWS[self.place.device.type]
        losses = torch.zeros(2, device=self.place.device)
        for scenes in [batch] if together else [[scene] for scene in batch]:
            for k, (mapping, source, target) in enumerate(self._directions(scenes)):
                losses[k] += backward(mapping, source, target, pixels)
        return losses

    def distances(self, scene: Scene) -> tuple[Tensor, Tensor]:
        """Distances of unit features in 2D and in 3D, two maps (1, 1, g, g) float32, zero at invalid pixels."""
        found = []
        for mapping, source, target in self._directions([scene]):
            full = torch.zeros(scene.valid.numel(), device=scene.valid.device)
            full[scene.canvas.rows] = distances(mapping, source, target)
            found.append(full.view(1, 1, *scene.valid.shape))
        return found[0], found[1]

    def score(self, split: Split, k: int) -> Prediction:
        with computing(self.config):
            scene = self.open(split, k)
            valid = scene.valid[None, None]
            mask = torch.from_numpy(split.mask(k))[None, None].to(valid.device)
            mask = score_mask(valid, mask)
            psi_rgb, psi_xyz, _ = at_pixels(*self.distances(scene), valid, mask, self.config.image_size)
            psi = smooth(fuse(psi_rgb, psi_xyz), BLUR)
            return Prediction.of(psi_rgb, psi_xyz, psi, image_score(psi, IMAGE_SCORE).item())

    def state(self) -> dict[str, Tensor]:
        return self.maps.state_dict()

    def restore(self, state: dict[str, Tensor]) -> None:
        self.maps = self.new_maps()
        self.maps.load_state_dict(state)

    def open(self, split: Split, k: int) -> Scene:
        """A sample's tokens and their interpolation to its valid pixels. Raises ConfigError for another backbone's."""
        tokens = split.tokens([k])
        found, wanted = (tokens.rgb.shape[1], tokens.xyz.shape[2]), (self.features.rgb_dim, self.features.xyz_dim)
        if found != wanted:
            raise ConfigError(f"{title(self.name)} takes features of {wanted} channels, 2D and 3D; these have {found}")
        return open_scene(tokens, self.features, self.place, both=False)

    def new_maps(self) -> nn.ModuleDict:
        """Both mappings, untrained."""
        self.small = None  # it has the weights of others
        rgb, xyz, layers = self.features.rgb_dim, self.features.xyz_dim, self.config.cfm_layers
        maps = {"to_rgb": Mapping(xyz, rgb, layers), "to_xyz": Mapping(rgb, xyz, layers)}
        return nn.ModuleDict(maps).to(self.place.device)

    def _directions(self, scenes: Sequence[Scene]) -> list[tuple[Mapping, Modality, Modality]]:
        """Both mappings with their inputs and targets: to 2D, then to 3D."""
        rgb = Modality.join([Modality(scene.rgb, scene.rgb_rows) for scene in scenes])
        xyz = Modality.join([Modality(scene.xyz, scene.xyz_rows) for scene in scenes])
        return [(self.maps["to_rgb"], xyz, rgb), (self.maps["to_xyz"], rgb, xyz)]


class CFMMedium(CFM):
    """CFM on the first two thirds of the blocks of both backbones."""

    name = "cfm_m"

    @classmethod
    def feature_config(cls, config: Config) -> Config:
        """The same settings with pruned backbones."""
        config = super().feature_config(config)
        whole = replace(config, point_blocks=0)
        blocks = round(MEDIUM * rgb_depth(config)), round(MEDIUM * point_shape(whole).depth)
        kept = replace(config, rgb_blocks=blocks[0], point_blocks=blocks[1])
        return replace(kept, rgb_dim=rgb_dim(kept), xyz_dim=point_shape(kept).dim)


def epochs_for(config: Config, samples: int) -> int:
    """Epochs of a training on `samples` samples: `cfm_epochs`, or more to reach `min_steps` steps."""
    return max(config.cfm_epochs, math.ceil(config.min_steps / math.ceil(samples / config.cfm_batch)))
