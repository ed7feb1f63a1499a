"""What to say when the memory of a device is too small: how many rows of a step fit."""

from __future__ import annotations

from collections.abc import Callable

import torch

from nnlib.config.schema import Train
from nnlib.core.errors import JobError
from nnlib.torch.devices import Device

MB = 1 << 20


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error of torch's says that a device has no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error)


def memory_error(device: Device, train: Train, try_step: Callable[[int], None]) -> JobError:
    """Return the error of a device whose memory is too small for a step of training.

    ``try_step`` computes a step of as many rows as it gets: half as many are tried until they fit, and named.
    """
    asked = min(train.micro_batch or train.batch_size, train.batch_size)
    facts = device.table.facts(device.index)
    size = "" if facts.memory is None else f" has {facts.memory // MB:,} MB and"
    fits, peak = _rows_that_fit(device, asked, try_step)
    if not fits:
        return JobError(
            f"{device.name} ({facts.name}){size} is out of memory: not even a step of one row fits",
            hint="a smaller model, fewer runtime.workers_per_gpu, or end what else uses the device",
        )
    used = "" if peak is None else f" (they take {-(-peak // MB):,} MB)"
    return JobError(
        f"{device.name} ({facts.name}){size} is out of memory in a step of {asked} rows at once; {fits} fit{used}",
        hint=f"set train.micro_batch to {fits}: the same step, computed {fits} rows at once; or a smaller "
        "train.batch_size",
    )


def _rows_that_fit(device: Device, asked: int, try_step: Callable[[int], None]) -> tuple[int, int | None]:
    """The largest of ``asked`` / 2, / 4 ... that fits, and the bytes that such a step takes; 0 if none does."""
    rows = asked // 2
    while rows:
        device.table.forget_peak(device.index)
        try:
            try_step(rows)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                return 0, None
        except ValueError:  # BatchNorm has no statistics of one row
            return 0, None
        else:
            return rows, device.table.peak_memory(device.index)
        rows //= 2
    return 0, None
