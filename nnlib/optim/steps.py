"""SGD, momentum, Nesterov and Adam, fused in blocks that stay in the processor's cache.

An update of w reads and writes several vectors as long as w. Going through them block by block, all operations of a
block one after another, a large model's update streams each vector through memory once. Every operation is
elementwise, so the block size cannot change a bit.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np

from nnlib.config.options import AdamOptions, MomentumOptions
from nnlib.config.schema import Train
from nnlib.config.section import options_of
from nnlib.core.arrays import Array
from nnlib.core.entries import Entry, optimizer_state
from nnlib.core.layout import Layout, aligned_empty

BLOCK_ELEMENTS = 65_536


class _Block:
    """One range of the vectors, cut once: parameters, gradient, state vectors, scratch, and its weights' parts."""

    def __init__(self, flat: Array, gradient: Array, states: list[Array], scratch: Array, weights: list[slice]) -> None:
        self.flat = flat
        self.gradient = gradient
        self.states = states
        self.scratch = scratch
        self.decayed = [(flat[part], gradient[part], scratch[part]) for part in weights]


class _Blocked:
    """Cuts the vectors into blocks, adds the L2 term's gradient, leaves the rest to `_update`."""

    minimizes: ClassVar[Literal[False]] = False
    vectors: ClassVar[tuple[str, ...]] = ()
    """State vectors, each as long as the parameters."""
    scalars: ClassVar[tuple[str, ...]] = ()
    """State numbers, behind the vectors."""

    def __init__(self, train: Train, layout: Layout, block_elements: int = BLOCK_ELEMENTS) -> None:
        self._layout = layout
        self._block_elements = block_elements
        self.state_arrays: list[Entry] = [
            *(optimizer_state(name, (layout.size,)) for name in self.vectors),
            *(optimizer_state(name, (1,)) for name in self.scalars),
        ]
        self.state = aligned_empty(layout.size * len(self.vectors) + len(self.scalars), layout.dtype)
        self._bound: tuple[Array, Array] | None = None
        self._blocks: list[_Block] = []
        self.reset()

    def reset(self) -> None:
        """See `nnlib.optim.protocol.StepOptimizer.reset`."""
        self.state.fill(0.0)

    def _bind(self, flat: Array, gradient: Array) -> None:
        size, step = self._layout.size, self._block_elements
        scratch = aligned_empty(min(step, size), self._layout.dtype)
        ranges = self._layout.weight_ranges()
        self._blocks = []
        for start in range(0, size, step):
            stop = min(start + step, size)
            parts = [slice(max(r.start, start) - start, min(r.stop, stop) - start) for r in ranges]
            self._blocks.append(
                _Block(
                    flat[start:stop],
                    gradient[start:stop],
                    [self.state[i * size + start : i * size + stop] for i in range(len(self.vectors))],
                    scratch[: stop - start],
                    [part for part in parts if part.start < part.stop],
                )
            )
        self._bound = (flat, gradient)

    def step(self, flat: Array, gradient: Array, lr: float, decay: float) -> None:
        """See `nnlib.optim.protocol.StepOptimizer.step`."""
        if self._bound is None or self._bound[0] is not flat or self._bound[1] is not gradient:
            self._bind(flat, gradient)
        self._begin(lr)
        for block in self._blocks:
            if decay:
                for weights, slope, scratch in block.decayed:
                    np.multiply(weights, decay, out=scratch)
                    np.add(slope, scratch, out=slope)
            self._update(block, lr)

    def _begin(self, lr: float) -> None:
        """Once a step, before the blocks."""

    def _update(self, block: _Block, lr: float) -> None:
        raise NotImplementedError


class SGD(_Blocked):
    """w -= lr g."""

    def _update(self, block: _Block, lr: float) -> None:
        np.multiply(block.gradient, lr, out=block.gradient)
        np.subtract(block.flat, block.gradient, out=block.flat)


class Momentum(_Blocked):
    """The heavy ball (Polak 1964): v = mu v + g; w -= lr v."""

    vectors = ("momentum.velocity",)

    def __init__(self, train: Train, layout: Layout, block_elements: int = BLOCK_ELEMENTS) -> None:
        super().__init__(train, layout, block_elements)
        self._momentum = options_of(train, MomentumOptions).momentum

    def _update(self, block: _Block, lr: float) -> None:
        velocity = block.states[0]
        np.multiply(velocity, self._momentum, out=velocity)
        np.add(velocity, block.gradient, out=velocity)
        np.multiply(velocity, lr, out=block.gradient)
        np.subtract(block.flat, block.gradient, out=block.flat)


class Nesterov(Momentum):
    """Nesterov's momentum as in Sutskever et al. 2013 and PyTorch: v = mu v + g; w -= lr (g + mu v)."""

    vectors = ("nesterov.velocity",)

    def _update(self, block: _Block, lr: float) -> None:
        velocity = block.states[0]
        np.multiply(velocity, self._momentum, out=velocity)
        np.add(velocity, block.gradient, out=velocity)
        np.multiply(velocity, self._momentum, out=block.scratch)
        np.add(block.gradient, block.scratch, out=block.gradient)
        np.multiply(block.gradient, lr, out=block.gradient)
        np.subtract(block.flat, block.gradient, out=block.flat)


class Adam(_Blocked):
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

    def _update(self, block: _Block, lr: float) -> None:
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
