"""Every benchmark runs, in a small form, and records what its table reads. What it measures is not judged here."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from processes import started
from product import ROOT

BENCHMARKS = ROOT / "tests/benchmarks"
SMALL = {
    "accuracy": ["--splits", "2", "--epochs", "5"],
    "averaging": ["--splits=2", "--epochs=2", "--workers", "1", "2", "--periods=2", "--precisions=exact", "--untimed"],
    "empty_round": ["--rounds", "3"],
    "memory": ["--rows", "3000"],
    "multiplexing": ["--splits", "2", "--epochs", "5", "--repeats", "1"],
    "periods": ["--splits", "2", "--epochs", "5", "--periods", "5", "--costs", "3"],
    "splitting": ["--partitions", "2", "--epochs", "1", "--repeats", "1"],
    "splitting_ways": ["--splits", "1", "--epochs", "1", "--width", "8"],
    "weak_scaling": ["--rows", "600", "--epochs", "2", "--repeats", "1"],
    "whole_command": ["--repeats", "1", "--epochs", "5"],
}


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Imports a benchmark by name; results go to a temporary folder."""
    pytest.importorskip("psutil")
    pytest.importorskip("mlxtend")
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def load(name: str) -> ModuleType:
        monkeypatch.setattr(importlib.import_module("record"), "RESULTS", tmp_path)
        return importlib.import_module(name)

    return load


def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    specification = importlib.util.spec_from_file_location("benchmark_table", BENCHMARKS / "__main__.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, "benchmark_table", module)  # dataclasses look their module up
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", sorted(SMALL))
def test_runs_and_records(
    benchmark: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = benchmark(name).main(SMALL[name])
    recorded = json.loads((tmp_path / f"{name}.json").read_text("utf-8"))
    assert code == (0 if recorded["result"]["held"] else 1)
    assert recorded["name"] == name
    assert {"date", "commit", "machine"} <= set(recorded)
    assert json.loads(capsys.readouterr().out)["held"] == recorded["result"]["held"]
    for figure in table(monkeypatch).FIGURES:
        if figure.benchmark == name:
            assert figure.value(recorded["result"]) == figure.value(recorded["result"])  # there, and not NaN


def test_stored_results_have_every_figure_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    for figure in table(monkeypatch).FIGURES:
        path = BENCHMARKS / "results" / f"{figure.benchmark}.json"
        if path.exists():
            assert figure.value(json.loads(path.read_text("utf-8"))["result"]) > -1.0


def test_the_yardstick_trains_what_the_configuration_says(benchmark: Any, tmp_path: Path) -> None:
    whole = benchmark("whole_command")
    config = whole.load_config(whole.CONFIG)
    whole.check_same(config)
    with pytest.raises(SystemExit):
        whole.check_same(config.model_copy(update={"train": config.train.model_copy(update={"lr": 0.1})}))


def test_memory_of_a_child_is_seen(benchmark: Any, tmp_path: Path) -> None:
    """A process that fills 200 MB and gives them back before it ends has a mark above 200 MB."""
    children = benchmark("children")

    program = "import time; x = b'x' * 200_000_000; del x; time.sleep(0.3)"
    memory = children.Memory()
    with started([sys.executable, "-c", program]) as process, memory.watching(process.pid):
        process.wait()
    assert 200.0 < max(memory.peaks.values()) < 400.0
