"""What runners are asked to run: a job, its arguments, and where its tasks' lines are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from jobs.runners.task_job import TaskJob
from nnlib.config.schema import Hadoop
from nnlib.core.errors import UsageError
from nnlib.storage import storage

if TYPE_CHECKING:
    from jobs.runners.hadoop.submission import Submission
    from jobs.runners.local.task_pool import TaskPool


class ClusterSite(Protocol):
    """Where the hadoop runner's jobs of a command start from. ``note`` gets lines for people, ``record`` facts;
    ``checked``: nobody needs to ask the nodes any more what they are like; ``submission``: the newest job's."""

    settings: Hadoop
    checked: bool
    submission: Submission | None
    note: Callable[[str], None]
    record: Callable[..., None]

    def uber(self, request: Any) -> bool:
        """Whether the job's tasks are to run in its master's container."""

    def properties(self, request: Any, *, uber: bool) -> dict[str, str]:
        """The Hadoop properties of a job."""

    def options(self, request: Any) -> dict[str, Any]:
        """mrjob's options of a job: its files are addresses that all nodes can read."""

    def hear_of_nodes(self, values: Iterable[bytes]) -> None:
        """Take in what tasks say of their nodes."""


@dataclass(frozen=True, kw_only=True)
class JobRequest(ABC):
    """One job to run. ``plan`` has one file of one line per map task, ``folder`` takes temporary files. ``pool`` runs
    the local runner's tasks, ``site`` is where the hadoop runner's jobs start from. Without ``reducers`` the job is its
    map tasks alone; ``spare`` of the map tasks may fail for good without the job failing."""

    phase: str
    plan: Sequence[Path]
    folder: Path
    blas_threads: int
    reducers: int = 0
    spare: int = 0
    pool: TaskPool | None = None
    site: ClusterSite | None = None

    @property
    @abstractmethod
    def job(self) -> type[TaskJob]:
        """The mrjob job to run."""

    @property
    def name(self) -> str:
        """What tells the job from the others of its command."""
        return self.phase

    @property
    def number(self) -> int | None:
        """The round that the job is, if it is one."""
        return None

    @property
    def collective(self) -> bool:
        """Whether the job's tasks work together, so that all of them must run at once."""
        return False

    @abstractmethod
    def arguments(self, *, fetched: bool = False) -> list[Any]:
        """The tasks' arguments in mrjob's form: files as dicts, so that runners can ship them; ``fetched``: what lies
        elsewhere is named by its address only, for the tasks to read themselves."""


def file_arguments(files: Mapping[str, str | None], *, fetched: bool) -> list[Any]:
    """Arguments that are files: option -> address (None: there is none)."""
    arguments: list[Any] = []
    for option, path in files.items():
        if path is not None and fetched and "://" in path:
            arguments += [option, path]
        elif path is not None:
            arguments += [option, {"type": "file", "path": path, "name": path.rpartition("/")[2]}]
    return arguments


def reachable(address: str, runner: str, what: str) -> str:
    """The address as all tasks know it. Raises `UsageError` for a path of this machine where nodes must read it."""
    if runner == "hadoop" and "://" not in address:
        raise UsageError(
            f"the nodes of a cluster do not see {what} on this machine",
            hint="use an address in HDFS (hdfs:///...), or, where all nodes share the file system, say file:///...",
            address=address,
        )
    root = storage(address).root  # a node has none of this machine's configuration, which may say what hdfs:/// means
    return f"file://{root}" if address.startswith("file://") else root
