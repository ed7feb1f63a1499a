"""A session: the jobs of one command, run one after the other by one runner.

Every runner has one class of sessions; `jobs.runners.registry.open_session` makes one. What calls it knows this
interface alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

from jobs.runners.lines import Line
from jobs.runners.local.chaos import Chaos
from jobs.runners.request import JobRequest
from nnlib.config.schema import Runtime
from nnlib.core.events import Note
from nnlib.core.scratch import scratch_folder, write_file
from nnlib.run.run_events import RunEvent
from nnlib.storage import Access, LocalStorage, Storage, access_to


def record_nothing(event: RunEvent) -> None:
    """Record no event: for commands without a run directory."""


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """What the jobs of a command have in common.

    ``near`` is an address that the tasks read: a cluster's staging folder is on the same file system. ``modules`` are
    what every task imports, ``distributions`` those that tasks need and that not every environment for nodes has.
    ``notify`` takes notes for people, ``record`` the run's events. ``chaos`` injects
    faults into tasks. ``run`` is the address of the run whose lock the command holds, if it holds one. ``reached`` are
    the addresses of what tasks read or write besides ``near`` and the run.
    """

    runtime: Runtime
    near: str
    modules: Sequence[str]
    notify: Callable[[Note], None]
    distributions: Sequence[str] = ()
    record: Callable[[RunEvent], None] = record_nothing
    chaos: Chaos | None = None
    run: str | None = None
    reached: Sequence[str] = ()

    @cached_property
    def access(self) -> Access:
        """What tasks need to reach all that they read and write."""
        return access_to([self.near, *([] if self.run is None else [self.run]), *self.reached])


class Session(ABC):
    """Runs jobs, until it is closed. A context manager: nothing temporary is left.

    ``shared`` is a folder that tasks, wherever they run, and the command can read and write while the session lasts.
    ``slots`` is the number of tasks that run at once, None where a cluster decides that.
    """

    shared: Storage
    slots: int | None

    def __init__(self) -> None:
        self._stack = ExitStack()

    @abstractmethod
    def run(self, job: JobRequest) -> Iterator[Line]:
        """Run a job and yield its output lines, in no particular order.

        Raises `JobError` when a task fails for good. Errors that tasks foresaw come as lines of
        `jobs.runners.lines.ERROR_KEY`.
        """

    @abstractmethod
    def put(self, name: str, data: bytes) -> str:
        """Write a file of the shared folder; return its address for tasks."""

    @abstractmethod
    def address(self, name: str = "") -> str:
        """Return the address of a file of the shared folder, or of the folder itself, as tasks know it."""

    def end_task(self, worker: int, attempt: str) -> None:  # noqa: B027  (most runners need not end anything)
        """End an attempt of the running job's map task ``worker``, if that still runs; the runner starts another."""

    def end_job(self) -> None:  # noqa: B027
        """End the running job, where it does not end by itself; a thread that waits for it gets a `JobError`."""

    @property
    def queued(self) -> bool:
        """Whether a cluster has accepted a job of this session, and may let it wait for resources."""
        return False

    @property
    def loss_seconds(self) -> float:
        """Seconds that may pass until a cluster has noticed that a machine is lost, and starts its tasks elsewhere."""
        return 0.0

    @property
    def job(self) -> str | None:
        """The name of the job that runs now, such as "train 3"; None if none does, or it is not known."""
        return None

    @property
    def application(self) -> str | None:
        """The name by which a cluster knows the job that runs now."""
        return None

    @property
    def task_folder(self) -> str | None:
        """The folder of this machine where the running tasks write their messages, if they run here."""
        return None

    def summary(self) -> str | None:
        """Return a line for people about what the session did besides running its jobs; None if it did nothing."""
        return None

    def close(self) -> None:
        """End whatever still runs and delete what is temporary."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class MachineSession(Session):
    """A session whose tasks run on this machine: what they share is a temporary folder."""

    def __init__(self) -> None:
        super().__init__()
        self.folder: Path = self._stack.enter_context(scratch_folder())
        (self.folder / "shared").mkdir()
        self.shared = LocalStorage(self.folder / "shared")

    def put(self, name: str, data: bytes) -> str:
        write_file(self.folder / "shared" / name, data)
        return self.address(name)

    def address(self, name: str = "") -> str:
        return f"{self.shared.root}/{name}" if name else self.shared.root
