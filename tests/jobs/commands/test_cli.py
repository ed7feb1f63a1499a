"""The command through its public way in: output, endings, exit codes."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from product import ROOT
from shards import write_dataset

import jobs.__main__ as entry
import nnlib
from jobs.__main__ import main, refusal
from jobs.commands.cli import COMMANDS
from nnlib.core.errors import DataError, JobError, UsageError
from nnlib.core.events import Listener, RunStarted
from nnlib.core.run_result import DivergedTrial, RunResult, TrialName


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(
        "name: small\ndata: {path: data}\ntrain: {epochs: 4, epochs_per_round: 2, batch_size: 4}\n"
    )


@pytest.fixture
def blobs(tmp_path: Path) -> None:
    """Two classes that a net separates, in the directory that c.yaml names."""
    random = np.random.Generator(np.random.PCG64(1))
    y = random.integers(0, 2, 120)
    x = random.normal(size=(120, 4)).astype(np.float32) + 3 * y[:, None]
    write_dataset(tmp_path / "data", x.tolist(), y.tolist(), shards=2, classes=2)


class FakeDriver(types.ModuleType):
    """Stands in for `jobs.driver.driver` where only the command's own part is tested."""

    def __init__(self, ending: BaseException | RunResult, start: bool = True) -> None:
        super().__init__("jobs.driver.driver")
        self.ending, self.start = ending, start
        self.calls: list[tuple[Any, bool, str | None]] = []

    def train(self, config: Any, *, resume: bool, start_from: str | None, listen: Listener, chaos: Any) -> Any:
        self.calls.append((config, resume, start_from))
        if self.start:
            listen(RunStarted("small", "/r/small-1", "inline", 1, 1, 0, 0, 2, 4, 10, 84, 36))
        print("a library prints")
        if isinstance(self.ending, BaseException):
            raise self.ending
        return self.ending


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeDriver]:
    def fake(ending: BaseException | RunResult, start: bool = True) -> FakeDriver:
        module = FakeDriver(ending, start)
        monkeypatch.setitem(sys.modules, "jobs.driver.driver", module)
        monkeypatch.setattr("jobs.driver.driver", module, raising=False)
        return module

    return fake


DONE = RunResult(scores={"accuracy": 0.9}, trials=(), model_sha256="5ha", rounds=2, seconds=0.1, run_dir="/r/small-1")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobs", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        timeout=120,
        check=False,
    )


def test_help_names_the_commands_and_loads_none_of_them() -> None:
    code = "import sys; from jobs.__main__ import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert all(name in done.stdout for name in ("train", "predict", "data", "doctor", "completion"))
    loaded = set(done.stderr.split())
    assert not loaded & {"numpy", "mrjob", "pydantic", "rich", "pyarrow", "scipy", "yaml", "jobs.commands.train"}


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("train", "predict", "doctor", "data", "completion"):
        assert main([command, "--help"]) == 0
        assert "Usage: nnjobs" in capsys.readouterr().out


GREET = """
import click

from nnlib.core.errors import DataError
from nnlib.core.run_result import DivergedTrial, RunResult, TrialName


@click.command()
@click.argument("whom")
def greet(whom):
    \"\"\"Greet WHOM.\"\"\"
    if whom == "nobody":
        raise DataError("there is nobody to greet")
    click.echo(f"hello {whom}")
"""


def test_a_new_command_is_a_file_and_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "greeting.py").write_text(GREET)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(COMMANDS, "greet", ("greeting:greet", "Greet somebody."))
    assert main(["greet", "you"]) == 0
    assert capsys.readouterr().out == "hello you\n"
    assert main(["greet", "nobody"]) == 3
    assert "there is nobody to greet" in capsys.readouterr().err
    assert main(["greet"]) == 2
    assert "Usage: nnjobs greet" in capsys.readouterr().err
    assert main(["greet", "-h"]) == 0
    assert "Greet WHOM." in capsys.readouterr().out
    assert main(["--help"]) == 0
    assert "Greet somebody." in capsys.readouterr().out
    assert main(["gret"]) == 2
    assert "did you mean greet?" in capsys.readouterr().err


def options() -> dict[tuple[str, str], click.Option]:
    """(command, flag) -> option, of all commands and subcommands."""
    collected = {}

    def collect(name: str, command: click.Command) -> None:
        for option in command.params:
            if isinstance(option, click.Option):
                collected.update({(name, flag): option for flag in option.opts})
        if isinstance(command, click.Group):
            for below, each in command.commands.items():
                collect(f"{name} {below}", each)

    for name, (where, _) in COMMANDS.items():
        module, _, attribute = where.partition(":")
        collect(name, getattr(importlib.import_module(module), attribute))
    return collected


@pytest.mark.parametrize("flag", ["-r", "--set", "--python-bin", "--json", "--trial"])
def test_an_option_means_the_same_in_every_command(flag: str) -> None:
    same = [option for (_, each), option in options().items() if each == flag]
    assert len(same) >= 2
    assert len({(option.help or "").partition(" [")[0].partition(", such")[0] for option in same}) == 1
    assert len({repr(option.type.to_info_dict()) for option in same}) == 1


def test_commands_that_read_a_configuration_take_the_same_options() -> None:
    taken = options()
    for name in ("train", "evaluate", "scale", "simulate", "predict", "data import"):
        assert {(name, flag) for flag in ("-r", "--set", "--python-bin")} <= taken.keys()


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert nnlib.__version__ in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "_NNJOBS_COMPLETE" in capsys.readouterr().out


def test_completion_of_commands_and_options() -> None:
    found = run(_NNJOBS_COMPLETE="bash_complete", COMP_WORDS="nnjobs tr", COMP_CWORD="1")
    assert found.stdout.split() == ["plain,train"]
    found = run(_NNJOBS_COMPLETE="bash_complete", COMP_WORDS="nnjobs train --res", COMP_CWORD="2")
    assert found.stdout.split() == ["plain,--resume"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["trian"], "did you mean train?"),
        (["frobnicate"], "there are train, "),
        (["train", "--nonsense"], "nonsense"),
        (["train"], "which experiment?"),
        (["train", "--resume"], "--run-dir"),
        (["train", "c.yaml", "--resume", "--from", "r", "--run-dir", "x"], "choose one"),
        (["train", "--resume", "--run-dir", "nowhere"], "there is no run here"),
        (["train", "absent.yaml"], "no such configuration file"),
        (["train", "c.yaml", "-r", "cloud"], "inline"),
        (["train", "c.yaml", "--set", "train.epoch=3"], "did you mean train.epochs?"),
        (["completion", "tcsh"], "bash"),
    ],
)
def test_wrong_usage_is_2(arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert reason in captured.err and captured.out == "" and "Traceback" not in captured.err
    assert not Path("nowhere").exists()


def test_dry_run_prints_the_resolved_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "c.yaml", "-r", "local", "--set", "train.lr=1e-3", "--run-dir", "r: #1", "--dry-run"]) == 0
    resolved = yaml.safe_load(capsys.readouterr().out)
    assert resolved["train"]["lr"] == 0.001 and resolved["runtime"]["runner"] == "local"
    assert resolved["run_dir"] == "r: #1" and resolved["format_version"] == nnlib.FORMAT_VERSION
    assert main(["train", "c.yaml", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["train"]["epochs"] == 4


def test_json_is_the_only_line_of_standard_output(driver: Any, capsys: pytest.CaptureFixture[str]) -> None:
    driver(replace(DONE, seconds=float("nan")))
    assert main(["train", "c.yaml", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {**DONE.to_json(), "seconds": None}
    assert "a library prints" in captured.err and "test accuracy 90.00 %" in captured.err
    assert main(["train", "c.yaml", "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == ["a library prints", "test accuracy 90.00 %, model in /r/small-1"]


def test_what_the_driver_is_asked_for(driver: Any) -> None:
    module = driver(DONE)
    assert main(["train", "c.yaml", "--from", "other@3", "--run-dir", "new"]) == 0
    assert main(["train", "c.yaml", "--resume", "--run-dir", "old"]) == 0
    asked = [(config.run_dir, resume, start_from) for config, resume, start_from in module.calls]
    assert asked == [("new", False, "other@3"), ("old", True, None)]


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        (UsageError("u"), 2),
        (DataError("d", row=3), 3),
        (JobError("j"), 4),
        (replace(DONE, diverged=(DivergedTrial(0, TrialName(0), "r"),)), 5),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("z"), 1),
    ],
)
def test_exit_codes(driver: Any, ending: Any, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    driver(ending)
    assert main(["train", "c.yaml"]) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err and len(captured.err.splitlines()) < 25
    if code in (4, 130):
        assert "nnjobs train --resume --run-dir /r/small-1" in captured.err
    if code == 1:
        trace = Path(captured.err.split("the full traceback is in ")[1].split(";")[0])
        assert "ZeroDivisionError" in trace.read_text()
        trace.unlink()


def test_interrupted_before_a_round(driver: Any, capsys: pytest.CaptureFixture[str]) -> None:
    driver(KeyboardInterrupt(), start=False)
    assert main(["train", "c.yaml"]) == 130
    assert "nothing was trained" in capsys.readouterr().err


def test_debug_shows_the_traceback(driver: Any, capsys: pytest.CaptureFixture[str]) -> None:
    driver(ZeroDivisionError("z"))
    assert main(["--debug", "train", "c.yaml"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_unsupported_surroundings_are_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal("linux", (3, 11, 0)) is None and refusal("darwin", (3, 13, 9)) is None
    assert "WSL" in (refusal("win32", (3, 12, 0)) or "")
    assert "3.10.4" in (refusal("linux", (3, 10, 4)) or "") and refusal("linux", (3, 14, 0)) is not None
    monkeypatch.setattr(entry, "refusal", lambda platform, version: "no")
    assert main(["--help"]) == 2
    assert capsys.readouterr().err == "no\n"


def test_blas_gets_one_thread_unless_told_otherwise() -> None:
    code = "import os; from jobs.__main__ import main; main(['--version']); print(os.environ['OPENBLAS_NUM_THREADS'])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("OPENBLAS_NUM_THREADS", None)
    for given, expected in ({}, "1"), ({"OPENBLAS_NUM_THREADS": "3"}, "3"):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment | given)
        assert done.stdout.split()[-1] == expected


def test_train_resume_and_warm_start(blobs: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "c.yaml", "--json", "--set", "workers=2", "--run-dir", "one"]) == 0
    captured = capsys.readouterr()
    first = json.loads(captured.out)
    assert first["test_accuracy"] > 0.9 and first["rounds"] == 2 and len(first["model_sha256"]) == 64
    assert first["run_dir"].endswith("/one") and [trial["split"] for trial in first["trials"]] == [0]
    assert "round 1/2" in captured.err and "the model is in one" in captured.err
    assert main(["train", "c.yaml", "--run-dir", "one"]) == 2
    assert "--resume" in capsys.readouterr().err

    longer = ["--set", "train.epochs=8"]
    assert main(["train", "--resume", "--run-dir", "one", "--json", *longer]) == 0
    resumed = json.loads(capsys.readouterr().out)
    assert main(["train", "c.yaml", "--json", "--set", "workers=2", "--run-dir", "two", *longer]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert resumed["model_sha256"] == whole["model_sha256"] != first["model_sha256"]

    assert main(["train", "--resume", "--run-dir", "one", "--set", "train.lr=0.1"]) == 2
    assert "train.lr was 0.05, is 0.1" in capsys.readouterr().err
    assert main(["train", "--resume", "--run-dir", "one", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model_sha256"] == whole["model_sha256"]

    assert main(["train", "c.yaml", "--set", "workers=2", "--from", "one", "--run-dir", "three", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model_sha256"] != first["model_sha256"]


def test_predict(blobs: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "c.yaml", "--quiet", "--run-dir", "one"]) == 0
    capsys.readouterr()
    assert main(["predict", "one", "data", "-o", "p.parquet", "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    table = pq.read_table("p.parquet")
    assert result["rows"] == table.num_rows == 120 and result["test_accuracy"] > 0.9
    assert captured.err.startswith("120 rows in p.parquet, accuracy ")
    assert main(["predict", "one", "data", "-o", "q.parquet", "--trial", "7"]) == 2
    assert main(["predict", "none", "data", "-o", "q.parquet"]) == 2
    assert main(["predict", "one", "data"]) == 2
    assert not (tmp_path / "q.parquet").exists()


def test_the_shipped_configurations_are_valid() -> None:
    shipped = sorted((ROOT / "configs").glob("*.yaml"))
    assert shipped
    for path in shipped:
        assert main(["train", str(path), "--dry-run"]) == 0
