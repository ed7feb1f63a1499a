"""A fingerprint of the bits that torch computes here: those of its kernels for products, convolutions and the rest.

Which kernel torch takes depends on the processor, on its build and on variables such as ``ATEN_CPU_CAPABILITY`` and
``ONEDNN_MAX_CPU_ISA``; each can change the last bit of a result. It takes some 20 ms, once per process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache

import torch
from torch.nn import functional

from nnlib.core import numerics
from nnlib.torch.devices import Device

FORMATS = (torch.contiguous_format, torch.channels_last)


def fingerprint() -> str:
    """Return 16 hex digits over what torch computes on the CPU and over `nnlib.core.numerics.fingerprint`: optimizers
    and scores are numpy's."""
    return _combined(numerics.fingerprint(), torch.get_num_threads())


def device_fingerprint(device: Device, *, strict: bool) -> str:
    """Return the kind of a device and 16 hex digits over what it computes, what it is, and its driver and libraries:
    equal bits are promised where all of these are equal. ``strict`` as in `nnlib.torch.devices.Device.computing`."""
    return _of_device(device, strict, numerics.fingerprint())


@lru_cache(maxsize=16)
def _of_device(device: Device, strict: bool, of_numpy: str) -> str:
    facts = device.table.facts(device.index)
    digest = hashlib.sha256(f"{of_numpy}/{facts.name}/{facts.versions}/{torch.__version__}".encode())
    with device.computing(strict=strict):
        for tensor in probe(device.handle):
            digest.update(tensor.numpy().tobytes())
    return f"{device.kind}-{digest.hexdigest()[:16]}"


@lru_cache(maxsize=4)
def _combined(of_numpy: str, threads: int) -> str:
    """``threads``: torch cuts its work by their number."""
    digest = hashlib.sha256(of_numpy.encode())
    for tensor in probe(torch.device("cpu")):
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:16]


def probe(device: torch.device) -> Iterator[torch.Tensor]:
    """Yield what torch computes of fixed numbers on a device, as tensors of the host: products, convolutions forward
    and backward in both memory formats, activations, norms. Nothing is drawn at random."""
    with torch.enable_grad():
        for result in _results(device):
            yield result.detach().cpu().contiguous()


def _results(device: torch.device) -> Iterator[torch.Tensor]:
    left, right = _numbers((67, 131), device), _numbers((131, 45), device)
    yield left @ right
    yield from _with_gradients(functional.linear(left, right.T, _numbers((45,), device)), left, right)
    for memory_format in FORMATS:
        images = _numbers((4, 5, 13, 13), device).detach().to(memory_format=memory_format).requires_grad_()
        kernels = _numbers((19, 5, 3, 3), device).detach().to(memory_format=memory_format).requires_grad_()
        yield from _with_gradients(functional.conv2d(images, kernels, padding=1), images, kernels)
    for activation in (torch.relu, torch.sigmoid, torch.tanh, functional.gelu, functional.silu):
        yield from _with_gradients(activation(left), left)
    yield from _with_gradients(functional.log_softmax(left, 1), left)
    images = _numbers((6, 7, 9, 9), device)
    yield from _with_gradients(functional.batch_norm(images, None, None, training=True), images)
    yield from _with_gradients(functional.layer_norm(left, (131,)), left)
    yield from _with_gradients(functional.max_pool2d(images, 2), images)


def _with_gradients(result: torch.Tensor, *of: torch.Tensor) -> Iterator[torch.Tensor]:
    """A result, and the gradients of its product with itself, which no symmetry makes zero."""
    yield result
    yield from torch.autograd.grad((result * result).sum(), of)


def _numbers(shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Numbers in (-2, 2) that are not round, the same at every call."""
    count = torch.Size(shape).numel()
    values = torch.arange(count, dtype=torch.int64) * 2654435761 % 4093
    return (values.to(torch.float32) / 1023.0 - 2.0).reshape(shape).to(device).requires_grad_()
