"""Model files: flat vectors as named arrays in safetensors, and the digest of a run's models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from nnlib.core.arrays import Vector
from nnlib.core.errors import MismatchError
from nnlib.core.layout import Layout


def named_arrays(trial: int, flat: Vector, layout: Layout) -> dict[str, Vector]:
    """A trial's parameters under the names they have in a model file: ``0.layer0.weight`` ..."""
    return {f"{trial}.{name}": array for name, array in layout.views(flat).items()}


def flat_vector(trial: int, arrays: Mapping[str, Vector], layout: Layout, file: str) -> Vector:
    """The flat vector of a trial from a model file's arrays; raises `MismatchError` where one is absent or differs."""
    flat = np.empty(layout.size, layout.dtype)
    for name, view in layout.views(flat).items():
        array = arrays.get(f"{trial}.{name}")
        if array is None or array.shape != view.shape or array.dtype != view.dtype:
            found = "absent" if array is None else f"{array.dtype} {array.shape}"
            raise MismatchError(f"array {trial}.{name}: expected {view.dtype} {view.shape}, found {found}", file=file)
        view[...] = array
    return flat


def model_digest(vectors: Iterable[Vector]) -> str:
    """SHA-256 over the little-endian bytes of all trials' weights, in trial order: ``model_sha256``."""
    hashed = hashlib.sha256()
    for vector in vectors:
        hashed.update(np.ascontiguousarray(vector, vector.dtype.newbyteorder("<")).tobytes())
    return hashed.hexdigest()


def pack(arrays: Mapping[str, Vector]) -> bytes:
    """Arrays as the bytes of a safetensors file; same arrays, same bytes (its metadata has no stable order)."""
    from safetensors.numpy import save  # late: 30 ms that commands without a model need not pay

    return save({name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)})


def unpack(data: bytes, file: str) -> dict[str, Vector]:
    """The arrays of a safetensors file; raises `MismatchError` if it is not one."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return dict(load(data))
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise MismatchError(f"not a readable safetensors file: {error}", file=file) from error


def parse_json(data: bytes, file: str, hint: str = "bring back a copy of it") -> dict[str, Any]:
    """A file that we wrote as a JSON object. Raises `MismatchError` where it is none any more."""
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MismatchError(f"altered or damaged, for it is not JSON: {error}", hint=hint, file=file) from error
    if not isinstance(parsed, dict):
        raise MismatchError("altered or damaged, for it is not a JSON object", hint=hint, file=file)
    return parsed
