"""A process that has everything imported and forks a fresh child for every task of a local run.

A Python that imports numpy, pyarrow and mrjob takes half a second to start; a fork of one that has them takes 5 ms. A
task is still a process of its own with its own files, directory and environment, run as Hadoop streaming would run
it: a script with arguments, lines in, lines out, an exit code.

The two sides speak lines of JSON over the server's standard input and output; when its input ends, the server ends its
children and itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import selectors
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import IO, Any


class TaskServer:
    """The side that asks. Safe to use from several threads."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process: subprocess.Popen[bytes] = subprocess.Popen(
            [sys.executable, "-m", "jobs.task_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
        )
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[int]] = {}
        self._next = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def call(
        self,
        arguments: Sequence[str],
        *,
        stdin: IO[bytes],
        stdout: IO[bytes],
        stderr: IO[bytes],
        cwd: str,
        env: Mapping[str, str],
    ) -> int:
        """Run ``[python, script, *arguments]`` in a forked child, as `subprocess.call` would; its exit code (negative:
        the signal that ended it)."""
        result: Future[int] = Future()
        request: dict[str, Any] = {
            "script": arguments[1],
            "arguments": list(arguments[2:]),
            "files": [os.path.abspath(stream.name) for stream in (stdin, stdout, stderr)],  # noqa: PTH100
            "directory": cwd,
            "environment": dict(env),
        }
        with self._lock:
            self._next += 1
            request["id"] = self._next
            self._waiting[self._next] = result
            assert self._process.stdin is not None
            try:
                self._process.stdin.write(json.dumps(request).encode() + b"\n")
                self._process.stdin.flush()
            except OSError:
                return self._process.wait() or 1
        return result.result()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            with self._lock:
                waiting = self._waiting.pop(answer["id"])
            waiting.set_result(answer["code"])
        code = self._process.wait() or 1
        with self._lock:
            for waiting in self._waiting.values():
                waiting.set_result(code)
            self._waiting.clear()

    def close(self) -> None:
        """End the server and whatever tasks it still runs."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait()
        self._reader.join()

    def __enter__(self) -> TaskServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def serve() -> None:
    """The side that forks: one thread, so that a fork is safe."""
    import jobs.round_job  # noqa: F401  (what the children need not import again)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to answer: it ends our input
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
    while True:
        for key, _ in requests.select():
            if key.data == "child":
                with contextlib.suppress(BlockingIOError):
                    os.read(wake_reader, 4096)
                _report(children)
                continue
            data = os.read(0, 1 << 16)
            if not data:
                for process in children:
                    os.kill(process, signal.SIGKILL)
                return
            *lines, buffered = (buffered + data).split(b"\n")
            for line in lines:
                request = json.loads(line)
                process = os.fork()
                if process == 0:
                    _become(request)
                children[process] = request["id"]


def _report(children: dict[int, int]) -> None:
    """Answer for every child that has ended."""
    for process in list(children):
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            answer = {"id": children.pop(process), "code": os.waitstatus_to_exitcode(status)}
            os.write(1, json.dumps(answer).encode() + b"\n")


def _become(request: dict[str, Any]) -> None:
    """In the child: take the task's files, directory, environment and arguments, run its script, never return."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        for number, path in enumerate(request["files"]):
            handle = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_TRUNC)
            os.dup2(handle, number)
            os.close(handle)
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["directory"])
        sys.argv = [request["script"], *request["arguments"]]
        sys.path.insert(0, request["directory"])
        runpy.run_path(str(Path(request["directory"]) / request["script"]), run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
