"""A Hadoop whose programs are played by shell scripts, and a web server that plays YARN's services."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

APPLICATION = "application_1700000000000_12345"
ATTEMPT = "attempt_1700000000000_12345_m_000003_1"


@pytest.fixture
def hadoop_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hadoop whose program writes down its arguments and then does as ``play`` says."""
    home = tmp_path / "hadoop home"
    (home / "bin").mkdir(parents=True)
    (home / "share").mkdir()
    (home / "share" / "hadoop-streaming-9.9.9.jar").touch()
    monkeypatch.setenv("HADOOP_HOME", str(home))
    play(home, "hadoop", "exit 0")
    play(home, "yarn", "exit 0")
    return home


def play(home: Path, program: str, script: str) -> None:
    path = home / "bin" / program
    path.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> "$0.said"\n{script}\n', encoding="utf-8")
    path.chmod(0o755)


def said(home: Path, program: str) -> list[str]:
    path = home / "bin" / f"{program}.said"
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def after(arguments: list[str], option: str) -> list[str]:
    return [value for name, value in pairwise(arguments) if name == option]


def configured(hadoop_home: Path, properties: Mapping[str, str]) -> None:
    """Write a ``yarn-site.xml``."""
    entries = "".join(
        f"<property><name>{name}</name><value>{value}</value></property>" for name, value in properties.items()
    )
    folder = hadoop_home / "etc" / "hadoop"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "yarn-site.xml").write_text(f"<configuration>{entries}</configuration>", encoding="utf-8")


class Yarn(BaseHTTPRequestHandler):
    answers: Mapping[str, Any]
    heard: list[tuple[str, str, bytes]]

    def do_GET(self) -> None:
        self._answer(b"")

    def do_PUT(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body: bytes) -> None:
        path = self.path.partition("?")[0]
        self.heard.append((self.command, self.path, body))
        answer = self.answers.get(path)
        if isinstance(answer, list):  # one after the other; the last stays
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, str) and answer.startswith("-> "):
            self.send_response(302)
            self.send_header("Location", answer[3:])
            self.end_headers()
            return
        self.send_response(404 if answer is None else 200)
        self.end_headers()
        if answer is not None:
            self.wfile.write(answer.encode() if isinstance(answer, str) else json.dumps(answer).encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Not on the terminal."""


@pytest.fixture
def yarn(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, type[Yarn]]]:
    """A web server that plays resource manager, node and history server; its answers are set by the test."""
    monkeypatch.setattr("jobs.runners.hadoop.diagnosis.HISTORY_SECONDS", 0.5)
    monkeypatch.setattr("jobs.runners.hadoop.kill.END_SECONDS", 0.5)
    monkeypatch.setattr("jobs.runners.hadoop.kill.PROCESS_SECONDS", 0.0)
    handler = type("Handler", (Yarn,), {"heard": [], "answers": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", handler
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
