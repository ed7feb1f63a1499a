"""A test that fails, or is interrupted, leaves no process running."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from processes import marked, started
from product import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds processes by their environment")

STARTERS = {"subprocess.Popen", "os.fork", "multiprocessing.Process"}
"""What starts a process and doesn't wait for its end. (`subprocess.run` kills its process when it is interrupted.)"""

MAY_START = {
    "tests/helpers/processes.py": "the one place",
    "tests/helpers/kill_points.py": "forks this process, and kills the child when it is interrupted",
    "tests/integration/hosts.py": "processes of hosts, which the kernel ends with the first process of their host",
    "tests/nnlib/core/test_waiting.py": "a child that ends at once",
    "tests/nnlib/data/test_decoded_cache.py": "a child that kills itself at the point that the test names",
}

FAILING = """
import subprocess
import sys
from pathlib import Path

from processes import started

CHILD = "import time; print(flush=True); time.sleep(600)"
PARENT = f'''
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], start_new_session=True, stdout=subprocess.PIPE)
child.stdout.readline()
print(flush=True)
if sys.argv[1] == "lives":
    time.sleep(600)
'''

def test_whose_process(request):
    with started([sys.executable, "-c", PARENT, "lives"], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"\\n"
        Path("begun").touch()
        while not request.config.getoption("fail"):
            pass
        assert False, "on purpose"

def test_whose_orphan():
    with started([sys.executable, "-c", PARENT, "ends"], stdout=subprocess.PIPE) as process:
        assert process.wait() == 0
        assert False, "on purpose"
"""

OPTION = """
def pytest_addoption(parser):
    parser.addoption("--fail", action="store_true")
"""

BREAKING = """
import psutil

def children(*_, **__):
    raise AssertionError("on purpose")

psutil.Process.children = children
"""
"""A plugin with which the tests of signals fail while their training runs."""


def pytest_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]


def environment(mark: str, *folders: Path) -> dict[str, str]:
    """The environment of pytest: all that it starts inherits ``OUTER``, whatever `started` marks for itself."""
    paths = os.pathsep.join(map(str, (*folders, ROOT, ROOT / "tests/helpers")))
    return {**os.environ, "OUTER": mark, "PYTHONPATH": paths}


def left(mark: str) -> list[str]:
    """The command lines of the living processes that pytest started."""
    return [" ".join(process.cmdline()) for process in marked(mark, "OUTER")]


def test_a_failing_test_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "test_failing.py").write_text(FAILING)
    (tmp_path / "conftest.py").write_text(OPTION)
    mark = uuid.uuid4().hex
    done = subprocess.run(
        pytest_command("--fail"), cwd=tmp_path, env=environment(mark), capture_output=True, text=True, check=False
    )
    assert "2 failed" in done.stdout and done.stdout.count("AssertionError: on purpose") >= 2, done.stdout
    assert left(mark) == []


def test_an_interrupted_test_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "test_failing.py").write_text(FAILING)
    (tmp_path / "conftest.py").write_text(OPTION)
    mark = uuid.uuid4().hex
    with started(pytest_command(), cwd=tmp_path, env=environment(mark), stdout=subprocess.PIPE, text=True) as tests:
        while not (tmp_path / "begun").exists():
            assert tests.poll() is None
        assert len(left(mark)) == 3, "pytest, the process and its child"
        tests.send_signal(signal.SIGINT)
        output, _ = tests.communicate(timeout=60)
        assert "KeyboardInterrupt" in output
        assert left(mark) == []


def test_a_training_ends_with_the_test_of_signals_that_fails(tmp_path: Path) -> None:
    (tmp_path / "breaking.py").write_text(BREAKING)
    mark = uuid.uuid4().hex
    tests = "tests/jobs/driver/test_signals.py::test_an_interrupted_run_says_how_to_go_on"
    done = subprocess.run(
        pytest_command("-p", "breaking", f"--basetemp={tmp_path / 'temporary'}", tests, "-k", "local"),
        cwd=ROOT,
        env=environment(mark, tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.search(r"\b2 failed", done.stdout) and "AssertionError: on purpose" in done.stdout, done.stdout
    assert left(mark) == []


def test_tests_start_processes_only_by_the_helper() -> None:
    starting = set()
    for path in [*ROOT.glob("tests/**/test_*.py"), *ROOT.glob("tests/helpers/*.py"), *ROOT.glob("tests/integration/*")]:
        if path.suffix == ".py":
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    module = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
                    if f"{module}.{node.func.attr}" in STARTERS:
                        starting.add(path.relative_to(ROOT).as_posix())
    assert starting == MAY_START.keys(), "use `started` of tests/helpers/processes.py"
