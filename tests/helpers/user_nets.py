"""A user's own module in two files, with everything that a module may hold: trained, tied and frozen parameters, float
and integer buffers, one that no file keeps, and a tensor of the file itself."""

from __future__ import annotations

from pathlib import Path

BLOCKS = """
import torch
from torch import nn


class Head(nn.Module):
    def __init__(self, width, outputs):
        super().__init__()
        self.left = nn.Linear(width, outputs)
        self.right = nn.Linear(width, outputs, bias=False)
        self.right.weight = self.left.weight
        self.register_buffer("order", torch.arange(width).flip(0))
        self.register_buffer("turn", torch.cos(torch.arange(width) / 3), persistent=False)

    def forward(self, x):
        return self.left(x) + self.right(x[:, self.order] * self.turn)
"""

NETS = """
import math

import torch
from torch import nn

from blocks import Head

HALF = torch.tensor(0.5)


class Halved(nn.Module):
    def forward(self, x):
        return HALF * x


def build(width=6, *, shape, outputs):
    body = nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(shape), width),
        nn.BatchNorm1d(width),
        nn.Tanh(),
        nn.Linear(width, width),
        Halved(),
        Head(width, outputs),
    )
    body[4].requires_grad_(False)
    return body
"""

FROZEN = {"4.weight", "4.bias"}
TIED = ("6.left.weight", "6.right.weight")


def write_nets(folder: Path, nets: str = NETS, blocks: str = BLOCKS) -> list[str]:
    """Write ``nets.py`` and ``blocks.py``; return what `model.files` says of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {"nets.py": nets, "blocks.py": blocks}.items():
        (folder / name).write_text(text)
    return [str(folder / "nets.py"), str(folder / "blocks.py")]
