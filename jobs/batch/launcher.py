"""Where the jobs of a command that trains nothing (predicting, importing) start from, whichever runner runs them."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any

from jobs.batch.map_job import MapJob
from jobs.batch.request import MapRequest
from jobs.runners.lines import ERROR_KEY, Line, decode_record
from jobs.runners.local.processes import process_starter
from jobs.runners.local.task_pool import TaskPool
from jobs.runners.registry import run_job
from nnlib.config.schema import Runtime
from nnlib.core.errors import JobError, from_record
from nnlib.core.numerics import blas_threads
from nnlib.core.scratch import scratch_folder, write_file
from nnlib.storage import LocalStorage, Storage

if TYPE_CHECKING:
    from jobs.runners.hadoop.map_site import HadoopMapSite

Note = Callable[[str], None]


class MapSite:
    """Runs such jobs of one command. Use as a context manager: nothing temporary is left.

    ``files`` are what every job's tasks read (option -> name, bytes); `shared` is a folder that tasks on any node can
    write to and read from while the command lasts.
    """

    def __init__(
        self, runtime: Runtime, name: str, near: str, files: Mapping[str, tuple[str, bytes]], note: Note, module: str
    ) -> None:
        """``near`` is an address that the jobs read, ``module`` is that of their class."""
        self._runtime = runtime
        self._site: HadoopMapSite | None = None
        self._pool: TaskPool | None = None
        with ExitStack() as stack:
            stack.enter_context(blas_threads(runtime.blas_threads))
            self._folder = stack.enter_context(scratch_folder())
            self.shared: Storage = LocalStorage(self._folder / "shared")
            contents = dict(files.values())
            if runtime.runner == "hadoop":
                from jobs.runners.hadoop.map_site import HadoopMapSite  # late: other runners need nothing of a cluster

                self._site = HadoopMapSite(runtime, name, near, contents, note, lambda **facts: None)
                stack.callback(self._site.close)
                self.shared = self._site.scratch.storage
            else:
                self.shared.write_all(contents)
            if runtime.runner == "local":
                self._pool = TaskPool(
                    process_starter(runtime.blas_threads, stack, (module,)),
                    cores=runtime.cores or os.cpu_count() or 1,
                    retries=runtime.retries,
                    timeout_seconds=runtime.task_timeout_seconds,
                    note=note,
                )
            self._root = self.shared.root if self._site is None else self._site.scratch.root
            self._files = {option: self.address(file) for option, (file, _) in files.items()}
            self._stack = stack.pop_all()

    def __enter__(self) -> MapSite:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def address(self, name: str) -> str:
        """Of a file of the shared folder."""
        return f"{self._root}/{name}"

    @property
    def slots(self) -> int | None:
        """Tasks that run at once; None if that is the cluster's to say."""
        if self._runtime.runner == "hadoop":
            return None
        return 1 if self._pool is None else self._runtime.cores or os.cpu_count() or 1

    def run(
        self,
        kind: type[MapJob],
        phase: str,
        lines: Sequence[str],
        files: Mapping[str, str] | None = None,
        *,
        memory_mb: int = 0,
        small: bool = False,
    ) -> dict[bytes, dict[str, Any]]:
        """Run a job over lines; its records by key. ``files`` are more options -> addresses.

        Raises the first (by task) of the errors that tasks recorded, or `JobError` where one failed for good.
        """
        plan = [self._folder / f"{phase}-{number:06d}.plan" for number in range(len(lines))]
        for path, line in zip(plan, lines, strict=True):
            write_file(path, f"{line}\n".encode())
        request = MapRequest(
            phase=phase,
            plan=[type(path)(glob.escape(str(path))) for path in plan],
            folder=self._folder,
            blas_threads=self._runtime.blas_threads,
            pool=self._pool,
            site=self._site,
            kind=kind,
            lines=lines,
            files={**self._files, **(files or {})},
            shared=self._root,
            memory_mb=memory_mb,
            small=small,
        )
        return _records(run_job(self._runtime.runner, request))


def _records(lines: Iterable[Line]) -> dict[bytes, dict[str, Any]]:
    records: dict[bytes, dict[str, Any]] = {}
    errors: list[tuple[int, dict[str, Any]]] = []
    for key, value in lines:
        if key == ERROR_KEY:
            errors.append(decode_record(value))
        elif key in records:
            raise JobError(f"two tasks gave a record {key.decode('ascii', 'backslashreplace')}")
        else:
            records[key] = decode_record(value)[1]
    if errors:
        error = from_record(min(errors, key=lambda pair: pair[0])[1])
        if len(errors) > 1:
            error.message += f" (and {len(errors) - 1} more errors)"
        raise error
    return records
