"""Importing a directory of CSV or Parquet files by jobs: the bytes of an import by one process, made by many.

Three jobs of map tasks: the files are surveyed, their rows are encoded and partitioned, the shards are written. The
manifest comes last, from here; whatever fails before leaves no dataset, no shard and no temporary file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from jobs.batch.import_job import PLAN, ImportJob, survey_name
from jobs.batch.launcher import MapLauncher
from jobs.runners.addresses import reachable
from nnlib.config.schema import Runtime
from nnlib.core.errors import JobError
from nnlib.data.dataset import Dataset, Shard
from nnlib.data.dataset_output import DatasetOutput, dataset_output
from nnlib.data.importing.column_choice import choose_columns
from nnlib.data.importing.import_options import ImportOptions
from nnlib.data.importing.import_plan import BUCKET_BYTES, make_plan
from nnlib.data.importing.import_steps import FileSurvey, InputSchema, encode_plan, locate_files, merge_surveys
from nnlib.data.importing.input_files import file_sizes, list_input_files, read_columns
from nnlib.data.importing.source_files import input_addresses
from nnlib.data.importing.spill_buffer import BUFFER_BYTES
from nnlib.data.importing.survey import require_rows
from nnlib.data.shard_writer import write_manifest
from nnlib.storage import Storage, storage
from nnlib.storage.outputs import refuse_overlap

TASK_BYTES = 64 << 20
"""Raw bytes of a task together, at least (where cores would not idle): starting a container takes seconds."""

MEMORY_MB = (4 * BUFFER_BYTES + 8 * BUCKET_BYTES) >> 20
"""What a task holds at most besides Python: buffers, a bucket being sorted, Arrow's copies of a block."""

SMALL_BYTES = 16 << 20
"""Raw bytes that one task reads in about the time of starting a container."""


def import_by_jobs(
    sources: Sequence[str],
    output: str,
    options: ImportOptions,
    runtime: Runtime,
    note: Callable[[str], None] = lambda text: None,
) -> Dataset:
    """Import CSV, Parquet or Arrow files, or directories of them, to the address ``output``.

    Equals `nnlib.data.importing.import_dataset.import_dataset` of the same files in the same order, byte for byte.
    Raises as that does, `JobError` besides where a task failed for good."""
    target = reachable(output, runtime.runner, "a folder")
    options.check()
    refuse_overlap(target, input_addresses(sources, options.label))
    with dataset_output(storage(target), options.shards, overwrite=options.overwrite) as place:
        return _import(sources, place, target, output, options, runtime, note)


def _import(
    sources: Sequence[str],
    place: DatasetOutput,
    target: str,
    output: str,
    options: ImportOptions,
    runtime: Runtime,
    note: Callable[[str], None],
) -> Dataset:
    """Import by three jobs. ``target`` is the address ``output`` as tasks know it."""
    files = place.files
    input_files, reading = list_input_files(sources, options.reading)
    addresses = [reachable(file, runtime.runner, "files") for file in input_files]
    first = read_columns(addresses, reading)
    assert first.reading is not None
    choice = choose_columns(first, options)
    schema = InputSchema(first.file, first.columns, dict(first.shapes), choice, first.reading)
    spec = {"--spec": ("import.json", json.dumps(schema.to_json()).encode())}
    module = ImportJob.__module__
    with MapLauncher(runtime, "import", addresses[0], spec, note, module, reached=[target]) as launcher:
        bytes_ = file_sizes(addresses)
        groups = grouped(bytes_, TASK_BYTES, launcher.slots or 1)
        costs: dict[str, Any] = {"memory_mb": MEMORY_MB, "is_small": sum(bytes_) <= SMALL_BYTES}
        note(f"reading {len(addresses)} files")
        lines = [{"worker": task, "files": addresses[part]} for task, part in enumerate(groups)]
        launcher.run(ImportJob, "survey", [json.dumps(line) for line in lines], **costs)
        records = [
            facts for task in range(len(groups)) for facts in json.loads(launcher.shared.read(survey_name(task)))
        ]
        surveys = [
            FileSurvey.from_json(facts, schema, address) for facts, address in zip(records, addresses, strict=True)
        ]
        for each in surveys:
            if not each.survey.rows:
                note(f"{each.file}: skipped, it has no rows")
        survey = merge_surveys(schema, surveys)
        require_rows(survey)
        plan = make_plan(replace(first, file=addresses[0]), choice, survey, options)
        launcher.shared.write(PLAN, encode_plan(plan, locate_files(plan, surveys)))
        more = {"--import-plan": launcher.address(PLAN)}
        note(f"encoding {plan.rows:,} rows")
        lines = [{"worker": task, "first": part.start, "end": part.stop} for task, part in enumerate(groups)]
        launcher.run(ImportJob, "deal", [json.dumps(line) for line in lines], more, **costs)
        note(f"writing {plan.shards} shards")
        shard_bytes = [-(-sum(bytes_) // plan.shards)] * plan.shards
        lines = [
            {"worker": task, "shards": list(range(part.start, part.stop)), "tasks": len(groups), "output": target}
            for task, part in enumerate(grouped(shard_bytes, TASK_BYTES, launcher.slots or 1))
        ]
        with place.replacing(), _given_up_on_error(launcher.shared, place):
            shards = launcher.run(ImportJob, "write", [json.dumps(line) for line in lines], more, **costs)
            dataset = plan.dataset(output, [Shard.from_json(shards[key]) for key in sorted(shards)])
            written = sum(shard.rows for shard in dataset.shards)
            if len(dataset.shards) != plan.shards or written != plan.rows:
                raise JobError(
                    f"{written} rows in {len(dataset.shards)} shards were written, not {plan.rows} in {plan.shards}"
                )
            write_manifest(files, dataset)
    place.sweep()
    return dataset


def grouped(sizes: Sequence[int], least: int, slots: int) -> list[slice]:
    """Consecutive items in groups of at least ``least`` bytes, or of less where fewer than ``slots`` groups came of it;
    none is empty."""
    total = sum(sizes)
    wanted = min(len(sizes), max(slots, total // least, 1))
    groups: list[slice] = []
    start = done = 0
    for index, size in enumerate(sizes):
        done += size
        left = len(sizes) - index - 1
        open_ = wanted - len(groups) - 1
        if left == 0 or (open_ > 0 and (done * wanted >= total * (len(groups) + 1) or left == open_)):
            groups.append(slice(start, index + 1))
            start = index + 1
    return groups


@contextmanager
def _given_up_on_error(shared: Storage, place: DatasetOutput) -> Iterator[None]:
    """After a failure, delete the plan, so that tasks that still run write no shards, then sweep."""
    try:
        yield
    except BaseException:
        shared.delete(PLAN)
        place.sweep()
        raise
