"""Streams that fit for any use: missing, closed, full, without a reader, of any encoding, of an embedding program."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import started
from product import ROOT

from jobs.__main__ import main
from nnlib.core.standard_streams import standard_streams

CHILD = """
import os, sys
from nnlib.core.standard_streams import standard_streams
with standard_streams() as streams:
    first = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
    os.write(first, b"data")
    print("output"), print("message", file=sys.stderr)
    os.system("echo output of a child; echo message of a child >&2")
    lost = streams.flush()
sys.exit(10 * (first < 3) + (lost is not None))
"""


@pytest.mark.parametrize(
    ("closed", "code"),
    [("<&-", 0), (">&-", 0), ("2>&-", 0), ("<&- >&- 2>&-", 0), (">/dev/full", 1), ("2>/dev/full", 0)],
)
def test_a_file_never_becomes_a_standard_stream(tmp_path: Path, closed: str, code: int) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", CHILD, str(tmp_path / "file")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert (tmp_path / "file").read_bytes() == b"data"
    assert b"output" in done.stdout or ">&-" in closed or closed == ">/dev/full"


def test_a_pipe_that_does_not_block_gets_everything() -> None:
    code = (
        "from nnlib.core.standard_streams import standard_streams\nwith standard_streams():\n    print('x' * 1_000_000)"
    )
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with started([sys.executable, "-c", code], stdout=writer, env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        os.close(writer)
        time.sleep(0.5)  # until the pipe is full
        with os.fdopen(reader, "rb") as stream:
            assert len(stream.read()) == 1_000_001
        assert process.wait(30) == 0


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("utf-8", "±2 é \udce9 █"), ("latin-1", "±2 é \udce9 #"), ("ascii", "+-2 \\xe9 \udce9 #")],
)
def test_every_text_can_be_written(monkeypatch: pytest.MonkeyPatch, encoding: str, shown: str) -> None:
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    with standard_streams():
        print("±2 é \udce9 █", end="")  # the third is a byte of a file name
    assert written.getvalue() == shown.encode(encoding, "surrogateescape")
    assert stream.errors == "strict"


def test_streams_of_an_embedding_program_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdin", io.StringIO("lines"))
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", closed)
    with standard_streams():
        assert sys.stdin.read() == "lines"
        print("nobody sees this")
        print("nor this", file=sys.stderr)
    assert sys.stdout is None and sys.stderr is closed


@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
def test_a_command_runs_in_a_program_without_streams(monkeypatch: pytest.MonkeyPatch, stream: str) -> None:
    """As under pythonw, and in the windows of some editors."""
    monkeypatch.setattr(sys, stream, None)
    assert main(["completion", "bash"]) == 0
    assert main(["completion", "csh"]) == 2
    assert getattr(sys, stream) is None


def test_a_stream_without_isatty_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Log:
        """What some programs put into the place of a stream."""

        def write(self, text: str) -> int:
            return len(text)

        def flush(self) -> None:
            return None

    monkeypatch.setattr(sys, "stderr", Log())
    assert main(["train", "there-is-no-such-file.yaml"]) == 2


def test_a_loss_has_a_reason(tmp_path: Path) -> None:
    code = (
        "import errno, os\nfrom nnlib.core.standard_streams import standard_streams\n"
        "with standard_streams() as streams:\n    print('x' * 100_000)\n    print('y')\n"
        f"    assert streams.flush().errno == {errno.ENOSPC}\n"
    )
    command = [sys.executable, "-c", code]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False
        )
    assert done.returncode == 0, done.stderr
