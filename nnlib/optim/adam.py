"""Adam and AdamW."""

from __future__ import annotations

import math

import numpy as np

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
        self.state[-1] += 1.0
        t = float(self.state[-1])
        self._rate = lr / (1.0 - self._beta1**t)
        self._root = math.sqrt(1.0 - self._beta2**t)

    def _update(self, block: Block, lr: float) -> None:
        gradient, scratch = block.gradient, block.scratch
        m, v = block.states
        np.multiply(m, self._beta1, out=m)
        np.multiply(gradient, 1.0 - self._beta1, out=scratch)
        np.add(m, scratch, out=m)
        np.multiply(v, self._beta2, out=v)
        np.multiply(gradient, gradient, out=gradient)
        np.multiply(gradient, 1.0 - self._beta2, out=gradient)
        np.add(v, gradient, out=v)
        np.sqrt(v, out=scratch)
        np.divide(scratch, self._root, out=scratch)
        np.add(scratch, self._epsilon, out=scratch)
        np.divide(m, scratch, out=scratch)
        np.multiply(scratch, self._rate, out=scratch)
        np.subtract(block.flat, scratch, out=block.flat)


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
        for weights, _, _ in block.decayed:
            np.multiply(weights, 1.0 - lr * self._weight_decay, out=weights)
        super()._update(block, lr)
