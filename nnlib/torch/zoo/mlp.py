"""The multilayer perceptron as a torch module: the layers of `nnlib.models.mlp`, drawn by torch's own rules."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from torch import nn

from nnlib.torch.widths import hidden_widths

ACTIVATIONS: dict[str, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}


@hidden_widths("hidden")
def build_mlp(
    hidden: Sequence[int] = (100,),
    activation: str = "relu",
    dropout: float = 0.0,
    *,
    shape: tuple[int, ...],
    outputs: int,
) -> nn.Module:
    """Build a perceptron. ``hidden``: widths of the hidden layers; ``dropout``: part of their units dropped in
    training."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    widths = [math.prod(shape), *hidden, outputs]
    layers: list[nn.Module] = [nn.Flatten()]
    for index, (inputs, units) in enumerate(itertools.pairwise(widths)):
        layers.append(nn.Linear(inputs, units))
        if index < len(hidden):
            layers.append(ACTIVATIONS[activation]())
            if dropout:
                layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)
