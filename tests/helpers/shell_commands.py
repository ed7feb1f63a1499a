"""How to call every command of nnjobs quickly on small data, and the folder that these calls work in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from jobs.__main__ import main
from jobs.commands.cli import cli


@dataclass(frozen=True)
class Call:
    """One call of a command: its arguments.

    Files whose paths match ``varying`` differ from one call to the next. ``prints_data``: standard output is a file's
    content, in UTF-8 whatever the terminal is.
    """

    arguments: tuple[str, ...]
    varying: tuple[str, ...] = ()
    prints_data: bool = False

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "jobs", *self.arguments]


def _call(line: str, *varying: str) -> Call:
    return Call(tuple(line.split()), varying)


RUN = ("*/events.jsonl", "*/log", "*/status.json", "*/lock/*")
"""Files of a run that hold times."""

CALLS = {
    "help": _call("--help"),
    "version": _call("--version"),
    "completion": _call("completion bash"),
    "train": _call("train c.yaml --run-dir new --json", *RUN),
    "train by processes": _call("train c.yaml --run-dir new -r local --quiet", *RUN),
    "train, only shown": _call("train c.yaml --dry-run"),
    "train without a file": _call("train missing.yaml"),
    "evaluate": _call("evaluate e.yaml -o evaluated --no-report --at-once 2 --json", *RUN, "*/results.*"),
    "predict": _call("predict base rows.csv -o predicted.parquet --json"),
    "predict to standard output": Call(("predict", "base", "rows.csv", "-o", "-"), prints_data=True),
    "predict by processes": _call("predict base ds -o predicted -r local --json"),
    "predict without rows": _call("predict base missing.csv -o predicted.parquet"),
    "report": _call("report base -o page --json", "*.html", "*.svg"),
    "export": _call("export base --format npz -o model.npz --json", "*.card.*"),
    "scale": _call("scale c.yaml --workers 1,2 -o scaled --json", *RUN, "*.json", "*.png"),
    "simulate": _call("simulate c.yaml --workers 1,2 --seconds 1 --json"),
    "split-study": _call("split-study s.yaml -o split --json", *RUN, "*/splitting.json", "*.svg"),
    "status": _call("status base --json"),
    "status of a folder without a run": _call("status ds"),
    "logs": _call("logs base"),
    "logs of a worker that has none": _call("logs base --worker 0"),
    "cancel": _call("cancel base --json"),
    "verify": _call("verify base --json"),
    "data import": _call("data import rows.csv -o imported --label label --shards 2"),
    "data import by processes": _call("data import rows.csv -o imported --label label --shards 2 -r local"),
    "data tokenize": _call("data tokenize rows.csv -o tokens --template {label} --train-tokenizer 260 --length 8"),
    "data synth": _call("data synth --kind blobs --rows 200 --features 3 -o made"),
    "data info": _call("data info ds"),
    "data verify": _call("data verify ds"),
    "data verify, damaged": _call("data verify damaged"),
    "cluster start": _call("cluster start --dir rows.csv/cluster"),
    "cluster status": _call("cluster status --dir none"),
    "cluster stop": _call("cluster stop --dir none"),
    "doctor": _call("doctor --json"),
    "devices": _call("devices --json"),
    "pack": _call("pack -o env.tar.gz"),
    "pack below a file": _call("pack -o rows.csv/env.tar.gz"),
}
"""Name -> call. Names begin with the command's words; a command may have several calls."""

SLOW = {"evaluate", "report", "scale", "simulate", "split-study", "doctor", "devices", "pack"}
SLOW |= {"data import by processes", "predict by processes"}
"""Calls that take longer than a second: they are made with ``--full`` only."""

ROWS = 60


def commands(group: click.Command = cli, *words: str) -> Iterator[str]:
    """The words of every command that nnjobs has."""
    if not isinstance(group, click.Group):
        yield " ".join(words)
        return
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield from commands(command, *words, name)


def make_scene(folder: Path) -> None:
    """Make what the calls of `CALLS` need: rows, datasets, configurations, a trained run; with words not in ASCII."""
    lines = [f"{number % 7},{(number * 5) % 11}.5,{'größer' if number % 3 else 'kleiner'}" for number in range(ROWS)]
    (folder / "rows.csv").write_text("\n".join(["länge,breite,label", *lines]) + "\n", encoding="utf-8")
    text = f"data: {{path: {folder}/ds}}\nmodel: {{hidden: [3]}}\nworkers: 2\n"
    (folder / "c.yaml").write_text(f"name: klein\n{text}train: {{epochs: 2, epochs_per_round: 1}}\n", encoding="utf-8")
    small = "train: {epochs: 1}\nsplit: {seeds: [1, 2]}\nevaluate: {workers: [1, 2], epochs: [1]}\n"
    (folder / "e.yaml").write_text(f"name: vergleich\n{text}{small}", encoding="utf-8")
    nets = text.replace("hidden: [3]", "hidden: [2, 2]") + "train: {subnets: {alternate: none}, epochs: 1}\n"
    nets += "sampling: {streams: shared}\nsplitting: {whole_epochs: 1}\n"
    (folder / "s.yaml").write_text(f"name: geteilt\n{nets}", encoding="utf-8")
    rows = str(folder / "rows.csv")
    for name in ("ds", "damaged"):
        assert main(["data", "import", rows, "-o", str(folder / name), "--label", "label", "--shards", "2"]) == 0
    (folder / "damaged" / "part-00000.parquet").unlink()
    assert main(["train", str(folder / "c.yaml"), "--run-dir", str(folder / "base"), "--quiet"]) == 0
