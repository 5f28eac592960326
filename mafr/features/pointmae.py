"""Point-MAE's encoder: the published one, and a small one with the same layout of keys.

Pang et al., "Masked Autoencoders for Point Cloud Self-supervised Learning", ECCV 2022.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from mafr.errors import ConfigError, WeightsError
from mafr.features.transformer import Attention, Mlp
from mafr.features.weights.files import POINTMAE, NumpyValue, read_checkpoint, reading

_SAVE = 'torch.save({"base_model": model.state_dict()}, FILE)'
_POINTS_A_CHUNK = 8_192  # keeps the mini-PointNet's activations (8 MB each at the published widths) in the cache
_POINTS_A_CHUNK_CUDA = 262_144  # fewer, larger kernels; some 600 MB


@dataclass(frozen=True)
class PointMAEShape:
    """Widths of the encoder and the scaling of its input. The defaults are the published ones."""

    width: int = 384
    depth: int = 12
    heads: int = 6
    taps: tuple[int, ...] = (4, 8, 12)  # blocks (from 1) whose outputs are the features
    first: tuple[int, int] = (128, 256)
    second: int = 512
    position: int = 128
    units_per_metre: float = 0.0  # scale of the centres, from the cloud's mean; 0: coordinates as they come, in metres
    # Neighbourhoods are divided by the median of their radii: their shape does not depend on the points' density.
    unit_patches: bool = False

    @property
    def dim(self) -> int:
        """Channels of the features: the taps' widths together."""
        return self.width * len(self.taps)


PUBLISHED = PointMAEShape()
SMALL = PointMAEShape(
    width=64, depth=6, heads=4, taps=(2, 4, 6), first=(64, 128), second=256, position=64,
    units_per_metre=40.0, unit_patches=True,
)  # fmt: skip

# The blocks (from 1) that the code of CFM (CVPR 2024) taps, by the number of the published 12 that it keeps.
_PRUNED_TAPS = {8: (2, 5, 8), 4: (2, 3, 4)}


def pruned(shape: PointMAEShape, blocks: int) -> PointMAEShape:
    """The encoder with only its first blocks (0: all), tapped as by CFM; shallow ones to scale, rounded up.

    Raises ConfigError where CFM gives no three taps for this share of the blocks.
    """
    if blocks in (0, shape.depth):
        return shape
    published = _PRUNED_TAPS.get(blocks * PUBLISHED.depth / shape.depth, ())
    taps = tuple(-(-tap * shape.depth // PUBLISHED.depth) for tap in published)
    if len(set(taps)) < len(PUBLISHED.taps):
        raise ConfigError(
            f"point_blocks {blocks} of {shape.depth}: only two thirds of the blocks, or of twelve a third, can be kept"
        )
    return dataclasses.replace(shape, depth=blocks, taps=taps)


class MiniPointNet(nn.Module):
    """One token per group of points; `first_conv` and `second_conv` as in the published checkpoint."""

    products = torch.float32  # the type of its matrix products, see `mafr.features.extract.in_bfloat16`
    own_statistics = False  # whether BatchNorm takes those of the groups at hand instead of the running ones

    def __init__(self, shape: PointMAEShape) -> None:
        super().__init__()
        inner, outer = shape.first
        self.first_conv = nn.Sequential(
            nn.Conv1d(3, inner, 1), nn.BatchNorm1d(inner), nn.ReLU(), nn.Conv1d(inner, outer, 1)
        )
        self.second_conv = nn.Sequential(
            nn.Conv1d(2 * outer, shape.second, 1),
            nn.BatchNorm1d(shape.second),
            nn.ReLU(),
            nn.Conv1d(shape.second, shape.width, 1),
        )

    def forward(self, patches: Tensor) -> Tensor:
        """patches (N, M, 3), relative to their centres; with `own_statistics` those of one sample.

        Returns (N, width) float32.
        """
        if self.training:  # in pretraining, where BatchNorm also keeps running statistics: all points at once
            return self._tokens(patches, self._layers())
        points = _POINTS_A_CHUNK if patches.device.type == "cpu" else _POINTS_A_CHUNK_CUDA
        parts = patches.split(max(1, points // patches.shape[1]))
        if self.own_statistics:
            return self._tokens_by_own_statistics(patches, parts)
        layers = self._layers()
        return torch.cat([self._tokens(part, layers) for part in parts])

    def _layers(self) -> list[tuple[Tensor, Tensor]]:
        """Weight and bias of the four layers, BatchNorm taken into the first of each pair in eval mode."""
        pairs = [(conv, norm) for conv, norm, *_ in (self.first_conv, self.second_conv)]
        if self.training:
            return self._in_products(*(_as_linear(conv) for conv, _ in pairs))
        return self._in_products(*(_folded(conv, n, n.running_mean, n.running_var) for conv, n in pairs))

    def _in_products(self, first: tuple[Tensor, Tensor], third: tuple[Tensor, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """The four layers, of which two are given, in the type of the products."""
        layers = [_as_linear(self.first_conv[3]), third, _as_linear(self.second_conv[3])]
        # The first layer takes coordinates, to which bfloat16 would be too coarse.
        return [first] + [tuple(tensor.to(self.products) for tensor in layer) for layer in layers]

    def _tokens(self, patches: Tensor, layers: list[tuple[Tensor, Tensor]]) -> Tensor:
        hidden = self._hidden(patches, layers)
        if self.training:
            hidden = self.second_conv[1](hidden.flatten(0, 1).float()).view(hidden.shape)
        return F.linear(F.relu_(hidden).to(self.products), *layers[3]).amax(dim=1).float()

    def _hidden(self, patches: Tensor, layers: list[tuple[Tensor, Tensor]]) -> Tensor:
        """The third layer's output, (N, M, second)."""
        groups, size, _ = patches.shape
        hidden = F.linear(patches.reshape(-1, 3), *layers[0])
        if self.training:
            hidden = self.first_conv[1](hidden)
        local = F.linear(F.relu_(hidden).to(self.products), *layers[1]).view(groups, size, -1)
        whole = local.amax(dim=1)
        # The group's maximum comes first in the concatenation. A linear layer of a concatenation is the sum of
        # two: the maximum's half is computed once per group instead of once per point.
        half = whole.shape[1]
        weight, bias = layers[2]
        return F.linear(local, weight[:, half:]).add_(F.linear(whole, weight[:, :half], bias)[:, None])

    def _tokens_by_own_statistics(self, patches: Tensor, parts: Sequence[Tensor]) -> Tensor:
        """As in eval mode, but BatchNorm by mean and biased variance over all points of `patches`; parts: of them.

        The first one's follow from those of the coordinates and fold into the layer before it, as in eval mode. The
        second one's need all points: the values before it are kept from a first pass and used up in a second.
        """
        conv, norm = self.first_conv[:2]
        first = _folded(conv, norm, *_statistics_of_linear(conv, patches.reshape(-1, 3)))
        layers = self._in_products(first, _as_linear(self.second_conv[0]))
        kept = [self._hidden(part, layers).flatten(0, 1) for part in parts]
        norm, (mean, variance) = self.second_conv[1], _statistics(kept)
        tokens = []
        for part in parts:
            hidden = F.batch_norm(kept.pop(0), mean, variance, norm.weight, norm.bias, eps=norm.eps)
            tokens.append(F.linear(F.relu_(hidden), *layers[3]).view(*part.shape[:2], -1).amax(dim=1).float())
        return torch.cat(tokens)


class Block(nn.Module):
    """Pre-norm transformer block whose branches can be dropped (stochastic depth)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)  # query, key and value share one matrix without a bias
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, x: Tensor, drop: float = 0.0, generator: torch.Generator | None = None) -> Tensor:
        """x (B, G, width); each branch of each cloud is left out with probability `drop`."""
        x = x + _keep(self.attn(self.norm1(x)), drop, generator)
        return x + _keep(self.mlp(self.norm2(x)), drop, generator)


class PointMAE(nn.Module):
    """The encoder, from scaled groups of points to features; in eval mode when built."""

    def __init__(self, shape: PointMAEShape = PUBLISHED) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = MiniPointNet(shape)
        self.pos_embed = nn.Sequential(nn.Linear(3, shape.position), nn.GELU(), nn.Linear(shape.position, shape.width))
        blocks = nn.ModuleList(Block(shape.width, shape.heads) for _ in range(shape.depth))
        self.blocks = nn.ModuleDict({"blocks": blocks})  # the published keys are `blocks.blocks.N`
        self.norm = nn.LayerNorm(shape.width)
        self.eval()

    def prune(self, blocks: int) -> None:
        """Keep only the first blocks (0: all), see `pruned`."""
        self.shape = pruned(self.shape, blocks)
        self.blocks.blocks = self.blocks.blocks[: self.shape.depth]

    def scale(self, patches: Tensor, centres: Tensor, middle: Tensor) -> tuple[Tensor, Tensor]:
        """Patches (B, G, M, 3) and centres (B, G, 3) in metres, scaled as in pretraining; middle: (B, 3), means."""
        if self.shape.units_per_metre:
            centres = (centres - middle[:, None]) * self.shape.units_per_metre
        if self.shape.unit_patches:
            radii = patches.square().sum(-1).amax(-1).sqrt()  # (B, G)
            patches = patches / radii.median(dim=1).values.clamp_min(1e-9)[:, None, None, None]
        return patches, centres

    def embed(self, patches: Tensor) -> Tensor:
        """(B, G, M, 3) -> tokens (B, G, width)."""
        if self.encoder.own_statistics:
            return torch.stack([self.encoder(sample) for sample in patches])
        B, G = patches.shape[:2]
        return self.encoder(patches.flatten(0, 1)).view(B, G, -1)

    def encode(
        self, tokens: Tensor, centres: Tensor, drop_path: float = 0.0, generator: torch.Generator | None = None
    ) -> list[Tensor]:
        """Outputs of the tapped blocks, each (B, G, width), before the final norm.

        drop_path: probability of a dropped branch in the last block; it rises linearly from 0 in the first.
        """
        position = self.pos_embed(centres)
        outputs, x, depth = [], tokens, self.shape.depth
        for number, block in enumerate(self.blocks.blocks, start=1):
            x = block(x + position, drop_path * (number - 1) / max(1, depth - 1), generator)
            if number in self.shape.taps:
                outputs.append(x)
        return outputs

    def forward(
        self, patches: Tensor, centres: Tensor, drop_path: float = 0.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Scaled patches (B, G, M, 3) and centres (B, G, 3) -> features (B, G, taps x width); all taps share a norm."""
        outputs = self.encode(self.embed(patches), centres, drop_path, generator)
        return torch.cat([self.norm(output) for output in outputs], dim=-1)


def batch_statistics(model: PointMAE) -> None:
    """Put BatchNorm on the statistics of each sample's own groups: mean and biased variance over all their points.

    So does the released code, which never calls `eval`; the running statistics stay as they are.
    """
    model.encoder.own_statistics = True


def load_checkpoint(path: Path) -> PointMAE:
    """The encoder from the published `pretrain.pth` or from a safetensors file of this package.

    Raises WeightsError where the file is missing or unreadable, or an encoder tensor is missing or has another shape.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: there is no such file; it should hold Point-MAE weights")
    if path.suffix == ".safetensors":
        shape, tensors = _read_safetensors(path)
    else:
        shape, tensors = PUBLISHED, _read_published(path)
    with reading(path, POINTMAE.title):  # a damaged file may name an impossible architecture
        model = PointMAE(shape)
    wanted = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    wrong = [f"{k} is missing" for k in wanted if k not in tensors]
    wrong += [
        f"{k} has shape {tuple(tensors[k].shape)} instead of {tuple(v.shape)}"
        for k, v in wanted.items()
        if k in tensors and tensors[k].shape != v.shape
    ]
    if wrong:
        raise WeightsError(f"{path}: not the Point-MAE encoder that was expected: " + "; ".join(wrong))
    model.load_state_dict({k: tensors[k].float() for k in wanted}, strict=False)
    return model.eval()


def shape_as_json(shape: PointMAEShape) -> str:
    """The architecture as it is written into a weight file."""
    return json.dumps(dataclasses.asdict(shape), sort_keys=True)


def _read_safetensors(path: Path) -> tuple[PointMAEShape, dict[str, Tensor]]:
    with reading(path, POINTMAE.title), safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    try:
        values = json.loads(metadata["architecture"])
        lists = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return PointMAEShape(**lists), tensors
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(f"{path}: does not say its architecture; write it with `mafr pretrain-points`") from error


def _read_published(path: Path) -> dict[str, Tensor]:
    """The tensors `base_model` / `[module.]MAE_encoder.*` of the published file; the decoder's are left out."""
    content = read_checkpoint(path, POINTMAE.title, save=_SAVE)
    weights = content.get("base_model") if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping):
        raise WeightsError(
            f"{path}: a checkpoint of Point-MAE has an entry 'base_model', this file has none; download it again"
        )
    if any(isinstance(value, NumpyValue) for value in weights.values()):
        raise WeightsError(f"{path}: the weights are NumPy arrays; save tensors where it was made: {_SAVE}")
    plain = {str(k).removeprefix("module."): v for k, v in weights.items() if isinstance(v, Tensor)}
    return {k.removeprefix("MAE_encoder."): v for k, v in plain.items() if k.startswith("MAE_encoder.")}


def _as_linear(conv: nn.Conv1d) -> tuple[Tensor, Tensor]:
    return conv.weight.squeeze(-1), conv.bias


def _folded(conv: nn.Conv1d, norm: nn.BatchNorm1d, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of `norm` after `conv`, a linear map for given statistics; float32."""
    weight, bias = _as_linear(conv)
    factor = norm.weight * torch.rsqrt(variance + norm.eps)
    return (weight * factor[:, None]).float(), ((bias - mean) * factor + norm.bias).float()


def _statistics_of_linear(conv: nn.Conv1d, points: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each output channel over points (P, 3), from the points' own; float64."""
    weight, bias = (tensor.double() for tensor in _as_linear(conv))
    points = points.double()
    mean = points.mean(dim=0)
    centred = points - mean
    covariance = centred.mT @ centred / len(points)
    return weight @ mean + bias, (weight @ covariance * weight).sum(dim=1)


def _statistics(parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel over the rows of all parts (n, C), float32."""
    count, mean, squares = 0, 0.0, 0.0  # squares: of the deviations, summed
    for part in parts:
        rows = len(part)
        own, variance = torch.zeros(2, part.shape[1], device=part.device)
        # At momentum 1 the running statistics become the rows' own, in the quickest two passes that torch has.
        F.batch_norm(part, own, variance, training=True, momentum=1.0)
        shift, total = own.double() - mean, count + rows
        squares = squares + variance.double() * (rows - 1) + shift**2 * (count * rows / total)
        mean, count = mean + shift * (rows / total), total
    return mean.float(), (squares / count).float()


def _keep(branch: Tensor, drop: float, generator: torch.Generator | None) -> Tensor:
    if not drop:
        return branch
    kept = torch.rand(len(branch), 1, 1, generator=generator) >= drop
    return branch * kept.to(branch.device, branch.dtype) / (1.0 - drop)
