"""The doctor: finds what is there, says what is missing, never fails and never tells a secret."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest
from click.testing import CliRunner

from jobs.commands import doctor
from jobs.commands.doctor import diagnose, output_of
from jobs.minicluster.assemble import assembly_folder
from nnlib.core.machine import memory_bytes


@pytest.fixture(autouse=True)
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking torch takes seconds, and is asked the same way as java."""
    monkeypatch.setattr(doctor, "PARTS", tuple(part for part in doctor.PARTS if part is not doctor._torch))


def program(path: Path, text: str, code: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{text}'\nexit {code}\n")
    path.chmod(0o755)


def test_this_machine_works() -> None:
    result = CliRunner().invoke(doctor.doctor, ["--json"])
    assert result.exit_code == 0
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["ok"] is True
    states = {check["name"]: check["state"] for check in found["checks"]}
    assert states["Python"] == states["numpy"] == states["mrjob import"] == states["BLAS"] == "ok"
    assert all(check["need"] for check in found["checks"])
    assert all(check["cure"] for check in found["checks"] if check["state"] != "ok")


def test_a_missing_core_package_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("numpy", "no-such-package"))
    result = CliRunner().invoke(doctor.doctor, [])
    assert result.exit_code == 4
    assert "no-such-package" in result.stdout and "pip install no-such-package" in result.stdout
    assert "training does not work here" in result.stdout


def test_without_java_and_hadoop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("JAVA_HOME", "HADOOP_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = {check.name: check for check in diagnose()}
    assert found["Java"].state == found["Maven"].state == found["Hadoop"].state == "missing"
    assert "nnjobs cluster start" in found["Hadoop"].cure
    assembly_folder().mkdir(parents=True)
    assert {check.name: check.state for check in diagnose()}["Maven"] == "ok"
    assert "training works here" in CliRunner().invoke(doctor.doctor, []).stdout


def test_with_hadoop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program(tmp_path / "bin/hadoop", "Hadoop 3.4.2")
    monkeypatch.setenv("HADOOP_HOME", str(tmp_path))
    found = {check.name: check for check in diagnose()}
    assert (found["Hadoop"].state, found["Hadoop"].found) == ("ok", "Hadoop 3.4.2")
    assert found["Hadoop streaming"].state == "missing"
    jar = tmp_path / "share/hadoop/tools/lib/hadoop-streaming-3.4.2.jar"
    jar.parent.mkdir(parents=True)
    jar.touch()
    assert {check.name: check.state for check in diagnose()}["Hadoop streaming"] == "ok"
    program(tmp_path / "bin/hadoop", "no JVM", code=1)
    assert {check.name: check.state for check in diagnose()}["Hadoop"] == "broken"


def test_aws_credentials_are_named_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    credentials = types.SimpleNamespace(method="env", access_key="AKIASECRET", secret_key="topsecret", token="t0ken")
    session = types.SimpleNamespace(get_credentials=lambda: credentials, region_name=None)
    boto3 = types.ModuleType("boto3")
    boto3.__spec__ = types.SimpleNamespace(name="boto3")  # type: ignore[assignment]
    boto3.Session = lambda: session  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "boto3", boto3)
    text = CliRunner().invoke(doctor.doctor, []).stdout
    assert "from env" in text and "not set" in text
    assert not any(secret in text for secret in ("AKIASECRET", "topsecret", "t0ken"))
    boto3.Session = lambda: 1 / 0  # type: ignore[attr-defined]
    assert {check.name: check.state for check in diagnose()}["AWS"] == "broken"


def test_programs_that_fail_or_hang_are_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SECONDS", 0.2)
    assert output_of([sys.executable, "-c", "import time; time.sleep(60)"])[0] is False
    assert output_of(["/no/such/program"]) == (False, "/no/such/program: No such file or directory")
    assert (memory_bytes() or 0) > 2**20
