"""What the tasks of an import do, each with some raw files or some shards of its own.

1. `survey_file`: learn a file's classes, categories and means. Merged in the files' order they are those of all rows.
2. `deal_files`: encode the rows of some files and lay them on piles, one for each shard and bucket, in one file.
3. `write_shards`: gather a shard's piles from all those files, sort them, write the shard.

The bytes are those of an import by one process (`nnlib.data.importing.import_dataset`): which shard a row goes to and
where it lies there depend on its position alone, and every file is cut into the same blocks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from nnlib.core.errors import JobError, MismatchError
from nnlib.core.liveness import beat
from nnlib.data.dataset import Shard
from nnlib.data.importing.formats.table import ReadOptions, Table, check_same
from nnlib.data.importing.import_plan import Dealer, ImportPlan, encoded
from nnlib.data.importing.input_files import opened
from nnlib.data.importing.spill_buffer import Spool
from nnlib.data.importing.survey import Choice, Survey, survey_table
from nnlib.data.shard_writer import write_shard
from nnlib.storage import Storage

SPOOL_BYTES = 32 << 20


@dataclass(frozen=True)
class RawFile:
    """A raw file: its hash and rows, the id of its first row, and rows by class before it (where rows are dealt by
    label)."""

    address: str
    sha256: str
    rows: int
    first: int
    before: tuple[int, ...] | None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RawFile:
        before = None if data["before"] is None else tuple(data["before"])
        return cls(data["address"], data["sha256"], data["rows"], data["first"], before)


@dataclass(frozen=True)
class Source:
    """How raw files are read: the columns and shapes of the first one, which the others must have, and what for."""

    first: str
    columns: tuple[str, ...]
    shapes: dict[str, tuple[int, ...]]
    choice: Choice
    options: ReadOptions

    @property
    def table(self) -> Table:
        """The first file, as far as others are compared with it."""
        return Table(self.first, self.columns, lambda roles: iter(()), self.shapes)

    def to_json(self) -> dict[str, Any]:
        return {
            "first": self.first,
            "columns": list(self.columns),
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "choice": self.choice.to_json(),
            "options": asdict(self.options),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Source:
        shapes = {name: tuple(shape) for name, shape in data["shapes"].items()}
        options: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data["options"].items()
        }
        choice = Choice.from_json(data["choice"])
        return cls(data["first"], tuple(data["columns"]), shapes, choice, ReadOptions(**options))


def survey_file(source: Source, file: str) -> dict[str, Any]:
    """What a file holds, as JSON-able values for `merged`."""
    with opened(file, source.options) as (table, digest):
        check_same([source.table, table])
        return {"sha256": digest, "survey": survey_table(table, source.choice, None).to_json()}


def merged(source: Source, files: Sequence[str], told: Sequence[Mapping[str, Any]]) -> tuple[Survey, list[Survey]]:
    """What all files hold, given in order, and each of them."""
    each = [Survey.from_json(facts["survey"], source.choice, file) for file, facts in zip(files, told, strict=True)]
    found = Survey.nothing(source.choice, files[0])
    for file, survey in zip(files, each, strict=True):
        found.merge(survey, file)
    return found, each


def deal_files(source: Source, plan: ImportPlan, files: Sequence[RawFile], target: Storage, name: str) -> None:
    """Lay all rows of some files on piles, and write those into one file. Raises `MismatchError` where a raw file is no
    longer what it was."""
    with Spool(memory_bytes=SPOOL_BYTES) as dealt:
        for file in files:
            with opened(file.address, source.options) as (table, digest), Spool(memory_bytes=SPOOL_BYTES) as raw:
                if digest != file.sha256:
                    raise MismatchError("changed while it was imported", hint="run it again", file=file.address)
                places = survey_table(table, plan.choice, raw).places
                Dealer(plan, file.before).deal(encoded(raw, plan, places, file.first), dealt)
        with target.writing(name) as stream:
            write_piles(stream, dealt, plan)


def write_piles(stream: BinaryIO, piles: Spool, plan: ImportPlan) -> None:
    """All piles in order, each an Arrow stream (or nothing), then where each begins and the last one ends, as
    little-endian 64-bit integers."""
    offsets = [0]
    for pile in range(plan.shards * plan.buckets):
        beat()
        batches = list(piles.take(pile))
        size = 0
        if batches:
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, plan.schema) as writer:
                for batch in batches:
                    writer.write_batch(batch)
            size = stream.write(sink.getvalue())
        offsets.append(offsets[-1] + size)
    stream.write(np.asarray(offsets, "<u8").tobytes())


def read_piles(place: Storage, name: str, piles: range, plan: ImportPlan) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The batches of consecutive piles of such a file."""
    with place.open(name) as stream:
        index = 8 * (plan.shards * plan.buckets + 1)
        stream.seek(stream.seek(0, 2) - index + 8 * piles.start)
        offsets = np.frombuffer(stream.read(8 * (len(piles) + 1)), "<u8").tolist()
        stream.seek(offsets[0])
        for pile, (start, stop) in zip(piles, pairwise(offsets), strict=True):
            beat()
            if stop > start:
                with pa.ipc.open_stream(stream.read(stop - start)) as reader:
                    yield from ((pile, batch) for batch in reader)


def write_shards(
    plan: ImportPlan,
    shards: Sequence[int],
    dealt: Storage,
    names: Sequence[str],
    output: Storage,
    wanted: Callable[[], bool],
) -> Iterator[Shard]:
    """Write some shards from the files of all dealing tasks. ``wanted`` is asked before a shard gets its name, for an
    import that was given up must leave none."""
    dealer = Dealer(plan)
    for shard in shards:
        with Spool(memory_bytes=SPOOL_BYTES) as piles:
            for name in names:
                for pile, batch in read_piles(dealt, name, dealer.piles(shard), plan):
                    piles.put(pile, batch)
            batches = _while_wanted(dealer.shard(shard, piles), wanted)
            classes = len(plan.encoding.classes)
            yield write_shard(output, shard, plan.schema, plan.row_group_rows, classes, batches)


def _while_wanted(batches: Iterable[pa.RecordBatch], wanted: Callable[[], bool]) -> Iterator[pa.RecordBatch]:
    yield from batches
    if not wanted():
        raise JobError("the import that this task belongs to was given up")


def plan_to_bytes(plan: ImportPlan, files: Sequence[RawFile]) -> bytes:
    """What the second and third step's tasks read; `plan_from_bytes` is the inverse."""
    return json.dumps({"plan": plan.to_json(), "files": [asdict(file) for file in files]}).encode()


def plan_from_bytes(data: bytes) -> tuple[ImportPlan, list[RawFile]]:
    facts = json.loads(data)
    return ImportPlan.from_json(facts["plan"]), [RawFile.from_json(file) for file in facts["files"]]
