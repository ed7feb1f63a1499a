"""Rows on their way to a device: sent as they are stored, and converted there.

An image of bytes takes a quarter of the way that its numbers would take, and the host does not convert.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import NamedTuple

import torch

from nnlib.core.arrays import Array
from nnlib.data.batches import Batch
from nnlib.data.feature_converter import Converter
from nnlib.torch.devices import Device


class SentBatch(NamedTuple):
    """A `nnlib.data.batches.Batch` on a device: ``x``, converted, of shape (b, features), and ``y`` of shape (b,)."""

    x: torch.Tensor
    y: torch.Tensor

    def parts(self, rows: int) -> Iterator[SentBatch]:
        """Cut the batch into batches of ``rows`` rows on the same memory; the last has what is left."""
        for start in range(0, len(self.y), rows):
            yield SentBatch(*(tensor[start : start + rows] for tensor in self))


class DeviceRows:
    """Sends batches to a device. ``converter`` converts their features there, to the bits that it gives on the host;
    None: they are converted."""

    def __init__(self, device: Device, converter: Converter | None) -> None:
        self._device, self._converter = device, converter
        self._steps: list[tuple[Callable[[torch.Tensor, torch.Tensor], torch.Tensor], torch.Tensor]] | None = None

    def send(self, batch: Batch) -> SentBatch:
        """Begin to send a batch, whose memory may be used again as soon as this returns."""
        return SentBatch(self.send_features(batch.x), self._device.send(batch.y))

    def send_features(self, x: Array) -> torch.Tensor:
        """Begin to send features, shape (b, features)."""
        sent = self._device.send(x)
        if self._converter is None:
            return sent
        if self._steps is None:
            self._steps = [(_IN_PLACE[step.__name__], self._device.send(at)) for step, at in self._converter.steps]
        out = sent.to(getattr(torch, self._converter.dtype.name))
        for step, operand in self._steps:
            step(out, operand)
        return out

    def ahead(self, batches: Iterable[Batch]) -> Generator[SentBatch]:
        """Yield the batches, as they are sent. A thread of its own reads and sends the next one while the caller
        works: one is ready, one is on its way."""
        ready: queue.Queue[SentBatch | BaseException | None] = queue.Queue(1)
        is_closed = threading.Event()
        thread = threading.Thread(target=self._fill, args=(batches, ready, is_closed), name="nnjobs-rows", daemon=True)
        thread.start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            is_closed.set()
            while thread.is_alive():  # it may wait for room
                try:
                    ready.get(timeout=0.01)
                except queue.Empty:
                    continue
            thread.join()

    def _fill(
        self, batches: Iterable[Batch], ready: queue.Queue[SentBatch | BaseException | None], is_closed: threading.Event
    ) -> None:
        try:
            for batch in batches:
                if is_closed.is_set():
                    return
                ready.put(self.send(batch))
            ready.put(None)
        except BaseException as error:  # the caller raises it
            ready.put(error)


_IN_PLACE: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "multiply": torch.Tensor.mul_,
    "add": torch.Tensor.add_,
    "subtract": torch.Tensor.sub_,
}
