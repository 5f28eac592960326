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
    rgb_dim, xyz_dim, count = config.rgb_dim, config.xyz_dim, config.cfm_layers
    plain = {"to_rgb": plain_mapping(xyz_dim, rgb_dim, count), "to_xyz": plain_mapping(rgb_dim, xyz_dim, count)}
    layers = ["first", "second", *(f"between.{k}" for k in range(count - 3)), "last"]
    state = {
        f"{way}.{layer}.{kind}": getattr(net[2 * number], kind).detach().clone()
        for way, net in plain.items()
        for number, layer in enumerate(layers)
        for kind in ("weight", "bias")
    }
    method.restore(state)
    method.plain = nn.ModuleDict(plain)
    return method


def plain_mapping(inputs: int, outputs: int, layers: int = 3) -> nn.Sequential:
    """Sec. 3.2: linear layers, GELU between them."""
    hidden = (inputs + outputs) // 2
    net = [nn.Linear(inputs, hidden)]
    for _ in range(layers - 2):
        net += [nn.GELU(), nn.Linear(hidden, hidden)]
    return nn.Sequential(*net, nn.GELU(), nn.Linear(hidden, outputs))
