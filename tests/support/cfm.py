"""CFM with drawn weights, and the same mappings as plain networks."""

from __future__ import annotations

import torch
from torch import nn

from mafr.baselines.cfm import CFM
from mafr.config import Config


def method_of(config: Config, seed: int = 5) -> CFM:
    """An untrained CFM whose maps hold drawn weights."""
    method = CFM(config)
    torch.manual_seed(seed)
    rgb_dim, xyz_dim = config.rgb_dim, config.xyz_dim
    plain = {"to_rgb": plain_mapping(xyz_dim, rgb_dim), "to_xyz": plain_mapping(rgb_dim, xyz_dim)}
    layers = {"first": 0, "second": 2, "last": 4}
    state = {
        f"{way}.{layer}.{kind}": getattr(net[number], kind).detach().clone()
        for way, net in plain.items()
        for layer, number in layers.items()
        for kind in ("weight", "bias")
    }
    method.restore(state)
    method.plain = nn.ModuleDict(plain)
    return method


def plain_mapping(inputs: int, outputs: int) -> nn.Sequential:
    """Sec. 3.2: three linear layers, GELU between them."""
    hidden = (inputs + outputs) // 2
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, outputs)
    )
