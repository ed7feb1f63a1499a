"""A single-node Hadoop in a folder: start, stop, and single daemons for those who try what failures do."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from jobs.minicluster.assemble import assemble, cache_folder
from jobs.minicluster.daemons import DAEMONS, FORMAT, failure, launch
from jobs.minicluster.folder import check_folder, check_name, delete_folder, locked
from jobs.minicluster.java import find_java
from jobs.minicluster.layout import DESCRIPTION, SMALLEST_MB, Layout, free_ports, is_free, load
from jobs.minicluster.processes import Process, containers_of, daemons_of, end, send
from jobs.minicluster.readiness import NotReadyError, check, make_folders
from nnlib.core.errors import StorageError, UsageError

MEMORY_MB, VCORES = 4096, 6
"""What the NodeManager offers unless told otherwise. Vcores are slots, not cores: room for a job's master and four
workers that have to run at once."""

READY_SECONDS = 180.0
"""A cluster that is not ready by then has failed; a loaded machine with 2 cores needs 40."""

GRACE_SECONDS = 3.0
"""A daemon that has not ended this long after SIGTERM is killed: one that waits for another hears no signal."""

LOGS_SECONDS = 15.0
"""The same for a NodeManager with containers."""

POLL_SECONDS = 0.2


def default_folder() -> Path:
    """``$NNJOBS_CLUSTER``, by default ``cluster`` in the cache folder."""
    chosen = os.environ.get("NNJOBS_CLUSTER")
    return Path(chosen) if chosen else cache_folder() / "cluster"


class Cluster:
    """The cluster in a folder, running or not.

    Args:
        folder: where its data, configuration and logs lie. It need not exist.
        say: told what is being done, in lines for people.
    """

    def __init__(self, folder: str | os.PathLike[str], say: Callable[[str], None] = lambda text: None) -> None:
        self.folder = Path(folder).expanduser().resolve()
        self._say = say
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def exists(self) -> bool:
        """Whether the folder is a cluster's."""
        return (self.folder / DESCRIPTION).exists()

    @property
    def layout(self) -> Layout:
        """Ports and paths.

        Raises:
            UsageError: there is no cluster in the folder.
            StorageError: its description is damaged.
        """
        found = load(self.folder)
        if found is None:
            raise UsageError(f"there is no cluster in {self.folder}", hint="nnjobs cluster start")
        return found

    def start(self, memory_mb: int | None = None, vcores: int | None = None) -> bool:
        """Starts what does not run yet and waits until all is ready.

        Args:
            memory_mb: memory of the NodeManager for containers; None keeps what it was, at first `MEMORY_MB`.
            vcores: likewise its vcores, `VCORES`.

        Returns:
            Whether anything had to be started.

        Raises:
            UsageError: no usable Java or Maven, or a running cluster was asked to change.
            JobError: a daemon failed; everything is stopped again.
            StorageError: the folder cannot be used.
        """
        check_folder(self.folder)
        if memory_mb is not None and memory_mb < 4 * SMALLEST_MB:
            raise UsageError(f"{memory_mb} MB is not enough for a job", hint=f"at least {4 * SMALLEST_MB}")
        # Before anything is written: a machine that lacks Java or Maven is left as it was.
        tools = None if self.running() else self._tools()
        with locked(self.folder):
            self._end((FORMAT,), 0)  # of a start that was killed
            running = self.running()
            layout = load(self.folder)
            if running and layout is not None:
                _refuse_change(layout, memory_mb, vcores)
            else:
                self._end_all()  # containers, and daemons whose description is lost
                layout = self._decide(layout, tools or self._tools(), memory_mb, vcores)
                running = set()
            missing = [name for name in DAEMONS if name not in running]
            try:
                if missing:
                    layout.save()
                    self._launch(layout, missing)
                self._wait_for(layout, list(DAEMONS), READY_SECONDS, tell=bool(missing))
                if missing:
                    make_folders(layout)
            except BaseException:
                if missing:
                    self._say("stopping what was started")
                    self._end_all()
                raise
        return bool(missing)

    def stop(self, *, delete: bool = False) -> int:
        """Stops all daemons and what the NodeManager started; returns how many daemons ran.

        Args:
            delete: also removes the data, the configuration and the logs.
        """
        known = self.exists
        # Without a description, daemons may run yet: somebody removed the folder below them.
        with locked(self.folder) if known else contextlib.nullcontext():
            running = self.running()
            if running:
                self._say(f"stopping {', '.join(DAEMONS[name].title for name in DAEMONS if name in running)}")
            self._end_all()
            if delete and known:
                delete_folder(self.folder)
        return len(running)

    def start_daemon(self, name: str, *, wait: bool = True) -> None:
        """Starts one daemon with the ports it had, unless it runs; waits until all that run are ready."""
        layout = self.layout
        if name not in daemons_of(self.folder):
            self._children[name] = launch(layout, name)
        if wait:
            self.wait_ready(name)

    def stop_daemon(self, name: str) -> None:
        """Stops one daemon as an administrator would (SIGTERM) and waits until it is gone."""
        self._end((name,), GRACE_SECONDS)

    def kill_daemon(self, name: str) -> None:
        """Kills one daemon without a chance to clean up (SIGKILL) and waits until it is gone."""
        self._end((name,), 0)

    def pause_daemon(self, name: str) -> None:
        """Stops one daemon's threads (SIGSTOP): it holds its connections and answers nothing."""
        self._signal(name, signal.SIGSTOP)

    def continue_daemon(self, name: str) -> None:
        """Lets a paused daemon go on."""
        self._signal(name, signal.SIGCONT)

    def running(self) -> set[str]:
        """The names of the daemons whose processes are there."""
        self._reap()
        return daemons_of(self.folder).keys() & DAEMONS.keys()

    def wait_ready(self, *names: str, seconds: float = READY_SECONDS) -> None:
        """Waits until daemons are ready: those named, and all others that run.

        Raises:
            JobError: one ended, or is not ready within the time; with what its log tells.
        """
        running = self.running()
        self._wait_for(self.layout, [name for name in DAEMONS if name in running or name in names], seconds, tell=True)

    def _wait_for(self, layout: Layout, waiting: list[str], seconds: float, *, tell: bool) -> None:
        start = time.monotonic()
        while True:
            notes = {}
            running = self.running()
            for name in waiting:
                try:
                    check(layout, name, with_datanode="datanode" in {*running, *waiting})
                except NotReadyError as error:
                    notes[name] = str(error)
            waited = time.monotonic() - start
            if tell and waited > POLL_SECONDS:
                for name in waiting:
                    if name not in notes:
                        self._say(f"  {DAEMONS[name].title} is ready after {waited:.1f} s")
            for name in DAEMONS:
                if name in notes and name not in self.running():
                    raise failure(layout, name, self._ending(name))
            if not notes:
                return
            waiting = list(notes)
            if waited > seconds:
                name, note = next(iter(notes.items()))
                raise failure(layout, name, f"is not ready after {seconds:.0f} s: {note}")
            time.sleep(POLL_SECONDS)

    def _tools(self) -> tuple[Path, Path]:
        """The Hadoop and the Java to use."""
        java = find_java()
        home = assemble(java, self._say)
        check_name(home, "XDG_CACHE_HOME")
        return home, java.home

    def _decide(
        self, known: Layout | None, tools: tuple[Path, Path], memory_mb: int | None, vcores: int | None
    ) -> Layout:
        memory_mb = memory_mb or (known.memory_mb if known else MEMORY_MB)
        vcores = vcores or (known.vcores if known else VCORES)
        if known is None or not all(is_free(port) for port in known.ports.values()):
            ports = free_ports()
        else:
            ports = known.ports  # addresses that people wrote down stay good
        return Layout(self.folder, *tools, memory_mb, vcores, ports)

    def _launch(self, layout: Layout, names: list[str]) -> None:
        self._say(f"starting {', '.join(DAEMONS[name].title for name in names)} in {self.folder} (10 to 30 s)")
        try:
            # They wait for the NameNode by themselves, and start while its files are made.
            for name in names:
                if name not in ("namenode", "historyserver"):
                    self._children[name] = launch(layout, name)
            if "namenode" in names:
                self._format(layout)
                self._children["namenode"] = launch(layout, "namenode")
            if "historyserver" in names:
                # This one, too, but it looks again only after 10 s.
                self._wait_for(layout, ["namenode"], READY_SECONDS, tell=False)
                self._children["historyserver"] = launch(layout, "historyserver")
        except OSError as error:
            raise StorageError(f"cannot start a daemon: {error}", hint="is there room, and a Java in place?") from error

    def _format(self, layout: Layout) -> None:
        """Makes the NameNode's files, unless they are whole."""
        done = self.folder / "data/formatted"
        if done.exists():
            return
        # A start that was killed here leaves files that the NameNode would refuse to replace: nothing is in them yet.
        shutil.rmtree(self.folder / "data/name", ignore_errors=True)
        child = launch(layout, FORMAT, "-format", "-nonInteractive")
        if child.wait():
            raise failure(layout, FORMAT, f"could not make its files: exit code {child.returncode}")
        done.touch()

    def _end_all(self) -> None:
        # First the NodeManager: it ends its containers by itself and writes their logs to HDFS. Without any it has
        # nothing to save; neither have the others, whose journals are whole at any time.
        self._end(("nodemanager",), LOGS_SECONDS if containers_of(self.folder) else GRACE_SECONDS)
        self._end((*DAEMONS, FORMAT), GRACE_SECONDS)
        end(lambda: containers_of(self.folder), 0)

    def _end(self, names: Collection[str], grace: float) -> None:
        end(lambda: self._found(names), grace)

    def _found(self, names: Collection[str]) -> list[Process]:
        self._reap()
        return [process for name, process in daemons_of(self.folder).items() if name in names]

    def _reap(self) -> None:
        for child in self._children.values():
            child.poll()

    def _signal(self, name: str, number: signal.Signals) -> None:
        for process in self._found((name,)):
            send(process.pid, number)

    def _ending(self, name: str) -> str:
        child = self._children.get(name)
        code = child.poll() if child else None
        if code is None:
            return "ended"
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _refuse_change(known: Layout, memory_mb: int | None, vcores: int | None) -> None:
    wanted = replace(known, memory_mb=memory_mb or known.memory_mb, vcores=vcores or known.vcores)
    if wanted != known:
        raise UsageError(
            f"the cluster in {known.folder} runs with {known.memory_mb} MB and {known.vcores} vcores",
            hint=f"nnjobs cluster stop --dir {known.folder}, then start it with others",
        )
