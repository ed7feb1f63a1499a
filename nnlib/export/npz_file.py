"""npz: plain numpy arrays, nothing pickled, for numpy alone. ``description`` is a text array: JSON."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np

from nnlib.export.network import Network

_ACTIVATIONS = {
    "sigmoid": "lambda z: (1 + np.tanh(z / 2)) / 2",
    "tanh": "np.tanh",
    "relu": "lambda z: np.maximum(z, 0)",
}


def encode(network: Network) -> bytes:
    """The bytes of the npz file; equal networks, equal bytes (numpy writes no times)."""
    stream = io.BytesIO()
    description = np.array(json.dumps(network.description(), ensure_ascii=False))
    arrays: dict[str, Any] = {"description": description, **network.arrays}
    np.savez(stream, **arrays)
    return stream.getvalue()


def usage(network: Network, name: str) -> str:
    """A few lines of Python that use the file; ``x`` holds feature values (rows, features)."""
    last = len(network.layers) - 1
    lines = [
        "import json, numpy as np",
        f"model = np.load({name!r}, allow_pickle=False)",
        'classes = json.loads(str(model["description"]))["classes"]',
        f"x = np.asarray(x, np.{network.scaling_dtype})",
    ]
    if network.scaling is not None:
        lines.append('x = (x - model["scaling.shift"]) * model["scaling.factor"]')
    if network.scaling_dtype != network.dtype:
        lines.append(f"x = x.astype(np.{network.dtype})")
    if last:
        lines += [
            f"f = {_ACTIVATIONS[network.activation]}",
            f"for k in range({last}):",
            '    x = f(x @ model[f"layer{k}.weight"] + model[f"layer{k}.bias"])',
        ]
    lines.append(f'z = x @ model["layer{last}.weight"] + model["layer{last}.bias"]')
    if network.output == "linear":
        lines.append("prediction = z[:, 0]")
        if network.target is not None:
            lines.append('prediction = prediction.astype(np.float64) * model["target.spread"] + model["target.shift"]')
    elif network.output == "sigmoid":
        lines.append("probabilities = (1 + np.tanh(z / 2)) / 2")
    else:
        lines.append("probabilities = np.exp(z - z.max(axis=1, keepdims=True))")
        lines.append("probabilities /= probabilities.sum(axis=1, keepdims=True)")
    return "\n".join(lines)
