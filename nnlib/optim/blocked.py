"""The base of all step optimizers: their update, fused in blocks that stay in the processor's cache.

An update of w reads and writes several vectors as long as w. Going through them block by block, all operations of a
block one after another, a large model's update streams each vector through memory once. Every operation is
elementwise, so the block size cannot change a bit.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from nnlib.config.schema import Train
from nnlib.core.arrays import Array
from nnlib.core.entries import Entry, optimizer_state
from nnlib.core.layout import Layout, aligned_empty
from nnlib.optim.operations import NumpyOperations, Operations

BLOCK_ELEMENTS = 65_536


class Block:
    """One range of the vectors, cut once: parameters, gradient, state vectors, scratch.

    ``decayed``: (parameters, gradient, scratch) of each part of the range that weight decay counts.
    """

    def __init__(self, flat: Array, gradient: Array, states: list[Array], scratch: Array, decayed: list[slice]) -> None:
        self.flat = flat
        self.gradient = gradient
        self.states = states
        self.scratch = scratch
        self.decayed = [(flat[part], gradient[part], scratch[part]) for part in decayed]


class BlockedOptimizer:
    """Cuts the vectors into blocks, adds the L2 term's gradient, leaves the rest to `_update`."""

    minimizes: ClassVar[Literal[False]] = False
    vectors: tuple[str, ...] = ()
    """State vectors, each as long as the parameters."""
    scalars: ClassVar[tuple[str, ...]] = ()
    """State numbers, behind the vectors."""

    def __init__(self, train: Train, layout: Layout, block_elements: int = BLOCK_ELEMENTS) -> None:
        self._layout = layout
        self._decayed = layout.decayed_ranges(train.decay)
        self._block_elements = block_elements
        self.state_arrays: list[Entry] = [
            *(optimizer_state(name, (layout.size,)) for name in self.vectors),
            *(optimizer_state(name, (1,)) for name in self.scalars),
        ]
        self.state = aligned_empty(layout.size * len(self.vectors) + len(self.scalars), layout.dtype)
        self.counts: Array = self.state[layout.size * len(self.vectors) :]
        """The state numbers, on the host."""
        self._ops: Operations = NumpyOperations()
        self._bound: tuple[Array, Array] | None = None
        self._blocks: list[Block] = []
        self.reset()

    def compute_by(self, operations: Operations) -> None:
        """Compute by other operations from now on, on vectors that they understand, in one block. Afterwards ``state``
        is such a vector, without the state numbers; those are ``counts``."""
        self._ops, self._block_elements, self._bound = operations, max(self._layout.size, 1), None
        self.counts = self.counts.copy()
        self.state = operations.empty(self._layout.size * len(self.vectors), self._layout.dtype)
        self.reset()

    def reset(self) -> None:
        """See `nnlib.optim.protocol.StepOptimizer.reset`."""
        self.state[:] = 0.0
        self.counts[:] = 0.0

    def _bind(self, flat: Array, gradient: Array) -> None:
        size, step = self._layout.size, self._block_elements
        scratch = self._ops.empty(min(step, size), self._layout.dtype)
        self._blocks = []
        for start in range(0, size, step):
            stop = min(start + step, size)
            parts = [slice(max(r.start, start) - start, min(r.stop, stop) - start) for r in self._decayed]
            self._blocks.append(
                Block(
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
                    self._ops.multiply(weights, decay, out=scratch)
                    self._ops.add(slope, scratch, out=slope)
            self._update(block, lr)

    def _begin(self, lr: float) -> None:
        """Once a step, before the blocks."""

    def _update(self, block: Block, lr: float) -> None:
        raise NotImplementedError
