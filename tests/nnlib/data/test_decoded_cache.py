"""Decoded rows that a node keeps: the same bits as without, whatever happens to the files, their folder and writers."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shards import write_dataset

from nnlib.config.schema import Runtime, Split
from nnlib.core.errors import MismatchError
from nnlib.core.seeds import Purpose, generator, hash_key
from nnlib.data import decoded_cache as module
from nnlib.data import decoded_file, decoded_rows
from nnlib.data.batches import Batch
from nnlib.data.dataset import Dataset
from nnlib.data.decoded_cache import DecodedCache
from nnlib.data.decoded_rows import BLOCKS, CONVERTED, ShardRows
from nnlib.data.scaling import FeatureStats, Scaler
from nnlib.data.shard_reader import ShardReader, label_chunks
from nnlib.data.split.fitting import fit_split_rules
from nnlib.data.split.rule import TEST, TRAIN, VALIDATION
from nnlib.data.worker_data import WorkerData

ROWS, FEATURES, SHARDS, GROUP = 90, 5, 3, 16
LARGE, SMALL = 10**9, 1500


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(decoded_rows, "LEAST_BYTES", 0)
    module._warned.clear()
    forget()
    yield
    forget()


def forget() -> None:
    """Drop what this process holds, as a new process would begin."""
    BLOCKS.clear()
    CONVERTED.clear()


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(ROWS, FEATURES)).astype(np.float32), rng.integers(0, 3, ROWS)
    teams = [f"team {number}" for number in rng.integers(0, 9, ROWS)]
    return write_dataset(tmp_path / "set", x, y, shards=SHARDS, row_group_rows=GROUP, classes=3, extra={"team": teams})


@pytest.fixture
def cache(tmp_path: Path) -> DecodedCache:
    return DecodedCache(str(tmp_path / "cache"))


def files_of(cache: DecodedCache) -> list[Path]:
    return sorted(path for path in cache.folder.iterdir() if not path.name.startswith(".lock-"))


def copied(batches: Iterator[Batch]) -> list[tuple[bytes, ...]]:
    return [(batch.x.tobytes(), batch.y.tobytes(), batch.row.tobytes()) for batch in batches]


def everything(
    dataset: Dataset,
    cache: DecodedCache | None,
    *,
    memory: int = LARGE,
    kind: Any = "standard",
    fraction: float = 0.8,
    window: int = 20,
    group: str | None = "team",
) -> list[Any]:
    """All that a worker reads in a new process: samples in two orders, chunks, scored rows, statistics."""
    forget()
    split = Split(train=0.6, validation=0.1, group=group)
    classes = len(dataset.classes) or None
    (rule,) = fit_split_rules(label_chunks(dataset, rule_columns(group)), split, [(0, 0)], seed=0, classes=classes)
    shards = range(len(dataset.shards))
    with WorkerData(
        dataset, shards, [len(shards) - 1], memory_bytes=memory, extra_columns=rule.columns, decoded=cache
    ) as data:
        stats = FeatureStats.merged(data.feature_stats(rule, shard) for shard in shards)
        trial = data.trial(rule, Scaler.from_stats(kind, stats), "float32")
        sample = trial.sample(fraction, hash_key(1, Purpose.SAMPLE, epoch=5))
        epochs = [
            copied(sample.batches(generator(1, Purpose.ORDER, epoch=epoch), window_rows=window, batch_size=7))
            for epoch in range(2)
        ]
        scored = [copied(trial.score_batches(part)) for part in (TEST, VALIDATION, TRAIN)]
        return [sample.rows, trial.train_rows, stats, epochs, copied(sample.chunks(11)), scored]


def rule_columns(group: str | None) -> list[str]:
    return [] if group is None else [group]


def same(first: list[Any], second: list[Any]) -> bool:
    """Whether `everything` is equal, bit for bit."""
    (*head, stats), tail = first[:3], first[3:]
    (*other_head, other_stats), other_tail = second[:3], second[3:]
    arrays, others = ({n: a.tobytes() for n, a in s.to_arrays().items()} for s in (stats, other_stats))
    return head == other_head and arrays == others and tail == other_tail


@settings(max_examples=12, deadline=None)
@given(
    dtype=st.sampled_from(["uint8", "float32", "float64"]),
    features=st.integers(1, 40),
    rows=st.integers(12, 150),
    shards=st.integers(1, 4),
    group_rows=st.integers(1, 60),
    window=st.integers(1, 200),
    memory=st.sampled_from([40_000, 2_000_000]),
    kind=st.sampled_from(["none", "standard", "minmax"]),
    fraction=st.sampled_from([1.0, 0.7]),
    classes=st.sampled_from([None, 2]),
    group=st.sampled_from([None, "team", "number"]),
)
def test_no_bit_depends_on_the_cache(
    dtype: str, features: int, rows: int, shards: int, group_rows: int, memory: int, classes: int | None,
    group: str | None, **how: Any,
) -> None:  # fmt: skip
    rng = np.random.default_rng(rows)
    x: Any = rng.integers(0, 256, (rows, features)) if dtype == "uint8" else rng.normal(3, 2, (rows, features))
    y = rng.integers(0, 2, rows) if classes else rng.normal(size=rows)
    extra = {
        "team": ["", "été", "b" * 300][:2] * rows,
        "number": rng.integers(-(2**60), 2**60, rows).tolist(),
    }
    with tempfile.TemporaryDirectory() as name:
        where = Path(name)
        dataset = write_dataset(
            where / "set", x, y, shards=shards, row_group_rows=group_rows, classes=classes, dtype=dtype,
            extra={"team": [extra["team"][row] for row in range(rows)], "number": extra["number"]},
            scale=0.5 if dtype == "uint8" else 1.0,
        )  # fmt: skip
        cache = DecodedCache(str(where / "cache"))
        how = {**how, "memory": min(memory, rows * features * 8 // 2) if memory < 10**6 else memory, "group": group}
        how["window"] = min(how["window"], max(1, how["memory"] // (features * 8)))
        plain = everything(dataset, None, **how)
        for _ in ("made", "found"):
            assert same(everything(dataset, cache, **how), plain)
        assert len(files_of(cache)) == shards


@pytest.mark.parametrize("memory", [SMALL, LARGE])
def test_another_process_decodes_nothing(
    dataset: Dataset, cache: DecodedCache, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = [
        labels.row.tolist() for labels in ShardRows(dataset, [0, 1], memory_bytes=memory, decoded=cache).labels([1])
    ]
    forget()
    monkeypatch.setattr(module, "ShardReader", None)
    monkeypatch.setattr(decoded_rows, "ShardReader", None)
    again = ShardRows(dataset, [0, 1], memory_bytes=memory, decoded=cache)
    assert [labels.row.tolist() for labels in again.labels([1])] == first
    again.close()


def test_mapped_rows_are_shared_read_only_and_outlive_their_file(dataset: Dataset, cache: DecodedCache) -> None:
    everything(dataset, cache)
    forget()
    rows = ShardRows(dataset, range(SHARDS), memory_bytes=LARGE, extra_columns=["team"], decoded=cache)
    assert rows.block is not None and isinstance(rows.block.x, tuple)
    with pytest.raises(ValueError, match="read-only"):
        rows.block.x[0][0] = 0
    maps = Path("/proc/self/maps")
    if maps.exists():
        mapped = [line for line in maps.read_text().splitlines() if str(cache.folder) in line]
        assert len(mapped) == SHARDS
        assert all(line.split()[1] == "r--s" for line in mapped)
    before = [piece.tobytes() for piece in rows.block.x]
    for path in files_of(cache):
        path.unlink()
    assert [piece.tobytes() for piece in rows.block.x] == before


def _cut(data: bytes, at: int) -> bytes:
    return data[:at]


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]


def _zero(data: bytes, at: int) -> bytes:
    """A block that never reached the disk."""
    return data[:at] + bytes(min(512, len(data) - at)) + data[at + 512 :]


def damages(data: bytes, step: int) -> Iterator[bytes]:
    for damage, at in itertools.product((_cut, _flip, _zero), range(0, len(data), step)):
        yield damage(data, at)
    yield b""
    yield data + b"\0"


@pytest.mark.parametrize("memory", [SMALL, LARGE])
@pytest.mark.parametrize("step", [701, pytest.param(1, marks=pytest.mark.full)])
def test_damage_is_noticed_and_mended(dataset: Dataset, cache: DecodedCache, memory: int, step: int) -> None:
    plain = everything(dataset, None, memory=memory)
    everything(dataset, cache, memory=memory)
    path = files_of(cache)[1]
    whole = path.read_bytes()
    for damaged in damages(whole, step):
        path.write_bytes(damaged)
        assert same(everything(dataset, cache, memory=memory), plain)
        assert same(everything(dataset, cache, memory=memory), plain)  # the file is good again
        assert path.read_bytes() == whole or path.stat().st_size == len(whole)  # padding between texts means nothing


@pytest.mark.parametrize("memory", [SMALL, LARGE])
def test_the_files_of_others_are_never_used(
    dataset: Dataset,
    tmp_path: Path,
    memory: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    plain = everything(dataset, None, memory=memory)
    good = DecodedCache(str(tmp_path / "good"))
    everything(dataset, good, memory=memory)
    first = files_of(good)[0].name

    def linked_folder(cache: DecodedCache) -> None:
        cache.folder.parent.mkdir()
        cache.folder.symlink_to(good.folder)

    def linked_file(cache: DecodedCache) -> None:
        cache.folder.mkdir(parents=True)
        (cache.folder / first).symlink_to(good.folder / first)

    def writable_file(cache: DecodedCache) -> None:
        linked_file(cache)
        (cache.folder / first).unlink()
        (cache.folder / first).write_bytes((good.folder / first).read_bytes())
        (cache.folder / first).chmod(0o666)

    def pipe(cache: DecodedCache) -> None:
        cache.folder.mkdir(parents=True)
        os.mkfifo(cache.folder / first, 0o600)

    for number, prepare in enumerate((linked_folder, linked_file, writable_file, pipe)):
        caplog.clear()
        cache = DecodedCache(str(tmp_path / str(number)))
        prepare(cache)
        for _ in range(2):
            assert same(everything(dataset, cache, memory=memory), plain)
        assert [record.message for record in caplog.records if "cannot keep decoded rows" in record.message] == [
            record.message for record in caplog.records
        ]
        assert len(caplog.records) == 1, prepare.__name__
    caplog.clear()
    monkeypatch.setattr(os, "getuid", lambda: 12345)  # as another user sees it
    assert same(everything(dataset, good, memory=memory), plain)
    assert "belongs to another user" in caplog.text


def test_a_folder_that_others_may_enter_is_closed_to_them(dataset: Dataset, cache: DecodedCache) -> None:
    cache.folder.mkdir(parents=True, mode=0o755)
    everything(dataset, cache)
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in files_of(cache)} == {0o600}


def test_a_full_or_read_only_disk_costs_one_warning(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain = everything(dataset, None)
    (tmp_path / "file").write_bytes(b"")
    assert same(everything(dataset, DecodedCache(str(tmp_path / "file"))), plain)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    real = decoded_file.write_decoded

    def write(target: Any, *rest: Any) -> None:
        real(target, *rest)
        target.flush()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_decoded", write)
    cache = DecodedCache(str(tmp_path / "full"))
    for _ in range(2):
        assert same(everything(dataset, cache), plain)
    assert len(caplog.records) == 2
    assert "No space left" in caplog.text
    assert files_of(cache) == []


class _Killing:
    """A target of writes that ends its process at one of them."""

    def __init__(self, target: Any, writes: int) -> None:
        self._target, self._left = target, writes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    def write(self, data: Any) -> int:
        if not self._left:
            self._target.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1
        return int(self._target.write(data))


def in_child(work: Callable[[], Any]) -> int:
    process = os.fork()
    if process == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@pytest.mark.parametrize("writes", [0, 1, 7, pytest.param(11, marks=pytest.mark.full), 13])
def test_a_killed_writer_leaves_nothing_that_counts(dataset: Dataset, cache: DecodedCache, writes: int) -> None:
    plain = everything(dataset, None)
    real = decoded_file.write_decoded

    def killed() -> None:
        module.write_decoded = lambda target, *rest: real(_Killing(target, writes), *rest)  # type: ignore
        everything(dataset, cache)

    assert in_child(killed) == -signal.SIGKILL
    (left,) = files_of(cache)
    assert left.name.startswith(".")
    for _ in range(2):
        assert same(everything(dataset, cache), plain)
    assert len(files_of(cache)) == SHARDS and not left.exists()


def test_of_many_at_once_one_decodes_each_shard(
    dataset: Dataset, cache: DecodedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []

    class Counting(ShardReader):
        def __init__(self, dataset: Dataset, shard: int, *rest: Any) -> None:
            decoded.append(shard)
            super().__init__(dataset, shard, *rest)

    monkeypatch.setattr(module, "ShardReader", Counting)
    gate = threading.Barrier(6)

    def use(_: int) -> list[bytes]:
        gate.wait()
        files = cache.open(dataset, range(SHARDS), [], None)
        contents = [b"".join(rows.x.tobytes() for rows in files[shard].map_row_groups()) for shard in range(SHARDS)]
        for file in files.values():
            file.close()
        return contents

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(use, range(6)))
    assert all(result == results[0] for result in results)
    assert sorted(decoded) == [0, 1, 2]


def test_the_size_is_bounded(dataset: Dataset, tmp_path: Path) -> None:
    """Sizes as the manifest tells them: each shard counts as 400 KB, so two fit into a MB and three do not."""
    per_row = FEATURES * 4 + 16
    rows = (399 << 10) // per_row
    claimed = replace(dataset, shards=tuple(replace(shard, rows=rows, row_groups=1) for shard in dataset.shards))
    cache = DecodedCache(str(tmp_path / "small"), 1)
    limit, folder = 1 << 20, cache.folder
    folder.mkdir(parents=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        wanted = module._Wanted(handle, claimed, (), None)
        assert [wanted.end_of(shard) <= limit for shard in range(SHARDS)] == [True, True, False]
        for name, age in (("a", 3), ("b", 9), ("c", 1)):
            (folder / name).write_bytes(bytes(400 << 10))
            os.utime(folder / name, (1e9 - age, 1e9 - age))
        module._make_room(handle, limit - (400 << 10))
        assert [path.name for path in files_of(cache)] == ["c"]  # the others were used longer ago
    finally:
        os.close(handle)
    everything(dataset, cache)
    assert sum(path.stat().st_size for path in files_of(cache)) <= limit
    none = DecodedCache(str(tmp_path / "none"), 0)
    assert none.open(dataset, range(SHARDS), [], None) == {}


def test_what_does_not_fit_is_decoded_and_the_rest_kept(dataset: Dataset, cache: DecodedCache) -> None:
    plain = everything(dataset, None)
    form = decoded_file.RowForm.of(dataset, ["team"])
    cache._limit = lambda folder: 2 * form.bytes_of(dataset.shards[0])  # type: ignore[method-assign]
    for _ in range(2):
        assert same(everything(dataset, cache), plain)
    assert len(files_of(cache)) == 2


def test_a_shard_that_is_gone_or_shorter_is_still_refused(dataset: Dataset, cache: DecodedCache) -> None:
    everything(dataset, cache)
    path = Path(dataset.address) / dataset.shards[0].name
    data = path.read_bytes()
    for damage in (lambda: path.write_bytes(data[:-1]), path.unlink):
        damage()
        forget()
        with pytest.raises(MismatchError):
            ShardRows(dataset, [0], memory_bytes=LARGE, extra_columns=["team"], decoded=cache)


def test_small_rows_are_not_kept(dataset: Dataset, cache: DecodedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoded_rows, "LEAST_BYTES", module.LEAST_BYTES)
    everything(dataset, cache)
    assert not cache.folder.exists()


def test_what_is_configured() -> None:
    assert module.decoded_cache(Runtime(decoded_mb=0)) is None
    configured = module.decoded_cache(Runtime(decoded_mb=7, cache_dir="/scratch/me"))
    assert configured is not None and configured.folder == Path("/scratch/me/decoded")


def test_other_meanings_have_other_files(dataset: Dataset) -> None:
    names = {
        module._key(dataset, 0, []),
        module._key(dataset, 1, []),
        module._key(dataset, 0, ["team"]),
        module._key(replace(dataset, x_dtype="uint8"), 0, []),
        module._key(replace(dataset, task="regression", classes=()), 0, []),
        module._key(replace(dataset, features=1), 0, []),
    }
    assert len(names) == 6
    assert decoded_file.FORMAT == 1
