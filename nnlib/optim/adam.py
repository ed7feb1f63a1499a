"""Adam and AdamW."""

from __future__ import annotations

import math

from nnlib.config.options import AdamOptions, AdamWOptions
from nnlib.config.schema import Train
from nnlib.config.section import options_of
from nnlib.core.layout import Layout
from nnlib.optim.blocked import BLOCK_ELEMENTS, Block, BlockedOptimizer


class Adam(BlockedOptimizer):
    """Adam (Kingma and Ba 2015, algorithm 1), the bias corrections taken out of the vectors.

    m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; w -= lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + epsilon).
    The step count t is state too: averaged with m and v it may be a fraction.
    """

    vectors = ("adam.m", "adam.v")
    scalars = ("adam.t",)

    def __init__(self, train: Train, layout: Layout, block_elements: int = BLOCK_ELEMENTS) -> None:
        super().__init__(train, layout, block_elements)
        adam = options_of(train, AdamOptions)
        self._beta1, self._beta2, self._epsilon = adam.beta1, adam.beta2, adam.epsilon
        self._rate = 0.0
        self._root = 1.0

    def _begin(self, lr: float) -> None:
        self.counts[0] += 1.0
        t = float(self.counts[0])
        self._rate = lr / (1.0 - self._beta1**t)
        self._root = math.sqrt(1.0 - self._beta2**t)

    def _update(self, block: Block, lr: float) -> None:
        ops = self._ops
        gradient, scratch = block.gradient, block.scratch
        m, v = block.states
        ops.multiply(m, self._beta1, out=m)
        ops.multiply(gradient, 1.0 - self._beta1, out=scratch)
        ops.add(m, scratch, out=m)
        ops.multiply(v, self._beta2, out=v)
        ops.multiply(gradient, gradient, out=gradient)
        ops.multiply(gradient, 1.0 - self._beta2, out=gradient)
        ops.add(v, gradient, out=v)
        ops.sqrt(v, out=scratch)
        ops.divide(scratch, self._root, out=scratch)
        ops.add(scratch, self._epsilon, out=scratch)
        ops.divide(m, scratch, out=scratch)
        ops.multiply(scratch, self._rate, out=scratch)
        ops.subtract(block.flat, scratch, out=block.flat)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2, as PyTorch takes it).

    Before Adam's step, w *= 1 - lr weight_decay for the arrays that `train.decay` names. The L2 term (`train.l2`) is in
    the gradient.
    """

    vectors = ("adamw.m", "adamw.v")
    scalars = ("adamw.t",)

    def __init__(self, train: Train, layout: Layout, block_elements: int = BLOCK_ELEMENTS) -> None:
        super().__init__(train, layout, block_elements)
        self._weight_decay = options_of(train, AdamWOptions).weight_decay

    def _update(self, block: Block, lr: float) -> None:
        ops = self._ops
        for weights, _, _ in block.decayed:
            ops.multiply(weights, 1.0 - lr * self._weight_decay, out=weights)
        super()._update(block, lr)
