"""npz of a torch module: the arrays of its ``state_dict``, nothing pickled. ``description`` is a text array: JSON."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np

from nnlib.core.errors import UsageError
from nnlib.export.torch_network import TorchNetwork
from nnlib.export.torch_usage import usage_lines

TAKEN = ("description", "file", "allow_pickle")
"""Names that an array cannot have here."""


def encode(network: TorchNetwork) -> bytes:
    """The bytes of the npz file; equal networks, equal bytes. Raises `UsageError` for an array with a name that the
    file needs for itself."""
    if names := [name for name in TAKEN if name in network.arrays]:
        raise UsageError(f"an npz file cannot hold an array named {names[0]}", hint="--format safetensors")
    stream = io.BytesIO()
    description = np.array(json.dumps(network.description(), ensure_ascii=False))
    arrays: dict[str, Any] = {"description": description, **network.arrays}
    np.savez(stream, **arrays)
    return stream.getvalue()


def usage(network: TorchNetwork, name: str) -> str:
    """A few lines of Python that use the file; ``x`` holds feature values (rows, features)."""
    imports = [
        "import json, numpy as np, torch"
        if network.scaling is not None or network.tied
        else "import numpy as np, torch"
    ]
    load = [
        f"file = np.load({name!r}, allow_pickle=False)",
        'state = {key: torch.from_numpy(file[key]) for key in file if key != "description"}',
        "net.load_state_dict(state)",
    ]
    if network.tied:
        load.insert(2, 'tied = json.loads(str(file["description"]))["tied"]')
        load.insert(3, "state |= {name: state[first] for name, first in tied.items()}")
    return usage_lines(network, imports, load, 'str(file["description"])')
