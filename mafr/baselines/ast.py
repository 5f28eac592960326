"""AST: Asymmetric Student-Teacher Networks for Industrial Anomaly Detection (Rudolph et al., WACV 2023).

The input is one map: image features beside the depth map, 8 x 8 pixels of which are unshuffled into the 64 channels of
a cell. The teacher, a normalising flow conditioned on the position (`parts.flow`), is trained to bring the maps of good
samples to a normal distribution; the student, a plain convolutional network that cannot be bijective, to imitate the
teacher (Sec. 3). Both losses count the foreground only; there the mean squared distance of the two outputs is the
anomaly map, its maximum the image score. Sizes, training and depth preparation as in the authors' public code
(github.com/marco-rudolph/AST: config.py, model.py, utils.py, preprocessing.py). `ast_mode` "rgb" and "depth" are the
paper's ablations; without depth all cells count, and the image score is the map's mean (published for RGB alone).

Full profile: the published settings; EfficientNet-B5's layer 36 on 768 x 768 pixels has 24 x 24 cells of 304 channels.
Few-shot runs: the same settings, with batches of at most the shots.

Small profiles, one rule per size, chosen by the seconds that a run may take and by nothing else:
- image features: the shared backbone's tokens, averaged to the stride of its deepest stage, 16 pixels (demo 14 x 14
  cells); the published layer is its network's deepest stage but one. The depth map keeps 8 x 8 pixels per cell;
- the last kernel covers the published part of the map, 5 of 24 cells -> 3 of 14; blocks, clamp, positions as published;
- widths: the student's sixteenth; the teacher's subnets a quarter, since narrower ones are no faster;
- batch: the published share of the training samples, 8 of 266 -> 2 of 80;
- epochs: two thirds of MAFR's, rounded (published: 72 to 100), and more of few samples (`min_steps`); the learning rate
  times the steps on all samples is as published, 2e-4 · 72 · 266 / 8 -> 1.5e-3 · 8 · 80 / 2.

As in the authors' code, the full profile takes each sample in its image's own pixels (`Sample.scan`): the image is
brought to 768 x 768 directly and the depth map to 192 x 192, both without padding, so that an image that is not square
is stretched; the anomaly map goes back to where the image lies in the sample's padded square. A sample that was made in
memory knows `image_size` (224) pixels only, which are then enlarged, padding included.

Their README says that, after a bug was found, the published code is about 2 % above the paper's RGB + 3D numbers, which
are those of Table I.

Departures, beside those:
- the table plane is removed, and the foreground is where there is a point; the authors take the raw scans and find the
  foreground by a background interpolated from the corners. As theirs, it is dilated by one cell, missing points within
  it are filled from their neighbours in three passes, the mean depth is subtracted and stands for the background, in
  centimetres. Small profiles take the depth of the `image_size` pixels;
- EfficientNet-B5 is timm's (same weights), which pads for 768 pixels; the authors' library pads as for 456;
- the authors score the bicubically upsampled map. Here negative overshoot is cut off, then the map is masked by the
  points and blurred as MAFR's; the image score is the maximum before all that, of the cells, as in their training
  (their evaluation script takes that of the upsampled map);
- the student learns from the teacher's outputs computed once, which are the same in every epoch.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor, nn

from mafr.baselines.parts.flow import Flow, likelihood_loss, positional_encoding
from mafr.baselines.parts.inputs import CAMERA, without_holes
from mafr.baselines.parts.student import distance, student_network
from mafr.config import Config
from mafr.data.depth_axis import DepthAxis
from mafr.data.samples import Sample
from mafr.data.scan import Scan
from mafr.device import computing, send
from mafr.errors import ConfigError, DataError, MafrError
from mafr.features.extract import FeatureExtractor, Tokens
from mafr.features.interpolation import channels_last
from mafr.features.sources.splits import Split
from mafr.features.timm_maps import B5_DIM, B5_STRIDE, EfficientNetB5
from mafr.features.weights.files import EFFICIENTNET_B5, WeightFile
from mafr.memory import keep_freed_memory
from mafr.method import Method, Prediction
from mafr.parallel.progress import bar
from mafr.paths import Paths
from mafr.scoring import smooth

KERNEL = 3  # of all coupling blocks but the last
KEPT = 2**28  # bytes of image and points up to which a training keeps its samples between two passes over them
SMALL = 2**18  # cells of a batch times channels up to which a CPU takes the steps without automatic gradients
FILLS = 3  # passes that fill missing points
CENTIMETRES = 100  # per metre


def depth_map(
    sample: Sample, side: int, reach: int, view: DepthAxis = CAMERA, scan: Scan | None = None
) -> tuple[Tensor, Tensor]:
    """A sample's depth and dilated foreground, both (1, 1, side, side) float32 (preprocessing.py and utils.py there).

    Depth is in centimetres from the foreground's mean, zero on the background; foreground is 0 or 1. reach: side of
    the square that dilates it. scan: the sample's own, whose pixels are then taken; an image that is not square is
    stretched. Raises DataError for a sample without points.
    """
    xyz = sample.xyz if scan is None else scan.xyz.transpose(2, 0, 1)
    known = (xyz != 0).any(axis=0)
    if not known.any():
        raise DataError(f"{sample.category} {sample.id} has no 3D point; leave the sample out")
    depth = np.where(known, view.along(xyz), 0)
    missing = ndimage.binary_fill_holes(known) & ~known
    depth, known = without_holes(depth, known, missing, FILLS)
    depth = np.where(known, depth - depth[known].mean(), 0) * CENTIMETRES
    both = torch.from_numpy(np.stack([depth, known]).astype(np.float32))[None]
    both = F.interpolate(both, (side, side), mode="bilinear", align_corners=False)
    foreground = ndimage.binary_dilation(both[0, 1].numpy() > 0, np.ones((reach, reach)))
    return both[:, :1], torch.from_numpy(foreground.astype(np.float32))[None, None]


def in_square(maps: Tensor, scan: Scan, size: int) -> Tensor:
    """Maps (B, C, n, m) of a scan's whole image -> (B, C, size, size) of its sample's padded square, bicubic.

    Beside the image the border's values go on; there is no point there.
    """
    height, width = scan.rgb.shape[:2]
    if height == width == scan.side:
        return F.interpolate(maps, (size, size), mode="bicubic", align_corners=False)
    centre = (np.arange(size) + 0.5) * scan.side / size  # of the square's new pixels, in the image's
    # From -1 to 1 over the image; `pad_square` rounds down at the top and on the left.
    rows, columns = (2 * (centre - (scan.side - length) // 2) / length - 1 for length in (height, width))
    places = np.stack(np.meshgrid(columns, rows), axis=-1).astype(np.float32)
    grid = torch.from_numpy(places).to(maps.device).expand(len(maps), -1, -1, -1)
    return F.grid_sample(maps, grid, mode="bicubic", padding_mode="border", align_corners=False)


class AST(Method):
    """Asymmetric student-teacher networks."""

    name = "ast"

    @classmethod
    def weight_files(cls, config: Config) -> tuple[WeightFile, ...]:
        seen = config.ast_backbone == "efficientnet_b5" and config.ast_mode != "depth"
        return (EFFICIENTNET_B5,) if seen else ()

    def __init__(self, config: Config, extractor: FeatureExtractor | None = None) -> None:
        super().__init__(config, extractor)
        self.uses_image = config.ast_mode != "depth"
        self.uses_depth = config.ast_mode != "rgb"
        self.has_own_backbone = own = config.ast_backbone == "efficientnet_b5"
        self.reads = ("rgb",) if self.uses_image and not own else ()
        stride, pixels = (B5_STRIDE, config.ast_image_side) if own else (config.ast_stride, config.image_size)
        if pixels % stride:
            raise ConfigError(f"ast_image_side or image_size, {pixels}, must be a multiple of the stride {stride}")
        self.side = pixels // stride  # cells along an edge of the map
        image = B5_DIM if own else config.rgb_dim
        self.channels = self.uses_image * image + self.uses_depth * config.ast_depth_pixels**2
        self.positions = positional_encoding(config.ast_positions, self.side, self.side).to(self.place.device)
        self.view = CAMERA  # of the depth map

    @cached_property
    def backbone(self) -> EfficientNetB5:
        """The method's own backbone, loaded when first needed. Raises WeightsError for missing weights."""
        weights = Paths.resolve(self.config.profile).weights
        return EfficientNetB5.from_config(self.config, self.config.ast_image_side, weights).to(self.place.device)

    def train(self, split: Split, indices: Sequence[int], show: bool) -> None:
        """The teacher first, then the student."""
        with computing(self.config):
            self.build()
            # Samples are decoded once where they may stay in memory.
            kept = len(indices) * 6 * 4 * self.config.image_size**2 <= KEPT
            samples = {k: split.sample(k) for k in indices} if kept else {}
            if self.uses_depth:
                self.view = DepthAxis.fit(samples.get(k) or split.sample(k) for k in indices)
            shape = (len(indices), self.channels, self.side, self.side)
            maps, weights = torch.empty(shape), torch.empty(len(indices), 1, *shape[2:])
            for row, k in enumerate(indices):
                sample, at = samples.pop(k, None) or split.sample(k), slice(row, row + 1)
                maps[at], weights[at] = self.inputs(sample, self._tokens(split, k), self.scan(sample))
            train = self._train_small if self._is_small(len(indices)) else self._train_general
            nll, mse = train(maps, weights, show)
        self.history = [{"teacher": a, "student": b} for a, b in zip(nll, mse, strict=True)]

    def _train_general(self, maps: Tensor, weights: Tensor, show: bool) -> tuple[list[float], list[float]]:
        """Train on maps (N, C, side, side) with weights (N, 1, side, side); each network's mean losses."""
        device = self.place.device

        def teach(chosen: Tensor) -> Tensor:
            z, logdet = self.teacher(send(maps[chosen], device), self.positions)
            return likelihood_loss(z, logdet, send(weights[chosen], device))

        def learn(chosen: Tensor) -> Tensor:
            learned = self._learned(send(maps[chosen], device))
            return distance(send(targets[chosen], device), learned, send(weights[chosen], device)).mean()

        def by_autograd(network: nn.Module, loss: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
            def step(chosen: Tensor) -> Tensor:
                network.zero_grad(set_to_none=True)
                value = loss(chosen)
                value.backward()
                return value.detach()

            return step

        taught = by_autograd(self.teacher, teach)
        nll = self._optimise("teacher", taught, self.teacher.parameters(), len(maps), show)
        with torch.no_grad():
            parts = maps.split(self.config.ast_batch)
            targets = torch.cat([self._taught(part.to(device)).cpu() for part in parts])
        learned = by_autograd(self.student, learn)
        return nll, self._optimise("student", learned, self.student.parameters(), len(maps), show)

    def _train_small(self, maps: Tensor, weights: Tensor, show: bool) -> tuple[list[float], list[float]]:
        """As `_train_general`, on rows of cells."""
        from mafr.baselines.parts.flow_step import FlowStep  # Numba takes half a second, and scoring does without it
        from mafr.baselines.parts.student_step import StudentStep
        from mafr.fast.convolution import rows_of

        keep_freed_memory()
        count, batch = len(maps), self.config.ast_batch
        x, weights = rows_of(maps).view(count, self.side**2, -1), weights.flatten(1)
        positions = rows_of(self.positions)
        teacher = FlowStep(self.teacher, self.positions)

        def teach(chosen: Tensor) -> Tensor:
            return teacher(x[chosen].flatten(0, 1), weights[chosen].flatten())

        nll = self._optimise("teacher", teach, [teacher.weights.vector], count, show)
        targets = torch.cat([teacher.outputs(part.flatten(0, 1))[0] for part in x.split(batch)]).view_as(x)
        teacher.weights.release()
        student = StudentStep(self.student, self.side, self.side)

        def learn(chosen: Tensor) -> Tensor:
            inputs = torch.cat([positions.expand(len(chosen), -1, -1), x[chosen]], dim=2)
            return student(inputs.flatten(0, 1), targets[chosen].flatten(0, 1), weights[chosen].flatten())

        mse = self._optimise("student", learn, [student.weights.vector], count, show)
        student.weights.release()
        return nll, mse

    def _is_small(self, count: int) -> bool:
        """Whether the calls of a general step on `count` samples would cost more than its arithmetic."""
        config = self.config
        if self.place.device.type != "cpu" or config.compiled:
            return False
        widest = max(self.channels + config.ast_positions, config.ast_student_hidden)
        return min(config.ast_batch, count) * self.side**2 * widest <= SMALL

    def score(self, split: Split, k: int) -> Prediction:
        """The squared distance on the foreground, and its maximum."""
        config = self.config
        with computing(config):
            sample = split.sample(k)
            scan = self.scan(sample)
            x, weight = (part.to(self.place.device) for part in self.inputs(sample, self._tokens(split, k), scan))
            # As published the foreground's share of a cell counts twice: in the distance, and when the map is masked.
            cells = (distance(self._taught(x), self._learned(x), weight) * weight).cpu()
            size = config.image_size
            if scan is None:
                psi = F.interpolate(cells, (size, size), mode="bicubic", align_corners=False)
            else:
                psi = in_square(cells, scan, size)
            psi = smooth(psi.clamp_min(0) * torch.from_numpy(sample.valid), config.blur, config.sigma)
        return Prediction.of(None, None, psi, (cells.amax() if self.uses_depth else cells.mean()).item())

    def scan(self, sample: Sample) -> Scan | None:
        """The sample in its image's own pixels: where the method has its own backbone and the sample knows them."""
        return sample.scan() if self.has_own_backbone and sample.scan is not None else None

    def inputs(self, sample: Sample, tokens: Tokens | None, scan: Scan | None = None) -> tuple[Tensor, Tensor]:
        """The networks' input map, (1, C, side, side), and its foreground, (1, 1, side, side) in [0, 1].

        tokens: the sample's stored ones, where the method `reads` any. scan: from `scan`; the map is then that of the
        image without padding, stretched to a square.
        """
        parts, weight = [], torch.ones(1, 1, self.side, self.side)
        if self.uses_image:
            if tokens is not None:
                parts.append(F.adaptive_avg_pool2d(channels_last(tokens.rgb.float()), self.side).contiguous())
            else:
                image = sample.rgb if scan is None else scan.stretched(self.config.ast_image_side)
                parts.append(self.backbone(torch.from_numpy(image)[None].to(self.place.device)).cpu())
        if self.uses_depth:
            pixels = self.config.ast_depth_pixels
            depth, foreground = depth_map(sample, self.side * pixels, pixels, self.view, scan)
            parts.append(F.pixel_unshuffle(depth, pixels))
            weight = F.interpolate(foreground, (self.side, self.side), mode="bilinear", align_corners=False)
        return torch.cat(parts, dim=1), weight

    def state(self) -> dict[str, Tensor]:
        view = torch.tensor(self.view.numbers, dtype=torch.float64)
        return self._networks().state_dict() | {"view": view}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.build()
        self.view = DepthAxis.of_numbers(state["view"].tolist())
        self._networks().load_state_dict({name: value for name, value in state.items() if name != "view"})
        self._networks().eval()

    def _networks(self) -> nn.ModuleDict:
        return nn.ModuleDict({"teacher": self.teacher, "student": self.student})

    def build(self) -> None:
        """Both networks, untrained."""
        config, device = self.config, self.place.device
        kernels = [KERNEL] * (config.ast_coupling_blocks - 1) + [config.ast_last_kernel]
        flow = Flow(self.channels, config.ast_positions, config.ast_teacher_hidden, kernels, config.ast_clamp)
        self.teacher = flow.to(device)
        inputs = config.ast_positions + self.channels
        student = student_network(inputs, self.channels, config.ast_student_hidden, config.ast_student_blocks)
        self.student = student.to(device)

    def _taught(self, x: Tensor) -> Tensor:
        return self.teacher(x, self.positions)[0]

    def _learned(self, x: Tensor) -> Tensor:
        return self.student(torch.cat([self.positions.expand(len(x), -1, -1, -1), x], dim=1))

    def _tokens(self, split: Split, k: int) -> Tokens | None:
        return split.tokens([k]) if self.reads else None

    def _optimise(
        self, name: str, step: Callable[[Tensor], Tensor], parameters: Iterable[nn.Parameter], count: int, show: bool
    ) -> list[float]:
        """Train a network on batches of `count` samples; the mean loss of each epoch.

        step: from a batch's numbers to its loss, leaves the gradients with `parameters`.
        """
        config, network, losses = self.config, getattr(self, name), []
        batch = min(config.ast_batch, count)
        steps = count // batch  # a smaller last batch is left out, as published
        epochs = range(max(config.ast_epochs, math.ceil(config.min_steps / steps)))
        rate, decay = config.ast_learning_rate, config.ast_weight_decay
        optimiser = torch.optim.Adam(parameters, lr=rate, weight_decay=decay, fused=True)
        network.train()
        for epoch in bar(epochs, what=f"training the {name}", show=show):
            generator = torch.Generator().manual_seed(config.seed * 100_003 + epoch)
            order, total = torch.randperm(count, generator=generator), 0.0
            for chosen in order[: steps * batch].split(batch):
                total = total + step(chosen)
                optimiser.step()
            losses.append(float(total) / steps)
            if not math.isfinite(losses[-1]):
                raise MafrError(f"the {name}'s loss became {losses[-1]} in epoch {epoch + 1}; lower ast_learning_rate")
        network.eval()
        return losses
