"""Feature extraction written straightforwardly, in the released code's order: the reference of tests and `mafr bench`.

Nothing else uses it. The steps are those of the code the paper builds on (Point-MAE, M3DM, crossmodal feature
mapping): dense float32 maps, neighbours from a full table of distances, all weights as they come. Only the
distances differ: from coordinate differences instead of expanded squares, so that no neighbour is wrong.
"""

import torch
import torch.nn.functional as F
from torch import nn

from mafr.data.samples import Sample
from mafr.errors import ConfigError
from mafr.features.extract import NEIGHBOURS, FeatureExtractor
from mafr.features.geometry import DISTANCE_EPS
from mafr.features.pointmae import MiniPointNet, PointMAE


@torch.no_grad()
def plain_features(extractor: FeatureExtractor, sample: Sample) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The dense maps of Sec. III-A: e_rgb (1, C, g, g), e_xyz (1, D, g, g), float32, and valid (1, 1, g, g) bool.

    On the extractor's device. The extractor must compute in float32 and without random drop path (any `extractor_mode`
    but "train"); ConfigError otherwise. `densify(extractor.extract(sample), config)` gives the same but for the tokens'
    half precision.
    """
    config = extractor.config
    if extractor.place.half or config.extractor_mode == "train":
        raise ConfigError(
            'the plain path takes an extractor with precision "float32" and extractor_mode "eval" or "batch-statistics"'
        )
    device = extractor.place.device
    rgb = torch.from_numpy(sample.rgb)[None].to(device)
    e_rgb = F.interpolate(extractor.rgb(rgb), size=(config.grid, config.grid), mode="bilinear", align_corners=False)

    organized = torch.from_numpy(sample.xyz).to(device)  # (3, S, S)
    points = organized.flatten(1).T  # (S², 3)
    points = points[(points != 0).any(dim=1)]
    centres = points[plain_farthest_points(points, config.groups, config.skip_origin)]
    distances = plain_distances(centres, points)  # (G, N)
    nearest = distances.topk(config.group_size, largest=False).indices
    patches = points[nearest] - centres[:, None]  # (G, M, 3)
    tokens = plain_point_tokens(extractor.points, patches[None], centres[None], points.mean(dim=0)[None])[0]  # (G, D)

    # A grid coarser than the image takes the point at each cell's central pixel; the paper's grid is the image's.
    step = config.image_size // config.grid
    cells = organized[:, step // 2 :: step, step // 2 :: step].flatten(1).T  # (g², 3)
    occupied = (cells != 0).any(dim=1).nonzero().squeeze(1)
    e_xyz = torch.zeros(config.xyz_dim, config.grid * config.grid, device=device)
    e_xyz[:, occupied] = plain_interpolation(cells[occupied], centres, tokens).T
    e_xyz = e_xyz.view(1, config.xyz_dim, config.grid, config.grid)
    if config.xyz_pool > 1:
        e_xyz = nn.AdaptiveAvgPool2d((config.grid, config.grid))(nn.AvgPool2d(config.xyz_pool, stride=1)(e_xyz))
    # The released code tests the sum; after a final norm it can cancel to zero where there are features.
    valid = (e_xyz != 0).any(dim=1, keepdim=True)
    return e_rgb, e_xyz, valid


def plain_farthest_points(points: torch.Tensor, count: int, skip_origin: bool = False) -> torch.Tensor:
    """points (N, 3) -> (count,) indices of points, each the farthest from those before it, from index 0 on.

    skip_origin: with squared lengths up to 0.001 left out, the first point aside.
    """
    skipped = (points.square().sum(dim=1).double() <= 1e-3) & skip_origin
    chosen = torch.zeros(count, dtype=torch.long, device=points.device)
    nearest = torch.full((len(points),), torch.inf, device=points.device)
    last = torch.zeros((), dtype=torch.long, device=points.device)
    for k in range(count):
        chosen[k] = last
        difference = points - points[last]
        squared = difference[:, 0] ** 2 + difference[:, 1] ** 2 + difference[:, 2] ** 2
        nearest = torch.minimum(nearest, squared)
        last = nearest.masked_fill(skipped, -1).argmax()
    return chosen


def plain_distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a (N, 3), b (M, 3) -> (N, M), the table of all distances, from coordinate differences."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def plain_interpolation(points: torch.Tensor, centres: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """points (N, 3), centres (G, 3), tokens (G, D) -> (N, D): the three nearest, weighted by 1/(d² + 1e-8)."""
    distances, order = plain_distances(points, centres).sort(dim=1)
    distances, order = distances[:, :NEIGHBOURS], order[:, :NEIGHBOURS]
    weights = 1.0 / (distances**2 + DISTANCE_EPS)
    weights = weights / weights.sum(dim=1, keepdim=True)
    return (tokens[order] * weights[:, :, None]).sum(dim=1)


def plain_point_tokens(
    model: PointMAE, patches: torch.Tensor, centres: torch.Tensor, middle: torch.Tensor
) -> torch.Tensor:
    """patches (1, G, M, 3), centres (1, G, 3), metres, middle (1, 3), their mean -> (1, G, D), layer after layer."""
    patches, centres = model.scale(patches, centres, middle)
    x = plain_point_net(model.encoder, patches[0])[None]
    position = model.pos_embed(centres)
    outputs = []
    for number, block in enumerate(model.blocks.blocks, start=1):
        x = x + position
        x = x + _attention(block.attn, block.norm1(x))
        x = x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))
        if number in model.shape.taps:
            outputs.append(model.norm(x))
    return torch.cat(outputs, dim=-1)


def plain_point_net(net: MiniPointNet, patches: torch.Tensor) -> torch.Tensor:
    """patches (G, M, 3) -> (G, width): convolutions over all points, BatchNorm, maxima, concatenation."""
    size = patches.shape[1]
    local = _convolve(net.first_conv, patches.transpose(1, 2), net.own_statistics)  # (G, 256, M)
    whole = local.max(dim=2, keepdim=True).values
    both = torch.cat([whole.expand(-1, -1, size), local], dim=1)  # (G, 512, M)
    return _convolve(net.second_conv, both, net.own_statistics).max(dim=2).values


def _convolve(layers: nn.Sequential, x: torch.Tensor, own_statistics: bool) -> torch.Tensor:
    """One layer after the other; BatchNorm by running statistics, or by those of x as torch's train mode has them."""
    for layer in layers:
        if own_statistics and isinstance(layer, nn.BatchNorm1d):
            x = F.batch_norm(x, None, None, layer.weight, layer.bias, training=True, eps=layer.eps)
        else:
            x = layer(x)
    return x


def _attention(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    B, G, C = x.shape
    q, k, v = layer.qkv(x).reshape(B, G, 3, layer.heads, C // layer.heads).permute(2, 0, 3, 1, 4)
    scores = (q @ k.transpose(-2, -1)) * (C // layer.heads) ** -0.5
    return layer.proj((scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(B, G, C))
