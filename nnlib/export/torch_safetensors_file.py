"""safetensors of a torch module: its ``state_dict``, as `safetensors.torch.load_model` reads it, and nothing else.

Tied arrays are there once. The metadata entry ``nnjobs`` is the description, with the feature scaling.
"""

from __future__ import annotations

import json

import numpy as np
from safetensors.numpy import save

from nnlib.export.torch_network import TorchNetwork
from nnlib.export.torch_usage import usage_lines


def encode(network: TorchNetwork) -> bytes:
    """The bytes of the safetensors file; equal networks, equal bytes."""
    arrays = {name: np.asarray(array, order="C") for name, array in sorted(network.arrays.items())}
    return save(arrays, metadata={"nnjobs": json.dumps(network.description(), ensure_ascii=False)})


def usage(network: TorchNetwork, name: str) -> str:
    """A few lines of Python that use the file; ``x`` holds feature values (rows, features)."""
    imports = ["import torch", "from safetensors.torch import load_model"]
    load = [f"load_model(net, {name!r})"]
    if network.scaling is not None:
        imports = ["import json, safetensors, torch", *imports[1:]]
        load += [f'with safetensors.safe_open({name!r}, "pt") as file:', "    metadata = file.metadata()"]
    return usage_lines(network, imports, load, 'metadata["nnjobs"]')
