"""ONNX of a torch module: the whole way from feature values to the answer as one graph, by torch's exporter.

Input, outputs and metadata are those of `nnlib.export.onnx_file`: ``features`` (rows, features), flat also for images;
``probabilities`` and ``label``, or ``prediction``. Where onnxruntime is installed, it must compute what torch does.
"""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxscript  # noqa: F401  (torch's exporter needs it: its absence is said here)
import torch
from onnx import helper

import nnlib
from nnlib.core.arrays import Array
from nnlib.core.errors import MismatchError, UsageError
from nnlib.core.notes import note
from nnlib.core.progress import progressing, repeated
from nnlib.export.onnx_file import LIMIT
from nnlib.export.onnx_file import usage as usage
from nnlib.export.torch_network import TorchNetwork
from nnlib.torch.onnx_graph import AnsweringModule, export_graph

CHECKED_ROWS, TOLERANCE = 5, 1e-4
"""Rows by which a graph is checked, and how far an output may lie from torch's, absolute and relative."""


def encode(network: TorchNetwork) -> bytes:
    """The bytes of the ONNX file; equal networks, equal bytes.

    Raises `UsageError` for a model above 2 GiB and for a module that torch cannot export, and `MismatchError` where
    onnxruntime computes something else than torch.
    """
    size = sum(array.nbytes for array in network.arrays.values())
    if size > LIMIT:
        raise UsageError(f"a model of {size} bytes does not fit an ONNX file (2 GiB)", hint="--format safetensors")
    module = AnsweringModule(
        network.module,
        network.shape,
        output=network.output,
        dtype=str(network.dtype),
        scaling=network.scaling,
        scaling_dtype=str(network.scaling_dtype),
        target=network.target,
    ).eval()
    rows = _example_rows(network)
    names = ["prediction"] if network.output == "linear" else ["probabilities", "label"]
    with progressing("exporting", 2, "steps") as advance:
        with repeated(advance, 0):
            model = export_graph(module, torch.from_numpy(rows[:2]), names)
        _describe(model, network)
        data = bytes(model.SerializeToString(deterministic=True))
        with repeated(advance, 1):
            with torch.inference_mode():
                expected = module(torch.from_numpy(rows))
            first = expected if network.output == "linear" else expected[0]
            _check(data, rows, first.numpy())
    return data


def _describe(model: onnx.ModelProto, network: TorchNetwork) -> None:
    """Put the description into a graph, and check it."""
    description = network.description()
    model.graph.name, model.producer_name, model.producer_version = "nnjobs", "nnjobs", nnlib.__version__
    model.doc_string = f"Input: {network.input_meaning}. Computation: {network.computation}."
    parts = ("classes", "columns", "feature_names")
    texts = {name: json.dumps(description[name], ensure_ascii=False) for name in parts}
    helper.set_model_props(model, {**texts, "nnjobs": json.dumps(description, ensure_ascii=False)})
    onnx.checker.check_model(model, full_check=True)


def _example_rows(network: TorchNetwork) -> Array:
    """Feature values as the dataset might have them, shape (CHECKED_ROWS, features)."""
    rng = np.random.default_rng(0)
    if network.stored_dtype == "uint8":
        stored = rng.integers(0, 256, (CHECKED_ROWS, network.features))
        return (stored * network.stored_scale + network.stored_offset).astype(network.input_dtype)
    rows = rng.normal(size=(CHECKED_ROWS, network.features))
    if network.scaling is not None:
        shift, factor = network.scaling
        rows = shift + rows / np.where(factor == 0.0, 1.0, factor)
    return rows.astype(network.input_dtype)


def _check(data: bytes, rows: Array, expected: Array) -> None:
    """Raise `MismatchError` where onnxruntime, if it is installed, computes other outputs than torch."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        return
    onnxruntime.set_default_logger_severity(4)
    try:
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        computed = session.run(None, {"features": rows})[0]
    except Exception as error:  # its classes of errors have no common public name
        note(f"the file is not checked: onnxruntime cannot compute it ({' '.join(str(error).split())[:200]})")
        return
    if not np.allclose(computed, expected, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
        apart = float(np.max(np.abs(computed - expected)))
        raise MismatchError(
            f"onnxruntime computes other outputs than torch, up to {apart:.2g} apart: no file is written",
            hint="--format safetensors",
        )
