"""ONNX: the whole way from feature values to the answer as one graph, for onnxruntime and its like.

Input ``features`` (rows, features) float32, or float64 if the dataset stores that: values, see `Network.input_meaning`.
Outputs for classes ``probabilities`` (rows, classes) and ``label`` (rows,) int64, the class's index; for regression
``prediction`` (rows,). The metadata entry ``nnjobs`` holds `Network.description` as JSON; ``classes``,
``feature_names`` and ``columns`` (the columns of the input, with their kinds and categories) hold these parts of it, as
JSON, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

import nnlib
from nnlib.core.errors import UsageError
from nnlib.export.network import Network

OPSET, IR = 17, 8
"""Old enough for runtimes of 2022, new enough for every operator used."""

LIMIT = 2**31 - 2**20
"""Protocol buffers, and with them ONNX files of one piece, end at 2 GiB."""

_ACTIVATIONS = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu"}


def encode(network: Network) -> bytes:
    """The bytes of the ONNX file; equal networks, equal bytes. Raises `UsageError` for a model above 2 GiB and for
    one with buffers, which the graph would have no use for."""
    size = sum(array.nbytes for array in network.arrays.values())
    if size > LIMIT:
        raise UsageError(f"a model of {size} bytes does not fit an ONNX file (2 GiB)", hint="--format safetensors")
    if network.buffers:
        raise UsageError("a model with buffers has no ONNX graph", hint="--format npz or safetensors")
    arrays = dict(network.arrays)
    if network.output == "linear":
        arrays["columns"] = np.array([1], np.int64)
    graph = helper.make_graph(
        list(_nodes(network)),
        "nnjobs",
        [helper.make_tensor_value_info("features", _kind(network.input_dtype), ["rows", network.widths[0]])],
        _outputs(network),
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in arrays.items()],
    )
    description = network.description()
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR,
        producer_name="nnjobs",
        producer_version=nnlib.__version__,
        doc_string=f"Input: {network.input_meaning}. Computation: {network.computation}.",
    )
    helper.set_model_props(
        model,
        {
            **{
                name: json.dumps(description[name], ensure_ascii=False)
                for name in ("classes", "columns", "feature_names")
            },
            "nnjobs": json.dumps(description, ensure_ascii=False),
        },
    )
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _nodes(network: Network) -> Iterator[onnx.NodeProto]:
    """The graph in order: cast, scaling, layers, output."""
    value = "features"
    if network.scaling_dtype != network.input_dtype:
        yield helper.make_node("Cast", [value], ["cast"], to=_kind(network.scaling_dtype))
        value = "cast"
    if network.scaling is not None:
        yield helper.make_node("Sub", [value, "scaling.shift"], ["shifted"])
        yield helper.make_node("Mul", ["shifted", "scaling.factor"], ["scaled"])
        value = "scaled"
    if network.scaling_dtype != network.dtype:
        yield helper.make_node("Cast", [value], ["rounded"], to=_kind(network.dtype))
        value = "rounded"
    last = len(network.layers) - 1
    for index in range(last + 1):
        yield helper.make_node("Gemm", [value, f"layer{index}.weight", f"layer{index}.bias"], [f"z{index}"])
        value = f"z{index}"
        if index < last:
            yield helper.make_node(_ACTIVATIONS[network.activation], [value], [f"a{index}"])
            value = f"a{index}"
    if network.output == "linear":
        if network.target is None:
            yield helper.make_node("Squeeze", [value, "columns"], ["prediction"])
            return
        yield helper.make_node("Squeeze", [value, "columns"], ["value"])
        yield helper.make_node("Cast", ["value"], ["wide"], to=_kind(network.output_dtype))
        yield helper.make_node("Mul", ["wide", "target.spread"], ["spread"])
        yield helper.make_node("Add", ["spread", "target.shift"], ["prediction"])
        return
    if network.output == "softmax":
        yield helper.make_node("Softmax", [value], ["probabilities"], axis=1)
    else:
        yield helper.make_node("Sigmoid", [value], ["probabilities"])
    yield helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0)


def _outputs(network: Network) -> list[onnx.ValueInfoProto]:
    if network.output == "linear":
        return [helper.make_tensor_value_info("prediction", _kind(network.output_dtype), ["rows"])]
    return [
        helper.make_tensor_value_info("probabilities", _kind(network.dtype), ["rows", network.widths[-1]]),
        helper.make_tensor_value_info("label", onnx.TensorProto.INT64, ["rows"]),
    ]


def _kind(dtype: np.dtype[Any]) -> int:
    return int(helper.np_dtype_to_tensor_dtype(dtype))


def usage(network: Network, name: str) -> str:
    """A few lines of Python that use the file; ``x`` holds feature values (rows, features)."""
    outputs = "(prediction,)" if network.output == "linear" else "probabilities, label"
    return f"""\
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession({name!r})
{outputs} = session.run(None, {{"features": np.asarray(x, np.{network.input_dtype})}})"""
