"""SGD, momentum and Nesterov's momentum."""

from __future__ import annotations

from nnlib.config.options import MomentumOptions
from nnlib.config.schema import Train
from nnlib.config.section import options_of
from nnlib.core.layout import Layout
from nnlib.optim.blocked import BLOCK_ELEMENTS, Block, BlockedOptimizer


class SGD(BlockedOptimizer):
    """w -= lr g."""

    def _update(self, block: Block, lr: float) -> None:
        ops = self._ops
        ops.multiply(block.gradient, lr, out=block.gradient)
        ops.subtract(block.flat, block.gradient, out=block.flat)


class Momentum(BlockedOptimizer):
    """The heavy ball (Polak 1964): v = mu v + g; w -= lr v."""

    vectors = ("momentum.velocity",)

    def __init__(self, train: Train, layout: Layout, block_elements: int = BLOCK_ELEMENTS) -> None:
        super().__init__(train, layout, block_elements)
        self._momentum = options_of(train, MomentumOptions).momentum

    def _update(self, block: Block, lr: float) -> None:
        ops = self._ops
        velocity = block.states[0]
        ops.multiply(velocity, self._momentum, out=velocity)
        ops.add(velocity, block.gradient, out=velocity)
        ops.multiply(velocity, lr, out=block.gradient)
        ops.subtract(block.flat, block.gradient, out=block.flat)


class Nesterov(Momentum):
    """Nesterov's momentum as in Sutskever et al. 2013 and PyTorch: v = mu v + g; w -= lr (g + mu v)."""

    vectors = ("nesterov.velocity",)

    def _update(self, block: Block, lr: float) -> None:
        ops = self._ops
        velocity = block.states[0]
        ops.multiply(velocity, self._momentum, out=velocity)
        ops.add(velocity, block.gradient, out=velocity)
        ops.multiply(velocity, self._momentum, out=block.scratch)
        ops.add(block.gradient, block.scratch, out=block.gradient)
        ops.multiply(block.gradient, lr, out=block.gradient)
        ops.subtract(block.flat, block.gradient, out=block.flat)
