"""The MAFR head: fusion encoder, CBAM and the two restoration decoders (Sec. III-B, IV-A).

This is the method as the paper writes it down, on dense maps and all pixels. Training and scoring run the equivalent
`mafr.fast` with the same weights; its tests compare the two.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mafr.config import Config


class Pixels:
    """The pixels of a batch of maps as rows, and which of them count in pooling."""

    def __init__(self, shape: torch.Size | tuple[int, ...], valid: Tensor | None) -> None:
        """`shape` is that of a (B, C, H, W) map; `valid` (B, 1, H, W) bool, or None for all pixels."""
        self.batch, _, self.height, self.width = shape
        self.valid = valid

    def gather(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B·H·W, C)."""
        return x.permute(0, 2, 3, 1).reshape(self.batch * self.height * self.width, -1)

    def scatter(self, rows: Tensor) -> Tensor:
        """(B·H·W, C) -> (B, C, H, W), zeros where no pixel counts."""
        maps = rows.reshape(self.batch, self.height, self.width, -1).permute(0, 3, 1, 2)
        return maps if self.valid is None else maps * self.valid

    def samples(self, rows: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Per sample: all its rows (H·W, C), and those that count."""
        each = rows.split(self.height * self.width)
        if self.valid is None:
            return [(part, part) for part in each]
        return [(part, part[mask.reshape(-1)]) for part, mask in zip(each, self.valid, strict=True)]


class ChannelAttention(nn.Module):
    """sigmoid(MLP(average) + MLP(maximum)) with a shared MLP C -> C // reduction -> C."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.fc = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))

    def forward(self, average: Tensor, maximum: Tensor) -> Tensor:
        return torch.sigmoid(self.fc(average) + self.fc(maximum))


class SpatialAttention(nn.Module):
    """sigmoid(conv([channel mean, channel maximum])) with one kernel x kernel convolution, no bias."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, summary: Tensor) -> Tensor:
        """(B, 2, H, W) -> (B, 1, H, W)."""
        return torch.sigmoid(self.conv(summary))


class CBAM(nn.Module):
    """Convolutional block attention: channel, then spatial attention (Sec. III-B2).

    scope="map" (paper) pools and convolves over the H x W map; scope="pixel" (released code) treats every
    pixel as a 1 x 1 map, where both poolings agree and only the kernel's centre taps act; scope="none" (an ablation
    that the paper does not have) learns nothing and passes the map on as it is.
    """

    def __init__(self, channels: int, reduction: int = 16, kernel: int = 7, scope: str = "map") -> None:
        super().__init__()
        if scope not in ("map", "pixel", "none"):
            raise ValueError(f"scope must be 'map', 'pixel' or 'none', not {scope!r}")
        self.scope = scope
        if scope == "none":
            return
        self.channel_attention = ChannelAttention(channels, reduction)
        self.spatial_attention = SpatialAttention(kernel)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """(B, C, H, W) -> the same shape. With `valid`, pools over valid pixels; zeros elsewhere."""
        pixels = Pixels(x.shape, valid)
        return pixels.scatter(self.attend(pixels.gather(x), pixels))

    def attend(self, rows: Tensor, pixels: Pixels) -> Tensor:
        """The same on rows: (P, C) -> (P, C)."""
        if self.scope == "none":
            return rows
        if self.scope == "pixel":
            return self._attend_each(rows[:, :, None, None]).flatten(1)
        gated = []
        for part, counted in pixels.samples(rows):
            gate = self.channel_attention(counted.mean(dim=0), counted.amax(dim=0)) if len(counted) else 1.0
            gated.append(part * gate)
        rows = torch.cat(gated)
        return rows * pixels.gather(self.spatial_attention(pixels.scatter(mean_and_max(rows))))

    def _attend_each(self, x: Tensor) -> Tensor:
        """(P, C, 1, 1), one map per pixel, each pooled and convolved -> the same shape."""
        average, maximum = F.adaptive_avg_pool2d(x, 1).flatten(1), F.adaptive_max_pool2d(x, 1).flatten(1)
        x = x * self.channel_attention(average, maximum)[:, :, None, None]
        return x * self.spatial_attention(mean_and_max(x))


class FusionEncoder(nn.Module):
    """Concatenated features -> fused embedding: three fully connected layers (eq. 1)."""

    def __init__(self, in_dim: int, out_dim: int, dropout: float = 0.1, shared_norm: bool = False) -> None:
        super().__init__()
        self.input_fc = nn.Linear(in_dim, out_dim)
        self.layers = nn.ModuleList([nn.Linear(out_dim, out_dim)])
        self.output_fc = nn.Linear(out_dim, out_dim)
        self.layer_norm = _norms(out_dim, 2, shared_norm)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """(P, in_dim) -> (P, out_dim)."""
        for k, layer in enumerate([self.input_fc, *self.layers]):
            x = norm_of(self.layer_norm, k)(F.gelu(layer(x)))
            x = F.dropout(x, self.dropout, self.training)
        return self.output_fc(x)


class RestorationDecoder(nn.Module):
    """Fused embedding -> one modality's features: MLP, CBAM, output layer, linear skip (eq. 2).

    `layers` counts the fully connected layers: 3 in the paper, 4 in the released code. `order` is
    "gelu-norm" (paper) or "norm-gelu" (released code).
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        layers: int = 3,
        order: str = "gelu-norm",
        shared_norm: bool = False,
        dropout: float = 0.1,
        reduction: int = 16,
        kernel: int = 7,
        scope: str = "map",
    ) -> None:
        super().__init__()
        self.input_fc = nn.Linear(in_dim, out_dim)
        self.layers = nn.ModuleList(nn.Linear(out_dim, out_dim) for _ in range(layers - 2))
        self.output_fc = nn.Linear(out_dim, out_dim)
        self.skip = nn.Linear(in_dim, out_dim)
        self.norm = _norms(out_dim, layers - 1, shared_norm)
        self.cbam = CBAM(out_dim, reduction, kernel, scope)
        self.order = order
        self.dropout = dropout

    def forward(self, fused: Tensor, pixels: Pixels) -> Tensor:
        """(P, in_dim) -> (P, out_dim)."""
        x = fused
        for k, layer in enumerate([self.input_fc, *self.layers]):
            norm = norm_of(self.norm, k)
            x = norm(F.gelu(layer(x))) if self.order == "gelu-norm" else F.gelu(norm(layer(x)))
            x = F.dropout(x, self.dropout, self.training)
        return self.output_fc(self.cbam.attend(x, pixels)) + self.skip(fused)


class MAFR(nn.Module):
    """Fusion encoder and two decoupled restoration decoders (Fig. 1)."""

    def __init__(
        self,
        rgb_dim: int,
        xyz_dim: int,
        fused_dim: int,
        dropout: float = 0.1,
        decoder_layers: int = 3,
        decoder_order: str = "gelu-norm",
        shared_norm: bool = False,
        cbam_scope: str = "map",
        cbam_reduction: int = 16,
        cbam_kernel: int = 7,
    ) -> None:
        super().__init__()
        decoder = (decoder_layers, decoder_order, shared_norm, dropout, cbam_reduction, cbam_kernel, cbam_scope)
        self.encoder = FusionEncoder(rgb_dim + xyz_dim, fused_dim, dropout, shared_norm)
        self.decoder_rgb = RestorationDecoder(fused_dim, rgb_dim, *decoder)
        self.decoder_xyz = RestorationDecoder(fused_dim, xyz_dim, *decoder)

    @classmethod
    def from_config(cls, config: Config) -> MAFR:
        """The untrained head of a configuration; its weights come from torch's current random state."""
        return cls(
            config.rgb_dim, config.xyz_dim, config.width, config.dropout, config.decoder_layers, config.decoder_order,
            config.shared_norm, config.cbam_scope, config.cbam_reduction, config.cbam_kernel,
        )  # fmt: skip

    def forward(self, e_rgb: Tensor, e_xyz: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, C2, H, W), (B, C3, H, W) -> restored maps of the same shapes.

        With `valid` (B, 1, H, W) attention sees only these pixels, and the rest of the output is zero.
        """
        pixels = Pixels(e_rgb.shape, valid)
        fused = self.encoder(torch.cat([pixels.gather(e_rgb), pixels.gather(e_xyz)], dim=1))
        e_rgb_hat = pixels.scatter(self.decoder_rgb(fused, pixels))
        return e_rgb_hat, pixels.scatter(self.decoder_xyz(fused, pixels))


def mean_and_max(x: Tensor) -> Tensor:
    """Mean and maximum over the channels: (P, C, …) -> (P, 2, …)."""
    return torch.stack([x.mean(dim=1), x.amax(dim=1)], dim=1)


def _norms(width: int, count: int, shared: bool) -> nn.Module:
    return nn.LayerNorm(width) if shared else nn.ModuleList(nn.LayerNorm(width) for _ in range(count))


def norm_of(norms: nn.Module, k: int) -> nn.LayerNorm:
    """The norm of layer k of a block; the released code has one per block."""
    return norms[k] if isinstance(norms, nn.ModuleList) else norms
