"""Count what a module computes: the floating-point operations of a forward pass.

torch's own counter imports its compiler, which takes as long as torch itself; this one intercepts calls of torch's
functions, so it misses what one call does within (a recurrent layer, `multi_head_attention_forward`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

Formula = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], int]
"""Operations of a call, from its output and its first two tensors."""


def _of_inputs(output: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> int:
    """Each output is a sum over the last dimension of the input."""
    return 2 * output.numel() * first.shape[-1]


def _of_convolution(output: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> int:
    """Each output is a sum over one filter, ``second[0]``."""
    return 2 * output.numel() * math.prod(second.shape[1:])


def _of_transposed(output: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> int:
    """Each input is multiplied by one filter, ``second[0]``."""
    return 2 * first.numel() * math.prod(second.shape[1:])


def _of_attention(output: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> int:
    """Queries times keys, then the weights times the values."""
    return 2 * second.shape[-2] * (first.numel() + output.numel())


_FORMULAS: Mapping[str, Formula] = {
    **dict.fromkeys(("linear", "matmul", "__matmul__", "mm", "bmm"), _of_inputs),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _of_convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _of_transposed),
    "scaled_dot_product_attention": _of_attention,
}


class ForwardOperations(TorchFunctionMode):
    """A context that counts the ``operations`` of products and convolutions in it: 2 for each multiplication."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function of torch, and count what it computes."""
        kwargs = kwargs or {}
        output = function(*args, **kwargs)
        formula = _FORMULAS.get(getattr(function, "__name__", ""))
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        if formula is not None and isinstance(output, torch.Tensor) and len(tensors) > 1:
            self.operations += formula(output, tensors[0], tensors[1])
        return output
