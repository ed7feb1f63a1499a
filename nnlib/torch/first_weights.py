"""The first weights of a module from a file: ``model.from``."""

from __future__ import annotations

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from nnlib.config.code_files import WEIGHTS, hash_of
from nnlib.core.errors import DataError, MismatchError
from nnlib.core.listing import listed
from nnlib.core.notes import note
from nnlib.storage import file_at
from nnlib.torch.module_layout import dtype_name

HALF = (torch.float16, torch.bfloat16)


def fill_module(module: nn.Module, address: str, sha256: str) -> None:
    """Put the numbers of a safetensors file into a module: parameters, frozen ones, and the buffers of its
    ``state_dict``.

    Numbers of 16 bits become those of the module's type, which holds them all; a note says so. Of tied parameters the
    file may have one or all.

    Raises:
        MismatchError: the file is not the one whose SHA-256 is ``sha256``.
        DataError: it cannot be read, or names, shapes or types are not the module's.
    """
    arrays = _read(address, sha256)
    targets = module.state_dict(keep_vars=True)
    names: dict[int, list[str]] = {}
    for name, tensor in targets.items():
        names.setdefault(id(tensor), []).append(name)
    missing = [tied[0] for tied in names.values() if not any(name in arrays for name in tied)]
    unexpected = [name for name in arrays if name not in targets]
    if missing or unexpected:
        lacks = f"lacks {listed(missing)}" if missing else ""
        has = f"has {listed(unexpected)}, which the module has not" if unexpected else ""
        raise _error(" and ".join(filter(None, [lacks, has])), address, "its names must be those of the state_dict")
    shapes = [
        f"{name} is {tuple(array.shape)}, not {tuple(targets[name].shape)}"
        for name, array in arrays.items()
        if array.shape != targets[name].shape
    ]
    if shapes:
        raise _error(f"has other shapes: {'; '.join(shapes[:5])}", address)
    types = [
        f"{name} is {dtype_name(array)}, not {dtype_name(targets[name])}"
        for name, array in arrays.items()
        if not _holds(targets[name], array)
    ]
    if types:
        raise _error(f"has other types: {'; '.join(types[:5])}", address, "set model.dtype, or convert the file")
    for tied in names.values():
        values = [arrays[name] for name in tied if name in arrays]
        if any(not torch.equal(value, values[0]) for value in values[1:]):
            raise _error(f"has different numbers for the tied {listed(tied)}", address)
    half = sorted({dtype_name(array) for array in arrays.values() if array.dtype in HALF})
    if half:
        kept = sorted({dtype_name(targets[name]) for name, array in arrays.items() if array.dtype in HALF})
        note(f"{address} has numbers of {' and '.join(half)}: they train as {' and '.join(kept)}")
    with torch.no_grad():
        for name, array in arrays.items():
            targets[name].copy_(array)


def _read(address: str, sha256: str) -> dict[str, torch.Tensor]:
    folder, name = file_at(address)
    data = folder.read(name)
    if hash_of(data) != sha256:
        raise MismatchError(
            f"this file is not the one whose SHA-256 is model.sha256.{WEIGHTS}",
            hint="bring that one back, or train from the configuration file again",
            key="model.from",
            file=address,
        )
    try:
        return dict(load(data))
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError, RuntimeError) as error:
        raise _error(f"is no safetensors file that can be read: {error}", address) from error


def _holds(target: torch.Tensor, array: torch.Tensor) -> bool:
    """Whether a type of numbers holds another's exactly."""
    if array.dtype == target.dtype:
        return True
    if not (array.is_floating_point() and target.is_floating_point()):
        return False
    return array.dtype in HALF or (array.dtype, target.dtype) == (torch.float32, torch.float64)


def _error(text: str, address: str, hint: str | None = None) -> DataError:
    return DataError(text, hint=hint, key="model.from", file=address)
