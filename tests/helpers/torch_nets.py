"""Modules with everything that a layout knows: tied, frozen and trained parameters, floating and integer buffers."""

from __future__ import annotations

import torch
from torch import nn


class Everything(nn.Module):
    """A perceptron whose second layer has the weights of its first, behind a frozen layer and a normalization."""

    def __init__(self, features: int, outputs: int, width: int) -> None:
        super().__init__()
        self.frozen = nn.Linear(features, width)
        self.frozen.requires_grad_(False)
        self.norm = nn.BatchNorm1d(width)
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.second.weight = self.first.weight
        self.head = nn.Linear(width, outputs)
        self.register_buffer("order", torch.arange(width).flip(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (b, features) to (b, outputs)."""
        x = self.norm(torch.tanh(self.frozen(x.flatten(1))))
        x = torch.relu(self.second(torch.relu(self.first(x[:, self.get_buffer("order")]))))
        z: torch.Tensor = self.head(x)
        return z


def build_everything(width: int = 6, *, shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Build `Everything` for rows of any shape."""
    features = 1
    for length in shape:
        features *= length
    return Everything(features, outputs, width)


class Impatient(nn.Module):
    """A perceptron that looks at its numbers to decide what to compute: no graph can say that."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(features, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (b, features) to (b, outputs)."""
        z: torch.Tensor = self.layer(x)
        return z if float(z.sum()) > 0.0 else 2.0 * z


def build_impatient(*, shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Build `Impatient`."""
    return Impatient(shape[0], outputs)
