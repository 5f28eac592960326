"""Features of a depth image at each of its 8 x 8 patches: raw values, histograms of oriented gradients, dense SIFT.

All take depth (S, S) float32, metres, 0 where there is no point, S a multiple of 8, and give (S/8 x S/8, D) float32,
row by row.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mafr.baselines.parts.patches import PATCH, pool

ORIENTATIONS = 8  # of HoG, over half a turn, and of SIFT, over a whole one
SIFT_BINS, SIFT_BIN_SIZE = 4, 4  # spatial bins along a descriptor's side, pixels along a bin
SIFT_CLIP = 0.2
_EPS = 1e-10


def raw_depth(depth: np.ndarray, layout: str) -> Tensor:
    """64 depths of each patch. layout: "blocks", those of its 8 x 8 pixels; "rows", those of 64 consecutive pixels.

    In "rows" the pixels are numbered row by row through the whole image, patch n having those from 64 n on.
    """
    values = torch.from_numpy(np.ascontiguousarray(depth, dtype=np.float32))
    side = len(values) // PATCH
    if layout == "blocks":
        values = values.view(side, PATCH, side, PATCH).transpose(1, 2)
    return values.reshape(side * side, PATCH * PATCH)


def hog(depth: np.ndarray) -> Tensor:
    """8 values of each patch: histograms of oriented gradients (Dalal & Triggs, CVPR 2005), one cell to a block."""
    from skimage import feature

    cells = feature.hog(
        depth, orientations=ORIENTATIONS, pixels_per_cell=(PATCH, PATCH), cells_per_block=(1, 1), feature_vector=False
    )
    return torch.from_numpy(cells.reshape(-1, ORIENTATIONS).astype(np.float32))


def pooled_sift(depth: np.ndarray) -> Tensor:
    """128 values of each patch, means of `dense_sift`."""
    maps = dense_sift(torch.from_numpy(np.ascontiguousarray(depth, dtype=np.float32)))
    return pool(maps[None], len(depth) // PATCH)[0].flatten(1).T.contiguous()


def dense_sift(image: Tensor) -> Tensor:
    """SIFT descriptors (Lowe, IJCV 2004) at every pixel: (H, W) -> (128, H, W), float32.

    As kornia's DenseSIFTDescriptor had them in 2022, a copy of which BTF's code uses: histograms of 8 orientations,
    weighted by the gradient's length, in 4 x 4 bins of 4 pixels, whose weights fall from their middle. The bins lie one
    pixel apart; later versions of kornia put them four apart, as Lowe does. Zeros beyond the image. Normalised, clipped
    at 0.2, normalised again, and RootSIFT (Arandjelovic & Zisserman, CVPR 2012): the root of the values that sum to 1.
    Channels: orientation, then row and column of the bin.
    """
    padded = F.pad(image[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    dx, dy = (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2, (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2
    length = torch.sqrt(dx * dx + dy * dy + _EPS)
    turn = (torch.atan2(dy, dx + _EPS) / (2 * math.pi) + 1) * ORIENTATIONS
    lower = turn.floor()
    share = turn - lower
    histogram = image.new_zeros(ORIENTATIONS, *image.shape)
    for number, part in ((lower, 1 - share), (lower + 1, share)):
        histogram.scatter_add_(0, (number.long() % ORIENTATIONS)[None], (part * length)[None])
    ramp = 1 - (torch.arange(SIFT_BIN_SIZE) + 0.5 - SIFT_BIN_SIZE / 2).abs() / (SIFT_BIN_SIZE / 2)
    kernel = torch.outer(ramp, ramp).to(image)[None, None]
    bins = F.conv2d(histogram[:, None], kernel, padding=SIFT_BIN_SIZE // 2).transpose(0, 1)  # (1, 8, H + 1, W + 1)
    around = F.unfold(bins, SIFT_BINS, padding=1)[0]  # (128, H * W)
    around = F.normalize(F.normalize(around, dim=0).clamp(max=SIFT_CLIP), dim=0)
    return torch.sqrt(F.normalize(around, p=1, dim=0) + _EPS).view(-1, *image.shape)
