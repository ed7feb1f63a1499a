"""Model files: models as named arrays in safetensors, and the digest of a run's models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from nnlib.core.arrays import Array
from nnlib.core.errors import MismatchError
from nnlib.core.layout import Layout, ModelState


def named_arrays(trial: int, model: ModelState, layout: Layout) -> dict[str, Array]:
    """Name a trial's parameters and buffers as a model file does: ``0.layer0.weight`` ..."""
    return {f"{trial}.{name}": array for name, array in layout.split(model).items()}


def read_model(trial: int, arrays: Mapping[str, Array], layout: Layout, file: str) -> ModelState:
    """Take a trial's model out of a model file's arrays. Raises `MismatchError` where one is absent or differs."""
    model = layout.zeros()
    for name, view in layout.split(model).items():
        array = arrays.get(f"{trial}.{name}")
        if array is None or array.shape != view.shape or array.dtype != view.dtype:
            got = "absent" if array is None else f"{array.dtype} {array.shape}"
            raise MismatchError(f"array {trial}.{name}: expected {view.dtype} {view.shape}, found {got}", file=file)
        view[...] = array
    return model


def model_digest(models: Iterable[ModelState]) -> str:
    """SHA-256 over the little-endian bytes of all trials' weights and buffers, in trial order: ``model_sha256``."""
    hashed = hashlib.sha256()
    for model in models:
        for vector in (model.vector, *model.buffers):
            hashed.update(np.ascontiguousarray(vector, vector.dtype.newbyteorder("<")).tobytes())
    return hashed.hexdigest()


def pack(arrays: Mapping[str, Array]) -> bytes:
    """Write arrays as the bytes of a safetensors file; same arrays, same bytes (its metadata has no stable order)."""
    from safetensors.numpy import save  # late: 30 ms that commands without a model need not pay

    return save({name: np.asarray(arrays[name], order="C") for name in sorted(arrays)})


def unpack(data: bytes, file: str) -> dict[str, Array]:
    """Read the arrays of a safetensors file. Raises `MismatchError` if it is not one."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return dict(load(data))
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise MismatchError(f"not a readable safetensors file: {error}", file=file) from error


def parse_json(data: bytes, file: str, hint: str = "bring back a copy of it") -> dict[str, Any]:
    """Read a file that was written as a JSON object. Raises `MismatchError` where it is none any more."""
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MismatchError(f"altered or damaged, for it is not JSON: {error}", hint=hint, file=file) from error
    if not isinstance(parsed, dict):
        raise MismatchError("altered or damaged, for it is not a JSON object", hint=hint, file=file)
    return parsed
