"""VoxelGAN, VoxelAE and VoxelVM: the first MVTec 3D-AD benchmark's methods on voxel grids with colour.

Bergmann et al., "The MVTec 3D-AD Dataset" (VISAPP 2022), Sec. 4; the rows "3D + RGB", which are those that Table I
cites. A grid of 64 x 64 x 64 voxels is centred on the bounding box of all training samples; a voxel holds the mean
colour, in [0, 1], of its points, and (-1, -1, -1) where it has none. Occupied and empty voxels weigh alike in the
autoencoder's loss, by the share of empty voxels in the training set. Each training sample is seen in 20 copies, turned
by up to 5 degrees. The image score is the largest value of the map.

Full profile: the published 64³ and 20 copies; f-AnoGAN's layers in three dimensions, its optimisers, rates and weights
as in its authors' code; the autoencoder after Bergmann et al. (VISAPP 2019), in three dimensions.
Smaller profiles: side, width and latent size are the full ones divided by one power of two, chosen by a run's
seconds alone, some three to sixteen on one processor: 4 for the autoencoder, 8 for the GAN. At least `min_steps`
steps (of the critic, and of the encoder), as for MAFR, and its learning rate of 1e-3; batches of 4, 2 copies.
The variation model is not made smaller, except for the copies: its grid has 64³ voxels in every profile.

Departures, or what the paper leaves to an appendix that we did not have:
- widths (32, half of f-AnoGAN's in two dimensions), the latent size 512, 50 epochs, batches of 8 and the autoencoder's
  layers are our reading, not the published table;
- clouds are preprocessed as for MAFR: no table around the part, and 224 x 224 points at most;
- turned around the line through the cube's centre along the viewing axis (`mafr.data.depth_axis.DepthAxis`), drawn anew
  each time, since preprocessing removes the background plane whose normal the paper turns around; points that leave
  the cube are dropped;
- a pixel gets the score of the voxel that its point is in (of the nearest one outside the cube), where the paper
  projects the voxels' scores with the camera's calibration;
- the variation model divides by a standard deviation of at least `voxel_floor`: most voxels are empty in all samples;
- pixels without a 3D point score zero and maps are blurred, as MAFR's are;
- everything is computed in float32, whatever the setting `precision`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mafr.baselines.parts.inputs import Frame, turn_points
from mafr.baselines.parts.mvtec_benchmark import AutoencoderModel, GanModel, Sizes, VariationModel, random_angles
from mafr.data.depth_axis import DepthAxis
from mafr.data.samples import Sample
from mafr.device import send
from mafr.features.sources.splits import Split
from mafr.method import Method, Prediction
from mafr.parallel.progress import bar
from mafr.scoring import image_score, smooth

CHANNELS = 3
PUBLISHED_SIDE = 64


class VoxelGrids:
    """Training clouds, points (n, 3) and colours (n, 3) each, as the models draw them. axis: what they turn around."""

    def __init__(
        self, clouds: list[tuple[np.ndarray, np.ndarray]], frame: Frame, axis: int, device: torch.device
    ) -> None:
        self.clouds, self.frame, self.axis, self.device = clouds, frame, axis, device
        filled = sum(np.count_nonzero(np.bincount(frame.cells(points)[0])) for points, _ in clouds)
        self.empty = 1 - filled / (len(clouds) * frame.side**3)

    def __len__(self) -> int:
        return len(self.clouds)

    def draw(self, chosen: list[int], generator: torch.Generator) -> Tensor:
        """Grids of some clouds, each turned by a random angle: (B, 3, side, side, side)."""
        grids = []
        for k, angle in zip(chosen, random_angles(len(chosen), generator).tolist(), strict=True):
            points, colours = self.clouds[k]
            grids.append(self.frame.grid(turn_points(points, angle, self.axis, self.frame.middle), colours))
        return send(torch.from_numpy(np.stack(grids)), self.device)


class VoxelMethod(Method):
    """What the three have in common: voxel grids, and their scores back at the pixels."""

    reads = ()
    model_type: ClassVar[type[VariationModel] | type[AutoencoderModel] | type[GanModel]]

    def train(self, split: Split, indices: Sequence[int], show: bool) -> None:
        self._build()
        clouds: list[tuple[np.ndarray, np.ndarray]] = []

        def read() -> Iterator[Sample]:  # each sample is read once, for its points and for the viewing axis
            for k in bar(indices, what="reading samples") if show else indices:
                sample = split.sample(k)
                clouds.append(_points(sample))
                yield sample

        axis = DepthAxis.fit(read()).axis
        self.frame = Frame.around((points for points, _ in clouds), self.model.sizes.side)
        self.history = self.model.learn(VoxelGrids(clouds, self.frame, axis, self.place.device))
        self.model.eval()

    def score(self, split: Split, k: int) -> Prediction:
        sample = split.sample(k)
        points, colours = _points(sample)
        grid = torch.from_numpy(self.frame.grid(points, colours))[None].to(self.place.device)
        voxels = self.model.total(self.model.squares(grid)).flatten().cpu()
        cells, _ = self.frame.cells(points)
        raw = torch.zeros(1, 1, *sample.valid.shape[1:])
        raw[torch.from_numpy(sample.valid)[None]] = voxels[torch.from_numpy(cells)]
        psi = smooth(raw, self.config.blur, self.config.sigma)
        return Prediction.of(None, None, psi, image_score(psi, "max").item())

    def state(self) -> dict[str, Tensor]:
        frame = torch.tensor([*self.frame.low, self.frame.edge], dtype=torch.float64)
        return {"frame": frame} | {f"model.{name}": value for name, value in self.model.state_dict().items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        self._build()
        *low, edge = state["frame"].tolist()
        self.frame = Frame(tuple(low), edge, self.model.sizes.side)
        self.model.load_state_dict({name[6:]: value for name, value in state.items() if name.startswith("model.")})
        self.model.eval()

    def _build(self) -> None:
        side = PUBLISHED_SIDE if self.model_type is VariationModel else None
        sizes = Sizes.of(self.config, "voxel", 3, CHANNELS, self.model_type is GanModel, side)
        self.model = self.model_type(sizes).to(self.place.device)


def _points(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Valid points (n, 3), row by row of the image, and their colours (n, 3); in memory a column after the other."""
    valid = sample.valid[0]
    return sample.xyz[:, valid].T, sample.rgb[:, valid].T


class VoxelGAN(VoxelMethod):
    """f-AnoGAN on voxel grids with colour."""

    name = "voxelgan"
    model_type = GanModel


class VoxelAE(VoxelMethod):
    """A convolutional autoencoder on voxel grids with colour."""

    name = "voxelae"
    model_type = AutoencoderModel


class VoxelVM(VoxelMethod):
    """A variation model on voxel grids with colour: mean and standard deviation of every voxel."""

    name = "voxelvm"
    model_type = VariationModel
