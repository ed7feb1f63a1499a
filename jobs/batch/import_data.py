"""Importing a directory of CSV or Parquet files by jobs: the bytes of an import by one process, made by many.

Three jobs of map tasks: the files are surveyed, their rows are encoded and dealt, the shards are written. The manifest
comes last, from here; whatever fails before leaves no dataset, no shard and no temporary file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from jobs.batch.import_job import PLAN, ImportJob, survey_name
from jobs.batch.launcher import MapSite
from jobs.runners.request import reachable
from nnlib.config.schema import Runtime
from nnlib.core.errors import JobError
from nnlib.data.dataset import Dataset, Shard
from nnlib.data.importing.formats.table import ReadOptions
from nnlib.data.importing.import_dataset import ImportOptions, check_options, choose, plan_import, write_manifest
from nnlib.data.importing.import_plan import BUCKET_BYTES, ImportPlan, class_rows
from nnlib.data.importing.import_steps import SPOOL_BYTES, RawFile, Source, merged, plan_to_bytes
from nnlib.data.importing.input_files import look, raw_files, sizes
from nnlib.data.importing.survey import Survey, require_rows
from nnlib.data.shard_writer import check_free, replacing
from nnlib.storage import Storage, storage

TASK_BYTES = 64 << 20
"""Raw bytes of a task together, at least (where cores would not idle): starting a container takes seconds."""

MEMORY_MB = (4 * SPOOL_BYTES + 8 * BUCKET_BYTES) >> 20
"""What a task holds at most besides Python: spools, a bucket being sorted, Arrow's copies of a block."""

SMALL_BYTES = 16 << 20
"""Raw bytes that one task reads in about the time of starting a container."""


def import_by_jobs(
    sources: Sequence[str],
    output: str,
    options: ImportOptions,
    runtime: Runtime,
    note: Callable[[str], None] = lambda text: None,
) -> Dataset:
    """Import CSV or Parquet files, or directories of them, to the address ``output``.

    Equals `nnlib.data.importing.import_dataset.import_dataset` of the same files in the same order, byte for byte.
    Raises as that does, `JobError` besides where a task failed for good."""
    target = reachable(output, runtime.runner, "a folder")
    files = storage(target)
    check_free(files, options.overwrite)
    check_options(options)
    found, format_ = raw_files(sources, options.format)
    addresses = [reachable(file, runtime.runner, "files") for file in found]
    read = ReadOptions(format_, options.delimiter, options.header, options.features, options.label)
    first = look(addresses[0], read)
    choice = choose(first, options)
    source = Source(first.file, first.columns, dict(first.shapes), choice, read)
    spec = {"--spec": ("import.json", json.dumps(source.to_json()).encode())}
    with MapSite(runtime, "import", addresses[0], spec, note, ImportJob.__module__) as site:
        bytes_ = sizes(addresses)
        groups = grouped(bytes_, TASK_BYTES, site.slots or 1)
        costs: dict[str, Any] = {"memory_mb": MEMORY_MB, "small": sum(bytes_) <= SMALL_BYTES}
        note(f"reading {len(addresses)} files")
        lines = [{"worker": task, "files": addresses[part]} for task, part in enumerate(groups)]
        site.run(ImportJob, "survey", [json.dumps(line) for line in lines], **costs)
        told = [facts for task in range(len(groups)) for facts in json.loads(site.shared.read(survey_name(task)))]
        survey, each = merged(source, addresses, told)
        require_rows(survey)
        plan = plan_import(first, choice, survey, options)
        raw = _raw_files(plan, addresses, [facts["sha256"] for facts in told], each)
        site.shared.write(PLAN, plan_to_bytes(plan, raw))
        more = {"--import-plan": site.address(PLAN)}
        note(f"encoding {plan.rows:,} rows")
        lines = [{"worker": task, "first": part.start, "end": part.stop} for task, part in enumerate(groups)]
        site.run(ImportJob, "deal", [json.dumps(line) for line in lines], more, **costs)
        note(f"writing {plan.shards} shards")
        shard_bytes = [-(-sum(bytes_) // plan.shards)] * plan.shards
        lines = [
            {"worker": task, "shards": list(range(part.start, part.stop)), "tasks": len(groups), "output": target}
            for task, part in enumerate(grouped(shard_bytes, TASK_BYTES, site.slots or 1))
        ]
        with replacing(files), _given_up_on_error(site.shared, files):
            records = site.run(ImportJob, "write", [json.dumps(line) for line in lines], more, **costs)
            dataset = plan.dataset(output, [_shard(records[key]) for key in sorted(records)])
            written = sum(shard.rows for shard in dataset.shards)
            if len(dataset.shards) != plan.shards or written != plan.rows:
                raise JobError(
                    f"{written} rows in {len(dataset.shards)} shards were written, not {plan.rows} in {plan.shards}"
                )
            write_manifest(files, dataset)
    files.sweep()
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


def _raw_files(
    plan: ImportPlan, addresses: Sequence[str], hashes: Sequence[str], surveys: Sequence[Survey]
) -> list[RawFile]:
    files: list[RawFile] = []
    first = 0
    before = None if plan.class_rows is None else [0] * len(plan.class_rows)
    for address, digest, found in zip(addresses, hashes, surveys, strict=True):
        files.append(RawFile(address, digest, found.rows, first, None if before is None else tuple(before)))
        first += found.rows
        if before is not None:
            own = class_rows(plan.encoding, found.label.counts)
            before = [count + more for count, more in zip(before, own, strict=True)]
    return files


def _shard(record: dict[str, Any]) -> Shard:
    return Shard(**{**record, "class_counts": tuple(record["class_counts"])})


@contextmanager
def _given_up_on_error(shared: Storage, files: Storage) -> Iterator[None]:
    """Tell tasks that may still run after a failure that their shards are no longer wanted, then sweep."""
    try:
        yield
    except BaseException:
        shared.delete(PLAN)
        files.sweep()
        raise
