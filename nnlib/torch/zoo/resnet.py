"""A small residual net for small images (He et al. 2016, "Deep residual learning", section 4.2: the CIFAR nets)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """Two 3 x 3 convolutions with batch normalization, to which the input is added; where channels or size change, a
    1 x 1 convolution fits it."""

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != channels:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (b, inputs, h, w) to (b, channels, h / stride, w / stride)."""
        z = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(x)))))
        return functional.relu(z + self.shortcut(x))


def build_resnet(blocks: int = 1, width: int = 16, *, shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Build a net of 6 * ``blocks`` + 2 layers: three stages of ``width``, 2 and 4 times ``width`` channels."""
    if len(shape) != 3:
        raise ValueError(f"images are needed, rows have shape {shape}")
    layers: list[nn.Module] = [
        nn.Conv2d(shape[0], width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    ]
    inputs = width
    for stage in range(3):
        channels = width * 2**stage
        for index in range(blocks):
            layers.append(Block(inputs, channels, stride=2 if stage > 0 and index == 0 else 1))
            inputs = channels
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, outputs)]
    return _ChannelsLast(layers)


class _ChannelsLast(nn.Sequential):
    """Layers over images, which lie in memory channels last, as the kernels do: oneDNN computes them faster."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__(*layers)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (b, channels, height, width) to logits (b, outputs)."""
        x = x.contiguous(memory_format=torch.channels_last)
        for layer in self:
            x = layer(x)
        return x
