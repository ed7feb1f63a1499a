"""A torch module as an ONNX graph, by torch's own exporter: the whole way from feature values to the answer."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from nnlib.core.arrays import Array
from nnlib.core.errors import UsageError
from nnlib.data.target_scaling import TargetScaler

OPSET = 18
"""The oldest that torch's exporter writes without converting."""

LOGGERS = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
"""They warn about packages and details that are nobody's concern here."""


class AnsweringModule(nn.Module):
    """A module between the scaling of its features and what is made of its outputs.

    Maps feature values (rows, features) to probabilities (rows, classes) and labels (rows,) int64, or, for the output
    ``linear``, to values (rows,).
    """

    def __init__(
        self,
        module: nn.Module,
        shape: tuple[int, ...],
        *,
        output: str,
        dtype: str,
        scaling: tuple[Array, Array] | None,
        scaling_dtype: str,
        target: TargetScaler | None,
    ) -> None:
        """``shape`` and ``dtype``: of a row as the module gets it. ``scaling``: shift and factor, each (features,)."""
        super().__init__()
        self.module, self.shape, self.output = module, shape, output
        self.dtype, self.scaling_dtype = getattr(torch, dtype), getattr(torch, scaling_dtype)
        self.is_scaled, self.target = scaling is not None, target
        if scaling is not None:
            self.register_buffer("shift", torch.tensor(scaling[0]))
            self.register_buffer("factor", torch.tensor(scaling[1]))

    def forward(self, features: torch.Tensor) -> Any:
        """Compute the answer."""
        x = features.to(self.scaling_dtype)
        if self.is_scaled:
            x = (x - self.get_buffer("shift")) * self.get_buffer("factor")
        z = self.module(x.to(self.dtype).reshape(-1, *self.shape))
        if self.output == "linear":
            values = z[:, 0]
            return values if self.target is None else values.double() * self.target.spread + self.target.shift
        probabilities = torch.softmax(z, dim=1) if self.output == "softmax" else torch.sigmoid(z)
        return probabilities, probabilities.argmax(dim=1)


def export_graph(module: AnsweringModule, example: torch.Tensor, outputs: list[str]) -> Any:
    """Return the ``onnx.ModelProto`` of a module in evaluation mode, for any number of rows.

    ``example``: feature values, shape (2, features). What torch writes about its own work and about this machine's
    files is taken out. Raises `UsageError` for a module that torch cannot export.
    """
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=["features"],
                output_names=outputs,
                dynamic_shapes=({0: torch.export.Dim("rows", min=1)},),
            )
        if program is None:
            raise RuntimeError("no graph was made")
    except Exception as error:
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise UsageError(
            f"torch cannot export this module to ONNX: {type(error).__name__}: {reason}",
            hint="--format safetensors, or change the module",
        ) from error
    graph = program.model_proto
    _clean(graph.graph)
    for part in (graph, *graph.functions):
        del part.metadata_props[:]
    return graph


def _clean(graph: Any) -> None:
    """Delete the notes of the exporter: stack traces with the names of files, types of values within the graph."""
    del graph.metadata_props[:], graph.value_info[:]
    for part in (*graph.input, *graph.output, *graph.initializer, *graph.node):
        part.doc_string = ""
        del part.metadata_props[:]
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                _clean(inner)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings and loggers of torch's exporter."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
