"""safetensors: the same arrays for torch, JAX or any other reader. The metadata entry ``nnjobs`` is the description."""

from __future__ import annotations

import json

import numpy as np
from safetensors.numpy import save

from nnlib.export.network import Network

_ACTIVATIONS = {"sigmoid": "nn.Sigmoid()", "tanh": "nn.Tanh()", "relu": "nn.ReLU()"}


def encode(network: Network) -> bytes:
    """The bytes of the safetensors file; equal networks, equal bytes (one metadata entry: several have no order)."""
    arrays = {name: np.asarray(array, order="C") for name, array in sorted(network.arrays.items())}
    return save(arrays, metadata={"nnjobs": json.dumps(network.description(), ensure_ascii=False)})


def usage(network: Network, name: str) -> str:
    """A few lines of Python that use the file; ``x`` holds feature values (rows, features)."""
    last = len(network.layers) - 1
    lines = [
        "import torch",
        "from safetensors.torch import load_file",
        "from torch import nn",
        f"model, parts = load_file({name!r}), []",
        f"for k in range({last + 1}):",
        '    weight = model[f"layer{k}.weight"].T  # torch keeps (out, in)',
        "    linear = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)",
        '    linear.load_state_dict({"weight": weight, "bias": model[f"layer{k}.bias"]})',
        f"    parts += [linear, {_ACTIVATIONS[network.activation]}]" if last else "    parts += [linear]",
        "net = nn.Sequential(*parts[:-1])" if last else "net = nn.Sequential(*parts)",
        f"x = torch.as_tensor(x, dtype=torch.{network.scaling_dtype})",
    ]
    if network.scaling is not None:
        lines.append('x = (x - model["scaling.shift"]) * model["scaling.factor"]')
    if network.scaling_dtype != network.dtype:
        lines.append(f"x = x.to(torch.{network.dtype})")
    lines.append("with torch.no_grad():")
    last_line = {
        "softmax": "    probabilities = torch.softmax(net(x), dim=1)",
        "sigmoid": "    probabilities = torch.sigmoid(net(x))",
        "linear": "    prediction = net(x)[:, 0]",
    }
    lines.append(last_line[network.output])
    if network.target is not None:
        lines.append('prediction = prediction.double() * model["target.spread"] + model["target.shift"]')
    return "\n".join(lines)
