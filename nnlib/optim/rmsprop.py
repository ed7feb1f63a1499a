"""RMSprop."""

from __future__ import annotations

from nnlib.config.options import RMSpropOptions
from nnlib.config.schema import Train
from nnlib.config.section import options_of
from nnlib.core.layout import Layout
from nnlib.optim.blocked import BLOCK_ELEMENTS, Block, BlockedOptimizer


class RMSprop(BlockedOptimizer):
    """RMSprop (Tieleman and Hinton 2012, lecture 6.5; centered: Graves 2013, section 2.2), as PyTorch takes it.

    s = alpha s + (1 - alpha) g^2; d = g / (sqrt(s) + epsilon); w -= lr d. Centered: a = alpha a + (1 - alpha) g, and
    sqrt(s - a^2) in place of sqrt(s), 0 where rounding makes s less than a^2. With momentum: v = mu v + d; w -= lr v.
    """

    def __init__(self, train: Train, layout: Layout, block_elements: int = BLOCK_ELEMENTS) -> None:
        options = options_of(train, RMSpropOptions)
        self._alpha, self._epsilon = options.alpha, options.epsilon
        self._momentum, self._centered = options.momentum, options.centered
        vectors = {"rmsprop.s": True, "rmsprop.a": self._centered, "rmsprop.velocity": self._momentum > 0.0}
        self.vectors = tuple(name for name, is_used in vectors.items() if is_used)
        super().__init__(train, layout, block_elements)

    def _update(self, block: Block, lr: float) -> None:
        ops = self._ops
        gradient, scratch, squares = block.gradient, block.scratch, block.states[0]
        ops.multiply(squares, self._alpha, out=squares)
        ops.multiply(gradient, gradient, out=scratch)
        ops.multiply(scratch, 1.0 - self._alpha, out=scratch)
        ops.add(squares, scratch, out=squares)
        if self._centered:
            self._variance(block)
            ops.sqrt(scratch, out=scratch)
        else:
            ops.sqrt(squares, out=scratch)
        ops.add(scratch, self._epsilon, out=scratch)
        ops.divide(gradient, scratch, out=gradient)
        if self._momentum > 0.0:
            velocity = block.states[-1]
            ops.multiply(velocity, self._momentum, out=velocity)
            ops.add(velocity, gradient, out=velocity)
            ops.multiply(velocity, lr, out=gradient)
        else:
            ops.multiply(gradient, lr, out=gradient)
        ops.subtract(block.flat, gradient, out=block.flat)

    def _variance(self, block: Block) -> None:
        """Update a; write s - a^2 into scratch."""
        ops = self._ops
        squares, mean = block.states[:2]
        ops.multiply(mean, self._alpha, out=mean)
        ops.multiply(block.gradient, 1.0 - self._alpha, out=block.scratch)
        ops.add(mean, block.scratch, out=mean)
        ops.multiply(mean, mean, out=block.scratch)
        ops.subtract(squares, block.scratch, out=block.scratch)
        ops.maximum(block.scratch, 0.0, out=block.scratch)
