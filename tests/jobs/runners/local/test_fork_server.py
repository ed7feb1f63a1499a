"""The server that forks tasks: a child is a process as `subprocess.Popen` makes it, and none outlives the server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from processes import alive, started, wait_until_gone
from product import ROOT

from jobs.runners.local.fork_server import ServedProcess, TaskServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere tasks are not forked")


@pytest.fixture(scope="module")
def server() -> Iterator[TaskServer]:
    with TaskServer({}) as started:
        yield started


def start(server: TaskServer, folder: Path, body: str, *arguments: str, stdout: str | None = None) -> ServedProcess:
    """Run ``body`` as a script in ``folder``, with the files input, output and stderr there."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "script.py").write_text("import os, signal, sys, time\n" + body)
    (folder / "input").write_text("given\n")
    with (
        (folder / "input").open("rb") as given,
        open(stdout or folder / "output", "wb") as output,  # noqa: PTH123
        (folder / "stderr").open("wb") as errors,
    ):
        return server.start(
            [sys.executable, "script.py", *arguments],
            stdin=given,
            stdout=output,
            stderr=errors,
            cwd=folder,
            env={"ONLY": "this"},
        )


def test_a_task_has_its_own_arguments_files_directory_and_environment(server: TaskServer, tmp_path: Path) -> None:
    folder = tmp_path / "with a space, # and [x]*"
    body = """
print(sys.stdin.read(), sys.argv, os.getcwd(), dict(os.environ), __name__, sep="|")
print("e", file=sys.stderr)
"""
    assert start(server, folder, body, "--a", "b c").wait() == 0
    told = (folder / "output").read_text().split("|")
    assert told == ["given\n", f"['{folder}/script.py', '--a', 'b c']", str(folder), "{'ONLY': 'this'}", "__main__\n"]
    assert (folder / "stderr").read_text() == "e\n"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("", 0),
        ("sys.exit()", 0),
        ("sys.exit(7)", 7),
        ("sys.exit('in words')", 1),
        ("raise ValueError", 1),
        ("os.kill(os.getpid(), signal.SIGKILL)", -9),
        ("os.kill(os.getpid(), signal.SIGTERM)", -15),
        ("os.kill(os.getpid(), signal.SIGINT)", 0),  # Ctrl-C is for the driver, which ends its tasks itself
    ],
)
def test_exit_codes_are_those_of_a_process(server: TaskServer, tmp_path: Path, body: str, code: int) -> None:
    assert start(server, tmp_path, body).wait() == code


def test_an_output_that_cannot_be_written_is_no_success(server: TaskServer, tmp_path: Path) -> None:
    assert start(server, tmp_path, "print('a')", stdout="/dev/full").wait() == 120


def test_tasks_do_not_share_what_they_import(server: TaskServer, tmp_path: Path) -> None:
    assert start(server, tmp_path / "a", "import jobs; jobs.mark = 1").wait() == 0
    assert start(server, tmp_path / "b", "import jobs; sys.exit(hasattr(jobs, 'mark'))").wait() == 0


def test_waiting_has_a_limit_and_signals_arrive(server: TaskServer, tmp_path: Path) -> None:
    process = start(server, tmp_path, "time.sleep(600)")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.05)
    process.send_signal(signal.SIGSTOP)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -9
    process.send_signal(signal.SIGKILL)  # to one that has ended: nothing happens
    assert process.wait(0.0) == -9


def test_many_threads_may_ask_at_once(server: TaskServer, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        codes = threads.map(lambda n: start(server, tmp_path / str(n), f"sys.exit({n})").wait(), range(40))
        assert list(codes) == list(range(40))


def sleeper(server: TaskServer, folder: Path) -> tuple[ServedProcess, int, int]:
    """A task that sleeps, its process and the server's."""
    process = start(server, folder, "print(os.getpid(), os.getppid(), flush=True)\ntime.sleep(600)")
    while not (folder / "output").read_text().endswith("\n"):
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
    child, parent = map(int, (folder / "output").read_text().split())
    return process, child, parent


def test_closing_ends_the_tasks(tmp_path: Path) -> None:
    with TaskServer({}) as server:
        process, child, parent = sleeper(server, tmp_path)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.0)
    assert not alive(child) and not alive(parent)
    assert process.wait(0.0) == -9


def test_a_server_that_is_killed_takes_its_tasks_along_and_is_replaced(tmp_path: Path) -> None:
    with TaskServer({}) as server:
        process, child, parent = sleeper(server, tmp_path / "a")
        os.kill(parent, signal.SIGKILL)
        assert process.wait() == -9
        assert wait_until_gone(child)
        process.send_signal(signal.SIGKILL)
        assert start(server, tmp_path / "b", "print('again')").wait() == 0
        assert (tmp_path / "b" / "output").read_text() == "again\n"


def test_a_driver_that_is_killed_takes_its_server_along(tmp_path: Path) -> None:
    body = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from test_fork_server import TaskServer, sleeper
_, child, server = sleeper(TaskServer({{}}), Path({folder!r}))
print(child, server, flush=True)
input()
"""
    program = body.format(
        path=[str(Path(__file__).parent), str(ROOT), str(ROOT / "tests/helpers")], folder=str(tmp_path)
    )
    with started([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        child, server = map(int, driver.stdout.readline().split())
        driver.kill()
        driver.wait()
        assert wait_until_gone(child) and wait_until_gone(server)
