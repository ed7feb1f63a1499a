"""The two nets of "Parallelization of Neural Networks" (Talal and Beena): a small perceptron and a small CNN."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from nnlib.torch.widths import hidden_widths


class SimpleNN(nn.Module):
    """fc1 (features to 50), ReLU, fc2 (50 to classes)."""

    def __init__(self, features: int, outputs: int, hidden: int = 50) -> None:
        super().__init__()
        self.fc1 = nn.Linear(features, hidden)
        self.fc2 = nn.Linear(hidden, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (b, features) to logits (b, outputs)."""
        z: torch.Tensor = self.fc2(functional.relu(self.fc1(x.flatten(1))))
        return z


class SimpleCNN(nn.Module):
    """Two convolutions of 3 x 3 (the paper: 32 and 64 channels), each with ReLU and 2 x 2 max pooling; then two layers
    (128 and 64 units) and the classes. Images and kernels lie in memory channels last, which oneDNN computes faster."""

    def __init__(
        self,
        channels: int,
        height: int,
        width: int,
        outputs: int,
        widths: Sequence[int] = (32, 64),
        hidden: Sequence[int] = (128, 64),
    ) -> None:
        """``widths``: channels that the convolutions make; ``hidden``: units of the two layers behind them."""
        super().__init__()
        self.conv1 = nn.Conv2d(channels, widths[0], kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(widths[0], widths[1], kernel_size=3, padding=1)
        self.pool = nn.MaxPool2d(2, 2)
        self.fc1 = nn.Linear(widths[1] * (height // 4) * (width // 4), hidden[0])
        self.fc2 = nn.Linear(hidden[0], hidden[1])
        self.fc3 = nn.Linear(hidden[1], outputs)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (b, channels, height, width) to logits (b, outputs)."""
        x = x.contiguous(memory_format=torch.channels_last)
        # The paper pools behind the ReLU. Both orders have the same bits, forward and backward, for ReLU never changes
        # which number is larger; this one has a quarter of the numbers to look at.
        x = functional.relu(self.pool(self.conv1(x)))
        x = functional.relu(self.pool(self.conv2(x)))
        x = functional.relu(self.fc1(x.flatten(1)))
        z: torch.Tensor = self.fc3(functional.relu(self.fc2(x)))
        return z


@hidden_widths("hidden")
def build_simple_nn(hidden: int = 50, *, shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Build the paper's SimpleNN."""
    return SimpleNN(math.prod(shape), outputs, hidden)


@hidden_widths("channels", "hidden")
def build_simple_cnn(
    channels: Sequence[int] = (32, 64),
    hidden: Sequence[int] = (128, 64),
    *,
    shape: tuple[int, ...],
    outputs: int,
) -> nn.Module:
    """Build the paper's SimpleCNN, or one of other widths, for images of at least 4 x 4."""
    if len(shape) != 3 or min(shape[1:]) < 4:
        raise ValueError(f"images of at least 4 x 4 are needed, rows have shape {shape}")
    if len(channels) != 2 or len(hidden) != 2:
        raise ValueError(f"channels and hidden have two widths each, got {channels} and {hidden}")
    return SimpleCNN(*shape, outputs, channels, hidden)
