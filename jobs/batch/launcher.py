"""Launches the jobs of a command that trains nothing (predicting, importing), whichever runner runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from jobs.batch.map_job import MapJob
from jobs.runners.lines import ERROR_KEY, Line, decode_record
from jobs.runners.registry import open_session
from jobs.runners.request import JobRequest, TaskDemand
from jobs.runners.session import SessionOptions
from nnlib.config.schema import Runtime
from nnlib.core.errors import JobError, from_record
from nnlib.core.numerics import blas_threads

Notify = Callable[[str], None]
"""Takes a line for people."""


class MapLauncher:
    """Launches jobs of map tasks alone, all of one command.

    A context manager: nothing temporary is left. ``shared`` is a folder that tasks on any node can write to and read
    from while the command lasts; ``slots`` is the number of tasks that run at once, None if a cluster decides that.
    """

    def __init__(
        self,
        runtime: Runtime,
        name: str,
        near: str,
        files: Mapping[str, tuple[str, bytes]],
        notify: Notify,
        module: str,
        distributions: Sequence[str] = (),
        reached: Sequence[str] = (),
    ) -> None:
        """``name`` is the experiment's or the command's; ``near`` is an address that the jobs read; ``files`` are what
        every job's tasks read (option -> name, content); ``module`` is that of the jobs' class;
        ``distributions`` are what tasks need besides what all need; ``reached`` are other addresses that they read or
        write."""
        self._name = name
        with ExitStack() as stack:
            stack.enter_context(blas_threads(runtime.blas_threads))
            self._session = stack.enter_context(
                open_session(
                    SessionOptions(
                        runtime=runtime,
                        near=near,
                        modules=(module,),
                        distributions=distributions,
                        reached=reached,
                        notify=lambda note: notify(note.text),
                    )
                )
            )
            self.shared, self.slots = self._session.shared, self._session.slots
            self._files = {option: self._session.put(file, content) for option, (file, content) in files.items()}
            self._stack = stack.pop_all()

    def __enter__(self) -> MapLauncher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def address(self, name: str) -> str:
        """Return the address of a file of the shared folder, as tasks know it."""
        return self._session.address(name)

    def run(
        self,
        job: type[MapJob],
        phase: str,
        lines: Sequence[str],
        files: Mapping[str, str] | None = None,
        *,
        memory_mb: int = 0,
        is_small: bool = False,
    ) -> dict[bytes, dict[str, Any]]:
        """Run a job, a map task for each of ``lines``; return its records by key.

        ``files`` are more options -> addresses; ``memory_mb`` is what a task holds besides Python and its libraries; a
        small job takes less time than starting containers. Raises the first (by task) of the errors that tasks
        recorded, or `JobError` where one failed for good.
        """
        request = JobRequest(
            job=job,
            phase=phase,
            name=phase,
            experiment=self._name,
            label=phase,
            lines=tuple(lines),
            options=("--shared", self._session.address()),
            files={**self._files, **(files or {})},
            demand=TaskDemand(memory_mb),
            is_small=is_small,
        )
        return _records(self._session.run(request))


def _records(lines: Iterable[Line]) -> dict[bytes, dict[str, Any]]:
    records: dict[bytes, dict[str, Any]] = {}
    errors: list[tuple[int, dict[str, Any]]] = []
    for key, value in lines:
        if key == ERROR_KEY:
            errors.append(decode_record(value))
        elif key in records:
            raise JobError(f"two tasks have a record {key.decode('ascii', 'backslashreplace')}")
        else:
            records[key] = decode_record(value)[1]
    if errors:
        error = from_record(min(errors, key=lambda pair: pair[0])[1])
        if len(errors) > 1:
            error.message += f" (and {len(errors) - 1} more errors)"
        raise error
    return records
