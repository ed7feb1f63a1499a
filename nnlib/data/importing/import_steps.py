"""The work of the tasks of an import by a job: each task handles some files of the input, or some shards.

1. `survey_file` reads a file once. Its surveys, merged in the order of the files, are the survey of all rows.
2. `partition_files` encodes the rows of some files and writes them, partitioned by shard, into one file.
3. `write_shards` reads the partitions of a shard from all those files, sorts them and writes the shard.

The bytes are those of an import by one process (`nnlib.data.importing.import_dataset`): a row's shard and its order
there depend on its position in the input alone, and every file is cut into the same blocks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from nnlib.core.errors import JobError, MismatchError
from nnlib.data.dataset import Shard
from nnlib.data.importing.column_choice import ColumnChoice
from nnlib.data.importing.formats.table import Table, check_same_columns
from nnlib.data.importing.import_plan import ImportPlan, count_class_rows
from nnlib.data.importing.input_files import open_input_file
from nnlib.data.importing.partition_file import read_partitions, write_partitions
from nnlib.data.importing.partitioner import ShardPartitioner, encode_rows
from nnlib.data.importing.read_options import ReadOptions
from nnlib.data.importing.spill_buffer import BUFFER_BYTES, SpillBuffer
from nnlib.data.importing.survey import Survey, survey_table
from nnlib.data.shard_writer import write_shard
from nnlib.storage import Storage


@dataclass(frozen=True)
class InputSchema:
    """What all files of the input have in common.

    ``columns`` and ``shapes`` are those of the first file, which the others must have too (`Table`). ``choice`` says
    which columns are used, ``options`` how files are read.
    """

    first_file: str
    columns: tuple[str, ...]
    shapes: dict[str, tuple[int, ...]]
    choice: ColumnChoice
    options: ReadOptions

    @property
    def first_table(self) -> Table:
        """The first file without its rows, to compare other files with."""
        return Table(self.first_file, self.columns, lambda roles: iter(()), self.shapes)

    def to_json(self) -> dict[str, Any]:
        """Return the schema as JSON values; `from_json` is the inverse."""
        return {
            "first": self.first_file,
            "columns": list(self.columns),
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "choice": self.choice.to_json(),
            "options": self.options.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> InputSchema:
        """Return the schema that `to_json` wrote."""
        shapes = {name: tuple(shape) for name, shape in data["shapes"].items()}
        choice = ColumnChoice.from_json(data["choice"])
        return cls(data["first"], tuple(data["columns"]), shapes, choice, ReadOptions.from_json(data["options"]))


@dataclass(frozen=True)
class FileSurvey:
    """The survey of one file of the input, and the SHA-256 of the file's bytes at that time."""

    file: str
    sha256: str
    survey: Survey

    def to_json(self) -> dict[str, Any]:
        """Return the hash and the survey as JSON values; `from_json` is the inverse."""
        return {"sha256": self.sha256, "survey": self.survey.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], schema: InputSchema, file: str) -> FileSurvey:
        """Return the survey of ``file`` that `to_json` wrote."""
        return cls(file, data["sha256"], Survey.from_json(data["survey"], schema.choice, file))


@dataclass(frozen=True)
class InputFile:
    """A file of the input, and where its rows stand among all rows.

    ``sha256``: of its bytes when it was surveyed. ``first_row``: the id of its first row. ``class_rows_before``: rows
    of each class in the files before it, where rows go to shards by label; else None.
    """

    address: str
    sha256: str
    rows: int
    first_row: int
    class_rows_before: tuple[int, ...] | None

    def to_json(self) -> dict[str, Any]:
        """Return the file as JSON values; `from_json` is the inverse."""
        return {
            "address": self.address,
            "sha256": self.sha256,
            "rows": self.rows,
            "first": self.first_row,
            "before": self.class_rows_before,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> InputFile:
        """Return the file that `to_json` wrote."""
        before = None if data["before"] is None else tuple(data["before"])
        return cls(data["address"], data["sha256"], data["rows"], data["first"], before)


def survey_file(schema: InputSchema, file: str) -> FileSurvey:
    """Survey one file. Raises `DataError` for bad data and for other columns than ``schema`` has."""
    with open_input_file(file, schema.options) as (table, digest):
        check_same_columns([schema.first_table, table])
        return FileSurvey(file, digest, survey_table(table, schema.choice, None))


def merge_surveys(schema: InputSchema, surveys: Sequence[FileSurvey]) -> Survey:
    """Return the survey of all files, from those of each in the order of the files. Raises `DataError` where they do
    not fit together."""
    merged = Survey.empty(schema.choice, surveys[0].file)
    for each in surveys:
        merged.merge(each.survey, each.file)
    return merged


def locate_files(plan: ImportPlan, surveys: Sequence[FileSurvey]) -> list[InputFile]:
    """Return the files with the position of their rows among all rows; ``surveys`` must be in the files' order."""
    files: list[InputFile] = []
    first_row = 0
    before = None if plan.class_rows is None else [0] * len(plan.class_rows)
    for each in surveys:
        rows = each.survey.rows
        files.append(InputFile(each.file, each.sha256, rows, first_row, None if before is None else tuple(before)))
        first_row += rows
        if before is not None:
            counts = count_class_rows(plan.encoding, each.survey.label.counts)
            before = [count + more for count, more in zip(before, counts, strict=True)]
    return files


def partition_files(
    schema: InputSchema, plan: ImportPlan, files: Sequence[InputFile], target: Storage, name: str
) -> None:
    """Encode all rows of some files and write them, partitioned, into the file ``name`` of ``target``.

    Raises `MismatchError` for a file that is no longer what was surveyed.
    """
    with SpillBuffer(memory_bytes=BUFFER_BYTES) as partitions:
        for file in files:
            with (
                open_input_file(file.address, schema.options) as (table, digest),
                SpillBuffer(memory_bytes=BUFFER_BYTES) as surveyed,
            ):
                if digest != file.sha256:
                    raise MismatchError("changed while it was imported", hint="run it again", file=file.address)
                origins = survey_table(table, plan.choice, surveyed).origins
                rows = encode_rows(surveyed, plan, origins, file.first_row)
                ShardPartitioner(plan, file.class_rows_before).partition(rows, partitions)
        with target.writing(name) as stream:
            write_partitions(stream, partitions, plan)


def write_shards(
    plan: ImportPlan,
    shards: Sequence[int],
    partition_files: Storage,
    names: Sequence[str],
    output: Storage,
    is_wanted: Callable[[], bool],
) -> Iterator[Shard]:
    """Write some shards to ``output`` from all partition files, ``names`` of ``partition_files``, and yield each.

    ``is_wanted`` is asked before a shard gets its name, because an import that was cancelled must leave none. Raises
    `JobError` where the answer is no.
    """
    partitioner = ShardPartitioner(plan)
    for shard in shards:
        with SpillBuffer(memory_bytes=BUFFER_BYTES) as partitions:
            for name in names:
                for partition, batch in read_partitions(partition_files, name, partitioner.partitions_of(shard), plan):
                    partitions.put(partition, batch)
            batches = _while_wanted(partitioner.sorted_rows(shard, partitions), is_wanted)
            classes = len(plan.encoding.classes)
            yield write_shard(output, shard, plan.schema, plan.row_group_rows, classes, batches)


def _while_wanted(batches: Iterable[pa.RecordBatch], is_wanted: Callable[[], bool]) -> Iterator[pa.RecordBatch]:
    yield from batches
    if not is_wanted():
        raise JobError("the import that this task belongs to was cancelled")


def encode_plan(plan: ImportPlan, files: Sequence[InputFile]) -> bytes:
    """Return the plan and the files of the input as bytes, for the tasks of the second and third step."""
    return json.dumps({"plan": plan.to_json(), "files": [file.to_json() for file in files]}).encode()


def decode_plan(data: bytes) -> tuple[ImportPlan, list[InputFile]]:
    """Return the plan and the files that `encode_plan` made into bytes."""
    facts = json.loads(data)
    return ImportPlan.from_json(facts["plan"]), [InputFile.from_json(file) for file in facts["files"]]
