"""Rows reach a device as they are stored, and have there the bits that the host would give them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
import played_devices  # noqa: E402
from images import CLASSES, SIDE, bars, torch_config  # noqa: E402
from played_devices import PlayedTable  # noqa: E402
from shards import write_dataset  # noqa: E402

import nnlib.training.worker_trial  # noqa: E402
from jobs.driver import driver  # noqa: E402
from nnlib.config.devices import DEVICES  # noqa: E402
from nnlib.data.batches import Batch  # noqa: E402
from nnlib.data.feature_converter import Converter  # noqa: E402
from nnlib.data.scaling import Scaler  # noqa: E402
from nnlib.torch.device_rows import DeviceRows  # noqa: E402
from nnlib.torch.devices import Device  # noqa: E402


def device() -> tuple[Device, PlayedTable]:
    table = PlayedTable()
    return Device("played", 1, table), table


def batches(count: int, x: NDArray[Any]) -> Iterator[Batch]:
    for number in range(count):
        x[:] = number  # as `nnlib.data.batches.join_batches` does: the next batch has the same memory
        yield Batch(x, np.full(len(x), number), np.arange(len(x)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("stored", ["uint8", "int8", "int16", "float16"])
@pytest.mark.parametrize("scale, offset", [(1 / 255, 0.0), (0.1, -3.7), (1.0, 0.0)])
@pytest.mark.parametrize("scaled", [False, True])
def test_features_are_sent_as_stored_and_converted_to_the_same_bits(
    stored: str, dtype: str, scale: float, offset: float, scaled: bool
) -> None:
    rng = np.random.default_rng(3)
    x = rng.integers(-128, 127, (40, 9)).astype(stored)
    scaler = Scaler("standard", rng.normal(size=9), rng.random(9)) if scaled else None
    converter = Converter(scale, offset, scaler, dtype)
    where, table = device()
    seen: list[np.dtype[Any]] = []
    send = table.send
    table.send = lambda index, array: seen.append(array.dtype) or send(index, array)  # type: ignore[method-assign, func-returns-value]
    sent = DeviceRows(where, converter).send_features(x).numpy()
    assert seen[0] == np.dtype(stored)
    assert sent.dtype == np.dtype(dtype) and sent.tobytes() == converter(x).tobytes()


def test_batches_are_sent_ahead_in_their_order_by_a_thread_that_ends() -> None:
    where, _ = device()
    rows = DeviceRows(where, Converter(0.5, 0.0, None, "float32"))
    got = []
    for batch in rows.ahead(batches(7, np.zeros((3, 2), np.uint8))):
        got.append((sorted(set(batch.x.flatten().tolist())), batch.y.tolist()))
    assert got == [([number / 2], [number] * 3) for number in range(7)]
    assert not [thread for thread in threading.enumerate() if thread.name == "nnjobs-rows"]


def test_batches_that_are_not_wanted_any_more_and_errors_end_the_thread() -> None:
    where, _ = device()
    rows = DeviceRows(where, None)
    sent = rows.ahead(batches(100, np.zeros((3, 2), np.float32)))
    next(sent)
    sent.close()

    def broken() -> Iterator[Batch]:
        yield from batches(2, np.zeros((3, 2), np.float32))
        raise OSError("the disk is gone")

    got = []
    with pytest.raises(OSError, match="the disk is gone"):
        for batch in rows.ahead(broken()):
            got.append(batch)
    assert len(got) == 2
    assert not [thread for thread in threading.enumerate() if thread.name == "nnjobs-rows"]


@pytest.mark.parametrize("mode", ["rounds", "batch"])
def test_images_of_bytes_end_in_the_same_model_whether_host_or_device_converts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    x, y = bars(90)
    x = np.clip(x * 100 + 80, 0, 255)
    write_dataset(tmp_path / "d", x, y, shards=3, classes=CLASSES, shape=(SIDE, SIDE), dtype="uint8", scale=1 / 255)
    _, table = device()
    monkeypatch.setitem(DEVICES, "played", played_devices.LINE)
    monkeypatch.setattr(played_devices, "TABLE", table)
    types: set[str] = set()
    send = table.send

    def noting(index: int, array: Any) -> Any:
        if array.ndim == 2:
            types.add(array.dtype.name)
        return send(index, array)

    monkeypatch.setattr(table, "send", noting)
    changes: dict[str, Any] = {"workers": 3, "runtime__device": "played", "data__scale": "standard"}
    if mode == "batch":
        changes |= {"sync__mode": "collective", "sync__every": "batch"}
    models = {}
    for way in ("device", "host"):
        if way == "host":
            monkeypatch.setattr(nnlib.training.worker_trial, "_device_converts", lambda config, rows: False)
        types.clear()
        models[way] = driver.train(torch_config(str(tmp_path / "d"), tmp_path / way, **changes)).model_sha256
        assert types == {"uint8" if way == "device" else "float32"}
    assert models["device"] == models["host"]
