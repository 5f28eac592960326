"""Frozen transformers whose matrix products take bfloat16."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn

from mafr.features.pointmae import PointMAE
from mafr.features.rgb import DinoViTB8


class HalfLinear(nn.Module):
    """A linear layer with bfloat16 weights, input and output; sums are float32 inside the product."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.register_buffer("weight", layer.weight.detach().bfloat16(), persistent=False)
        bias = None if layer.bias is None else layer.bias.detach().bfloat16()
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., in), of any type -> (..., out) bfloat16."""
        return F.linear(x.bfloat16(), self.weight, self.bias)


def in_bfloat16(model: nn.Module) -> nn.Module:
    """The same frozen backbone with bfloat16 products in its transformer and its mini-PointNet, for inference.

    Cast once. What stays float32: the sum that runs through the blocks, LayerNorms, and the first layers, whose
    inputs are coordinates and pixels (half a metre in bfloat16 has steps of 2 mm). `model` is left as it is
    and shares the float32 weights, so that moving one moves both. EfficientNet, small and mostly depthwise, is returned
    as it is.
    """
    if not isinstance(model, DinoViTB8 | PointMAE):
        return model
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    model = copy.deepcopy(model, shared)
    if isinstance(model, PointMAE):
        model.encoder.products = torch.bfloat16
    for block in model.network.blocks if isinstance(model, DinoViTB8) else model.blocks.blocks:
        for parent in list(block.modules()):
            for name, layer in list(parent.named_children()):
                if isinstance(layer, nn.Linear):
                    setattr(parent, name, HalfLinear(layer))
    return model
