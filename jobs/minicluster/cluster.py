"""A single-node Hadoop in a folder: start and stop it, or single daemons of it."""

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
from jobs.minicluster.daemons import DAEMONS, FORMAT, daemon_error, launch
from jobs.minicluster.folder import check_folder, check_path, delete_folder, locked
from jobs.minicluster.java import find_java
from jobs.minicluster.processes import ProcessInfo, containers_of, daemons_of, end_processes, send_signal
from jobs.minicluster.readiness import NotReadyError, check_daemon, make_folders
from jobs.minicluster.settings import DESCRIPTION, SMALLEST_MB, ClusterSettings, free_ports, is_free, load_settings
from nnlib.core.errors import StorageError, UsageError

MEMORY_MB, VCORES = 4096, 6
"""What the NodeManager offers by default. Vcores are slots, not cores: room for a job's master and four
workers that have to run at once."""

READY_SECONDS = 180.0
"""A cluster that is not ready by then has failed; a loaded machine with 2 cores needs 40."""

GRACE_SECONDS = 3.0
"""A daemon that has not ended this long after SIGTERM is killed: one that waits for another does not react."""

LOGS_SECONDS = 15.0
"""The same for a NodeManager with containers."""

POLL_SECONDS = 0.2


def default_folder() -> Path:
    """Return the folder ``$NNJOBS_CLUSTER``, by default ``cluster`` in the cache folder."""
    chosen = os.environ.get("NNJOBS_CLUSTER")
    return Path(chosen) if chosen else cache_folder() / "cluster"


class Cluster:
    """The cluster in a folder, running or not.

    Args:
        folder: where its data, configuration and logs lie. It need not exist.
        announce: called with each step, a line for people.
    """

    def __init__(self, folder: str | os.PathLike[str], announce: Callable[[str], None] = lambda text: None) -> None:
        self.folder = Path(folder).expanduser().resolve()
        self._announce = announce
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def exists(self) -> bool:
        """Whether the folder is a cluster's."""
        return (self.folder / DESCRIPTION).exists()

    @property
    def settings(self) -> ClusterSettings:
        """The cluster's ports, sizes and paths.

        Raises:
            UsageError: there is no cluster in the folder.
            StorageError: its description is damaged.
        """
        settings = load_settings(self.folder)
        if settings is None:
            raise UsageError(f"there is no cluster in {self.folder}", hint="nnjobs cluster start")
        return settings

    def start(self, memory_mb: int | None = None, vcores: int | None = None) -> bool:
        """Start the daemons that do not run yet and wait until all are ready.

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
        # Before anything is written: on a machine without Java or Maven nothing changes.
        tools = None if self.running() else self._find_tools()
        with locked(self.folder):
            self._end((FORMAT,), 0)  # left by a start that was killed
            running = self.running()
            settings = load_settings(self.folder)
            if running and settings is not None:
                _refuse_change(settings, memory_mb, vcores)
            else:
                self._end_all()  # containers, and daemons whose description is lost
                settings = self._choose_settings(settings, tools or self._find_tools(), memory_mb, vcores)
                running = set()
            missing = [name for name in DAEMONS if name not in running]
            try:
                if missing:
                    settings.save()
                    self._launch(settings, missing)
                self._wait_for(settings, list(DAEMONS), READY_SECONDS, is_verbose=bool(missing))
                if missing:
                    make_folders(settings)
            except BaseException:
                if missing:
                    self._announce("stopping what was started")
                    self._end_all()
                raise
        return bool(missing)

    def stop(self, *, delete: bool = False) -> int:
        """Stop all daemons and the containers; return how many daemons ran.

        Args:
            delete: also removes the data, the configuration and the logs.
        """
        known = self.exists
        # Without a description, daemons may still run: somebody removed their folder.
        with locked(self.folder) if known else contextlib.nullcontext():
            running = self.running()
            if running:
                self._announce(f"stopping {', '.join(DAEMONS[name].title for name in DAEMONS if name in running)}")
            self._end_all()
            if delete and known:
                delete_folder(self.folder)
        return len(running)

    def start_daemon(self, name: str, *, wait: bool = True) -> None:
        """Start one daemon with the ports it had, unless it runs; wait until all running ones are ready."""
        settings = self.settings
        if name not in daemons_of(self.folder):
            self._children[name] = launch(settings, name)
        if wait:
            self.wait_ready(name)

    def stop_daemon(self, name: str) -> None:
        """Stop one daemon as an administrator would (SIGTERM) and wait until it has ended."""
        self._end((name,), GRACE_SECONDS)

    def kill_daemon(self, name: str) -> None:
        """Kill one daemon, which cannot clean up (SIGKILL), and wait until it has ended."""
        self._end((name,), 0)

    def pause_daemon(self, name: str) -> None:
        """Suspend one daemon (SIGSTOP): it holds its connections and answers nothing."""
        self._signal(name, signal.SIGSTOP)

    def continue_daemon(self, name: str) -> None:
        """Resume a suspended daemon (SIGCONT)."""
        self._signal(name, signal.SIGCONT)

    def running(self) -> set[str]:
        """Return the names of the daemons whose processes exist."""
        self._reap()
        return daemons_of(self.folder).keys() & DAEMONS.keys()

    def wait_ready(self, *names: str, seconds: float = READY_SECONDS) -> None:
        """Wait until daemons are ready: the named ones, and all others that run.

        Raises:
            JobError: one ended, or is not ready within the time; the error quotes its log.
        """
        running = self.running()
        self._wait_for(
            self.settings, [name for name in DAEMONS if name in running or name in names], seconds, is_verbose=True
        )

    def _wait_for(self, settings: ClusterSettings, waiting: list[str], seconds: float, *, is_verbose: bool) -> None:
        start = time.monotonic()
        while True:
            notes = {}
            running = self.running()
            for name in waiting:
                try:
                    check_daemon(settings, name, with_datanode="datanode" in {*running, *waiting})
                except NotReadyError as error:
                    notes[name] = str(error)
            waited = time.monotonic() - start
            if is_verbose and waited > POLL_SECONDS:
                for name in waiting:
                    if name not in notes:
                        self._announce(f"  {DAEMONS[name].title} is ready after {waited:.1f} s")
            for name in DAEMONS:
                if name in notes and name not in self.running():
                    raise daemon_error(settings, name, self._ending(name))
            if not notes:
                return
            waiting = list(notes)
            if waited > seconds:
                name, note = next(iter(notes.items()))
                raise daemon_error(settings, name, f"is not ready after {seconds:.0f} s: {note}")
            time.sleep(POLL_SECONDS)

    def _find_tools(self) -> tuple[Path, Path]:
        """The Hadoop and the Java to use."""
        java = find_java()
        home = assemble(java, self._announce)
        check_path(home, "XDG_CACHE_HOME")
        return home, java.home

    def _choose_settings(
        self, known: ClusterSettings | None, tools: tuple[Path, Path], memory_mb: int | None, vcores: int | None
    ) -> ClusterSettings:
        memory_mb = memory_mb or (known.memory_mb if known else MEMORY_MB)
        vcores = vcores or (known.vcores if known else VCORES)
        if known is None or not all(is_free(port) for port in known.ports.values()):
            ports = free_ports()
        else:
            ports = known.ports  # addresses that people wrote down stay good
        return ClusterSettings(self.folder, *tools, memory_mb, vcores, ports)

    def _launch(self, settings: ClusterSettings, names: list[str]) -> None:
        self._announce(f"starting {', '.join(DAEMONS[name].title for name in names)} in {self.folder} (10 to 30 s)")
        try:
            # They wait for the NameNode by themselves, and start while its files are made.
            for name in names:
                if name not in ("namenode", "historyserver"):
                    self._children[name] = launch(settings, name)
            if "namenode" in names:
                self._format(settings)
                self._children["namenode"] = launch(settings, "namenode")
            if "historyserver" in names:
                # This one, too, but it looks again only after 10 s.
                self._wait_for(settings, ["namenode"], READY_SECONDS, is_verbose=False)
                self._children["historyserver"] = launch(settings, "historyserver")
        except OSError as error:
            raise StorageError(f"cannot start a daemon: {error}", hint="is there room, and a Java in place?") from error

    def _format(self, settings: ClusterSettings) -> None:
        """Make the NameNode's files, unless they are complete."""
        done = self.folder / "data/formatted"
        if done.exists():
            return
        # A start that was killed here leaves files that the NameNode would refuse to replace: nothing is in them yet.
        shutil.rmtree(self.folder / "data/name", ignore_errors=True)
        child = launch(settings, FORMAT, "-format", "-nonInteractive")
        if child.wait():
            raise daemon_error(settings, FORMAT, f"could not make its files: exit code {child.returncode}")
        done.touch()

    def _end_all(self) -> None:
        # First the NodeManager: it ends its containers by itself and writes their logs to HDFS. Without any it has
        # nothing to save; neither have the others, whose journals are whole at any time.
        self._end(("nodemanager",), LOGS_SECONDS if containers_of(self.folder) else GRACE_SECONDS)
        self._end((*DAEMONS, FORMAT), GRACE_SECONDS)
        end_processes(lambda: containers_of(self.folder), 0)

    def _end(self, names: Collection[str], grace: float) -> None:
        end_processes(lambda: self._daemon_processes(names), grace)

    def _daemon_processes(self, names: Collection[str]) -> list[ProcessInfo]:
        self._reap()
        return [process for name, process in daemons_of(self.folder).items() if name in names]

    def _reap(self) -> None:
        for child in self._children.values():
            child.poll()

    def _signal(self, name: str, number: signal.Signals) -> None:
        for process in self._daemon_processes((name,)):
            send_signal(process.pid, number)

    def _ending(self, name: str) -> str:
        child = self._children.get(name)
        code = child.poll() if child else None
        if code is None:
            return "ended"
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _refuse_change(known: ClusterSettings, memory_mb: int | None, vcores: int | None) -> None:
    wanted = replace(known, memory_mb=memory_mb or known.memory_mb, vcores=vcores or known.vcores)
    if wanted != known:
        raise UsageError(
            f"the cluster in {known.folder} runs with {known.memory_mb} MB and {known.vcores} vcores",
            hint=f"nnjobs cluster stop --dir {known.folder}, then start it with others",
        )
