"""The import job, as an mrjob job of three phases of map tasks (`nnlib.data.importing.import_steps`).

The results of one phase for the next lie in a folder that all tasks share; the job's output lists them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from jobs.batch.map_job import MapJob
from jobs.runners.lines import Line, encode_record
from nnlib.core.liveness import report_activity
from nnlib.data.importing.import_steps import InputSchema, decode_plan, partition_files, survey_file, write_shards
from nnlib.storage import storage

PLAN = "import-plan.json"
"""Name of the plan in the shared folder. Tasks write shards only while it exists."""


def survey_name(task: int) -> str:
    """Return the name of a task's survey in the shared folder."""
    return f"survey-{task:06d}.json"


def partition_file_name(task: int) -> str:
    """Return the name of the file with a task's encoded rows in the shared folder."""
    return f"dealt-{task:06d}"


class ImportJob(MapJob):
    """A phase of an import. A line says which files (survey, deal) or shards (write) are the task's."""

    def add_task_args(self) -> None:
        super().add_task_args()
        self.add_file_arg("--import-plan", default=None)

    def work(self, line: str) -> Iterator[Line]:
        phases: dict[str, Callable[..., Iterator[Line]]] = {
            "survey": self._survey,
            "deal": self._deal,
            "write": self._write,
        }
        report_activity(phase=self.options.phase)
        yield from phases[self.options.phase](**json.loads(line))

    def _survey(self, worker: int, files: list[str]) -> Iterator[Line]:
        surveys = [survey_file(self._schema(), file) for file in files]
        records = [survey.to_json() for survey in surveys]
        storage(self.options.shared).write(survey_name(worker), json.dumps(records).encode())
        rows = sum(survey.survey.rows for survey in surveys)
        self.count("rows surveyed", rows)
        yield b"%08d" % worker, encode_record(worker, {"rows": rows})

    def _deal(self, worker: int, first: int, end: int) -> Iterator[Line]:
        plan, files = decode_plan(Path(self.options.import_plan).read_bytes())
        mine = files[first:end]
        partition_files(self._schema(), plan, mine, storage(self.options.shared), partition_file_name(worker))
        rows = sum(file.rows for file in mine)
        self.count("rows dealt", rows)
        yield b"%08d" % worker, encode_record(worker, {"rows": rows})

    def _write(self, worker: int, shards: list[int], tasks: int, output: str) -> Iterator[Line]:
        plan, _ = decode_plan(Path(self.options.import_plan).read_bytes())
        shared = storage(self.options.shared)
        names = [partition_file_name(task) for task in range(tasks)]
        written = write_shards(plan, shards, shared, names, storage(output), lambda: shared.exists(PLAN))
        for index, shard in zip(shards, written, strict=True):
            self.count("rows written", shard.rows)
            yield b"%08d" % index, encode_record(worker, shard.to_json())

    def _schema(self) -> InputSchema:
        return InputSchema.from_json(json.loads(Path(self.options.spec).read_bytes()))


if __name__ == "__main__":
    ImportJob.run()
