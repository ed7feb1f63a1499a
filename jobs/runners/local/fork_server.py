"""A server process that has imported everything and forks a new child for every task of a local run.

A Python that imports numpy, pyarrow and mrjob takes half a second to start; a fork of one that has them takes 5 ms. A
task is still a separate process with its own files, directory and environment, run as Hadoop streaming would run it: a
script with arguments, lines in, lines out, an exit code.

The two sides speak lines of JSON over the server's standard input and output; when its input ends, the server ends its
children and itself.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from jobs.runners.forked_child import die_with, end_with
from nnlib.core.errors import JobError
from nnlib.core.forks import fork
from nnlib.core.standard_streams import open_missing_descriptors

DEAD = -int(signal.SIGKILL)
"""The exit code of tasks whose server has died: they die with it."""


class ServedProcess:
    """A child of the server, with the methods of `subprocess.Popen` that a pool needs."""

    def __init__(self, server: _Connection, number: int, result: Future[int]) -> None:
        self._server, self._number, self._result = server, number, result

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; return the exit code (negative: the signal that ended it). Raises `TimeoutExpired`."""
        try:
            return self._result.result(timeout)
        except TimeoutError:
            raise subprocess.TimeoutExpired(f"task {self._number}", timeout or 0.0) from None

    def send_signal(self, number: int) -> None:
        """Send a signal to the process, unless it has ended: the server reaps its children, so it knows."""
        if not self._result.done():
            self._server.send({"id": self._number, "signal": number})


class TaskServer:
    """The driver's side: starts tasks in a server. Safe to use from several threads. A server that dies takes its tasks
    with it; the next task gets a new server."""

    def __init__(self, environment: Mapping[str, str], modules: Sequence[str] = ("jobs.mapreduce.round_job",)) -> None:
        """``modules`` are imported by the server once, so that tasks need not."""
        self._environment, self._modules = environment, modules
        self._lock = threading.Lock()
        self._server = _Connection(environment, modules)

    def start(
        self,
        arguments: Sequence[str],
        *,
        stdin: IO[bytes],
        stdout: IO[bytes],
        stderr: IO[bytes],
        cwd: str | os.PathLike[str],
        env: Mapping[str, str],
    ) -> ServedProcess:
        """Run ``[python, script, *arguments]`` in a forked child, as `subprocess.Popen` would. The files are opened
        anew by their names."""
        request: dict[str, Any] = {
            "script": arguments[1],
            "arguments": list(arguments[2:]),
            "files": [os.path.abspath(stream.name) for stream in (stdin, stdout, stderr)],  # noqa: PTH100
            "directory": os.fspath(cwd),
            "environment": dict(env),
        }
        with self._lock:
            if not self._server.alive:
                self._server.close()
                self._server = _Connection(self._environment, self._modules)
            return self._server.start(request)

    def close(self) -> None:
        """End the server and the tasks that it still runs."""
        self._server.close()

    def __enter__(self) -> TaskServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Connection:
    """One server process, and the tasks that wait for its answers."""

    def __init__(self, environment: Mapping[str, str], modules: Sequence[str]) -> None:
        self._process: subprocess.Popen[bytes] = subprocess.Popen(
            [sys.executable, "-m", "jobs.runners.local.fork_server", *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        self._sending = threading.Lock()
        self._waiting: dict[int, Future[int]] = {}
        self._next = 0
        self.alive = True
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def start(self, request: dict[str, Any]) -> ServedProcess:
        result: Future[int] = Future()
        with self._sending:
            self._next += 1
            number = self._next
            if self.alive:
                self._waiting[number] = result
            else:
                result.set_result(DEAD)
        self.send({**request, "id": number})
        return ServedProcess(self, number, result)

    def send(self, request: dict[str, Any]) -> None:
        """Write a request; a server that is gone answers by its end, which `_read` sees."""
        with self._sending, contextlib.suppress(OSError):
            self._requests.write(json.dumps(request).encode() + b"\n")
            self._requests.flush()

    def _read(self) -> None:
        for line in self._answers:
            answer = json.loads(line)
            with self._sending:
                waiting = self._waiting.pop(answer["id"])
            waiting.set_result(answer["code"])
        with self._sending:
            self.alive = False
            for waiting in self._waiting.values():
                waiting.set_result(DEAD)
            self._waiting.clear()

    def close(self) -> None:
        with self._sending, contextlib.suppress(OSError):
            self._requests.close()
        self._process.wait()
        self._reader.join()
        self._answers.close()


def serve(modules: Sequence[str]) -> None:
    """Serve requests: the server's side, in one thread, so that a fork is safe. ``modules`` are imported first."""
    open_missing_descriptors()  # a host without standard error must not give the number to one of our pipes
    for module in modules:
        importlib.import_module(module)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver handles Ctrl-C: it ends our input
    wake_reader, wake_writer = os.pipe()
    for end in (wake_reader, wake_writer):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake_writer)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    children: dict[int, int] = {}
    requests = selectors.DefaultSelector()
    requests.register(0, selectors.EVENT_READ, "request")
    requests.register(wake_reader, selectors.EVENT_READ, "child")
    buffered = b""
    try:
        while True:
            for key, _ in requests.select():
                if key.data == "child":
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake_reader, 4096)
                    _report(children)
                    continue
                data = os.read(0, 1 << 16)
                if not data:
                    return
                *lines, buffered = (buffered + data).split(b"\n")
                for line in lines:
                    _obey(json.loads(line), children)
    except BrokenPipeError:
        return  # the driver is gone
    finally:
        for process in children:
            os.kill(process, signal.SIGKILL)
        for process in children:
            os.waitpid(process, 0)


def _obey(request: dict[str, Any], children: dict[int, int]) -> None:
    """Start a task, or signal one that has not ended."""
    if "signal" in request:
        for process, number in children.items():
            if number == request["id"]:
                os.kill(process, request["signal"])
        return
    server = os.getpid()
    try:
        process = fork()
    except (OSError, JobError) as error:
        Path(request["files"][2]).write_text(f"cannot start a process: {error}\n", encoding="utf-8")
        _answer(request["id"], os.EX_OSERR)
        return
    if process == 0:
        die_with(server)
        end_with(lambda: _become(request))
    children[process] = request["id"]


def _report(children: dict[int, int]) -> None:
    """Answer for every child that has ended."""
    for process in list(children):
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            _answer(children.pop(process), os.waitstatus_to_exitcode(status))


def _answer(number: int, code: int) -> None:
    os.write(1, json.dumps({"id": number, "code": code}).encode() + b"\n")


def _become(request: dict[str, Any]) -> None:
    """In the child: set up the task's files, directory, environment and arguments, and run its script."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # SIGINT stays ignored: the driver ends us
    for number, path in enumerate(request["files"]):
        handle = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_TRUNC)
        os.dup2(handle, number)
        os.close(handle)
    sys.stdin, sys.stdout = os.fdopen(0, encoding="utf-8"), os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace")
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["directory"])
    sys.argv = [request["script"], *request["arguments"]]
    sys.path.insert(0, request["directory"])
    runpy.run_path(str(Path(request["directory"]) / request["script"]), run_name="__main__")


if __name__ == "__main__":
    serve(sys.argv[1:])
