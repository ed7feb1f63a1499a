"""Bad datasets, runs and predictions through the command: exit code, what it says, and nothing half-written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from product import ROOT
from refusals import ROWS, TRAIN, Capture, refused, sound
from shards import write_dataset

from jobs.__main__ import main
from nnlib.data.dataset import MANIFEST, Dataset
from nnlib.data.decoded_rows import BLOCKS


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sound(tmp_path)


def rewritten(index: int, change: Callable[[pa.Table], pa.Table]) -> Callable[[], None]:
    """A shard with another content, and a manifest that promises just that: what only reading it can tell."""

    def damage() -> None:
        dataset = Dataset.open("d")
        path = Path("d") / dataset.shards[index].name
        pq.write_table(change(pq.read_table(path)), path, row_group_size=10)
        data = path.read_bytes()
        shards = list(dataset.shards)
        shards[index] = replace(shards[index], bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        Path("d", MANIFEST).write_text(json.dumps(replace(dataset, shards=tuple(shards)).to_json()))

    return damage


def with_value(column: str, place: int, value: Any) -> Callable[[pa.Table], pa.Table]:
    """The table with one value of a column replaced; of ``x`` it is the middle feature."""

    def change(table: pa.Table) -> pa.Table:
        values = table.column(column).to_pylist()
        values[place] = [values[place][0], value, values[place][2]] if column == "x" else value
        position = table.schema.names.index(column)
        return table.set_column(position, column, pa.array(values, table.schema.field(column).type))

    return change


def narrower(table: pa.Table) -> pa.Table:
    x = [row[:2] for row in table.column("x").to_pylist()]
    return table.set_column(1, "x", pa.array(x, pa.list_(pa.float32(), 2)))


def on_bytes(change: Callable[[bytes], bytes]) -> Callable[[], None]:
    def damage() -> None:
        path = Path("d/part-00001.parquet")
        path.write_bytes(change(path.read_bytes()))

    return damage


def overwritten() -> None:
    shutil.copy("d/part-00000.parquet", Path("d", SHARD))


def flipped(place: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]


SHARD = "part-00001.parquet"
ROW = "row 13"  # the fourth row of the second shard: rows 1, 5, 9, 13, ...
DAMAGE: dict[str, tuple[Callable[[], None], tuple[str, ...]]] = {
    "missing": (lambda: Path("d", SHARD).unlink(), (SHARD, "is not there", "data verify")),
    "truncated": (on_bytes(lambda data: data[:-100]), (SHARD, "bytes long, the manifest says")),
    "empty file": (on_bytes(lambda data: b""), (SHARD, "0 bytes long")),
    "longer": (on_bytes(lambda data: data + b"x"), (SHARD, "bytes long, the manifest says")),
    "bit flipped at the start": (on_bytes(flipped(2)), (SHARD, "SHA-256")),
    "bit flipped inside": (on_bytes(flipped(700)), (SHARD, "SHA-256")),
    "bit flipped at the end": (on_bytes(flipped(-1 - 8)), (SHARD, "SHA-256")),
    "changed after import": (overwritten, (SHARD,)),
    "another width": (rewritten(1, narrower), (SHARD, "column x is", "[2]", "[3]")),
    "a column missing": (rewritten(1, lambda table: table.drop_columns(["y"])), (SHARD, "column y is missing")),
    "not a number": (rewritten(1, with_value("x", 3, float("nan"))), (SHARD, ROW, "feature 1 is nan")),
    "infinite": (rewritten(1, with_value("x", 3, float("-inf"))), (SHARD, ROW, "feature 1 is -inf")),
    "no value": (rewritten(1, with_value("x", 3, None)), (SHARD, ROW, "feature 1 has no value")),
    "label too large": (rewritten(1, with_value("y", 3, 2)), (SHARD, ROW, "label 2 is not one of the 2 classes")),
    "label below 0": (rewritten(1, with_value("y", 3, -1)), (SHARD, ROW, "label -1")),
    "no label": (rewritten(1, with_value("y", 3, None)), (SHARD, "column y has no value")),
    "no rows": (rewritten(1, lambda table: table.slice(0, 0)), (SHARD, "0 rows, the manifest says 12")),
    "not Parquet": (lambda: None, ()),  # replaced below: bytes that the manifest promises, but no Parquet
}


def _not_parquet() -> None:
    rewritten(1, lambda table: table)()
    data = json.loads(Path("d", MANIFEST).read_bytes())
    text = b"PAR1 but only at the start and the end PAR1"
    Path("d", SHARD).write_bytes(text)
    data["shards"][1] |= {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}
    Path("d", MANIFEST).write_text(json.dumps(data))


DAMAGE["not Parquet"] = (_not_parquet, (SHARD, "not a readable Parquet file"))


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_shards(name: str, capsys: Capture) -> None:
    assert main(["train", "c.yaml", "--run-dir", "good", "--quiet"]) == 0
    BLOCKS.clear()
    damage, says = DAMAGE[name]
    damage()
    refused(capsys, 3, *TRAIN, says=(*says, "what to do"))
    refused(capsys, 3, "predict", "good", "d", "-o", "p.parquet", says=says)
    refused(capsys, 3, "data", "verify", "d", says=("what to do",))


def test_bad_rows_in_local_tasks(capsys: Capture) -> None:
    DAMAGE["not a number"][0]()
    refused(capsys, 3, *TRAIN, "-r", "local", says=(SHARD, ROW, "worker 1"))


def manifest(change: Callable[[dict[str, Any]], Any]) -> None:
    data = json.loads(Path("d", MANIFEST).read_bytes())
    Path("d", MANIFEST).write_text(json.dumps(change(data) or data))


MANIFESTS: dict[str, tuple[Callable[[], Any], str]] = {
    "no dataset": (lambda: shutil.rmtree("d"), "no dataset here"),
    "an import that never ended": (lambda: Path("d", MANIFEST).unlink(), "interrupted"),
    "cut": (lambda: Path("d", MANIFEST).write_bytes(Path("d", MANIFEST).read_bytes()[:300]), "is not JSON"),
    "nested": (lambda: Path("d", MANIFEST).write_text("[" * 100_000), "is not JSON"),
    "a list": (lambda: Path("d", MANIFEST).write_text("[]"), "lacks or garbles"),
    "no shards": (lambda: manifest(lambda data: data | {"shards": [], "rows": 0}), "contradicts itself in rows"),
    "one class": (lambda: manifest(lambda data: data | {"classes": ["0"]}), "contradicts itself in classes"),
    "another sum": (lambda: manifest(lambda data: data | {"rows": 7}), "contradicts itself in rows"),
    "endless": (lambda: manifest(lambda data: data | {"rows": float("inf")}), "lacks or garbles"),
    "a shard elsewhere": (
        lambda: manifest(lambda data: data["shards"][0].update(name="../../etc/passwd")),
        "contradicts itself in shards",
    ),
    "a later format": (lambda: manifest(lambda data: data | {"format_version": 99}), "format_version 99"),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_damaged_manifests(name: str, capsys: Capture) -> None:
    damage, reason = MANIFESTS[name]
    damage()
    for command in (TRAIN, ("data", "info", "d"), ("data", "verify", "d")):
        refused(capsys, 3, *command, says=("d", reason))


def test_too_many_workers(capsys: Capture) -> None:
    says = ("workers is 5", "only 4 shards", "at most 4", "--shards 5")
    refused(capsys, 2, *TRAIN, "--set", "workers=5", says=says)


@pytest.mark.parametrize("split", ["{train: 0.02}", "{train: 0.01, stratified: true}"])
def test_a_worker_without_training_rows(split: str, capsys: Capture) -> None:
    says = ("worker", "without training rows", "split.train", "fewer workers")
    refused(capsys, 2, *TRAIN, "--set", f"split={split}", "--set", "workers=4", says=says)


def test_a_shard_without_rows_is_fine_for_a_worker_that_has_others(capsys: Capture) -> None:
    dataset = Dataset.open("d")
    empty = pq.read_table("d/part-00000.parquet").slice(0, 0)
    pq.write_table(empty, "d/part-00004.parquet")
    data = Path("d/part-00004.parquet").read_bytes()
    shard = replace(dataset.shards[0], name="part-00004.parquet", rows=0, class_counts=(0, 0), bytes=len(data),
                    sha256=hashlib.sha256(data).hexdigest(), row_groups=pq.ParquetFile("d/part-00004.parquet")
                    .num_row_groups)  # fmt: skip
    Path("d", MANIFEST).write_text(json.dumps(replace(dataset, shards=(*dataset.shards, shard)).to_json()))
    assert main([*TRAIN, "--quiet"]) == 0
    shutil.rmtree("run")
    refused(capsys, 2, *TRAIN, "--set", "workers=5", says=("leaves worker 4 without training rows",))


def test_a_class_that_is_never_trained_on_is_fine() -> None:
    manifest(lambda data: data | {"classes": [*data["classes"], "2"], "shards": [
        shard | {"class_counts": [*shard["class_counts"], 0]} for shard in data["shards"]]})  # fmt: skip
    assert main([*TRAIN, "--quiet", "--set", "train.class_weights=balanced"]) == 0


@pytest.mark.parametrize("kept", [[None] * ROWS, ["train"] * (ROWS - 1) + ["rest"], ["test"] * ROWS])
def test_a_split_column_that_says_something_else(kept: list[str | None], tmp_path: Path, capsys: Capture) -> None:
    rng = np.random.default_rng(0)
    shutil.rmtree("d")
    text = ["-" if value is None else value for value in kept]
    write_dataset(tmp_path / "d", rng.normal(size=(ROWS, 3)), [0, 1] * (ROWS // 2), shards=4, classes=2,
                  extra={"part": text})  # fmt: skip
    error = refused(capsys, 2 if set(kept) == {"test"} else 3, *TRAIN, "--set", "split.column=part")
    assert "training rows" in error or "train, validation or test" in error or "part" in error


def test_a_rate_that_diverges_keeps_the_last_good_model(capsys: Capture) -> None:
    hot = ("--set", "train.optimizer=sgd", "--set", "model.hidden=[32, 32]", "--set", "train.epochs=60", "--json")
    capsys.readouterr()
    assert main([*TRAIN, *hot, "--set", "train.lr=1e6"]) == 5
    told = capsys.readouterr()
    (failed,) = json.loads(told.out)["diverged"]
    assert all(part in failed["reason"] for part in ("worker 0", "round 0", "loss is"))
    assert failed["reason"] in told.err and "--from run --set train.lr=SMALLER" in told.err
    assert main(["predict", "run", "d", "-o", "p.parquet"]) == 0  # the first model, for no other was good

    gentle = ("--set", "train.lr=0.01", "--set", "train.epochs=2")
    assert main(["train", "c.yaml", "--from", "run", "--run-dir", "mended", *hot, *gentle]) == 0

    # A rate that grows until it is too large: whole rounds stay, and earlier ones are there to go on from.
    rising = ("--set", "train.lr=1e3", "--set", "train.schedule.warmup_epochs=1000", "--set", "checkpoint.keep=all")
    capsys.readouterr()
    assert main(["train", "c.yaml", "--run-dir", "late", *hot, *rising]) == 5
    result = json.loads(capsys.readouterr().out)
    good = result["trials"][0]["round"]
    assert good >= 2 and f"round {good}" in result["diverged"][0]["reason"]
    assert main(["train", "c.yaml", "--from", "late@1", "--run-dir", "again", *hot, *gentle]) == 0
    mended = json.loads(capsys.readouterr().out)
    assert mended["diverged"] == [] and mended["test_accuracy"] > result["test_accuracy"]


RUN_FILES = {
    "spec.json": 3,
    "config.yaml": 2,
    "rounds/000002/manifest.json": 3,
    "rounds/000002/model.safetensors": 3,
    "rounds/000002/trials.json": 3,
    "rounds/000002/metrics.json": 3,
    "rounds/000002/ledger.json": 3,
}


@pytest.mark.parametrize("damage", ["cut", "garbled", "flipped"])
def test_damaged_runs(damage: str, capsys: Capture) -> None:
    """Resuming names the file that is damaged, and changes nothing but its lock."""
    assert main([*TRAIN, "--quiet"]) == 0
    for name, code in RUN_FILES.items():
        path = Path("run", name)
        whole = path.read_bytes()
        place = len(whole) // 2
        content = {"cut": whole[:place], "garbled": b'{"a": [\xff]}', "flipped": flipped(place)(whole)}[damage]
        path.write_bytes(content)
        capsys.readouterr()
        found = main(["train", "--resume", "--run-dir", "run", "--set", "train.epochs=3"])
        told = capsys.readouterr().err
        if damage == "flipped" and name in ("spec.json", "config.yaml"):  # may still be read; `verify` tells
            assert found in (0, 2, 3), told
            shutil.rmtree("run")
            assert main([*TRAIN, "--quiet"]) == 0
        else:
            assert found == code, (name, told)
            assert name in told and "Traceback" not in told
            path.write_bytes(whole)


def test_damaged_final_models(capsys: Capture) -> None:
    assert main([*TRAIN, "--quiet"]) == 0
    path = Path("run/final/model.safetensors")
    whole = path.read_bytes()
    for content in (whole[:-5], flipped(-3)(whole), b"\xff" * 64, b"\x80\x04\x95pickle", b""):
        path.write_bytes(content)
        refused(capsys, 3, "predict", "run", "d", "-o", "p.parquet", says=("final/model.safetensors",))
        refused(capsys, 3, "train", "c.yaml", "--from", "run", "--run-dir", "b", says=("final/model.safetensors",))


def test_runs_that_lost_their_rounds_or_scores(capsys: Capture) -> None:
    assert main([*TRAIN, "--quiet"]) == 0
    shutil.copytree("run", "whole")
    Path("run/final/metrics.json").write_text('{"rounds_planned": 2}')
    commands = (("report", "run", "-o", "r.html"), ("predict", "run", "d", "-o", "p.parquet"))
    for command in (*commands, ("train", "c.yaml", "--from", "run", "--run-dir", "b")):
        refused(capsys, 3, *command, says=("final/metrics.json", "altered or damaged", "delete final/"))
    shutil.rmtree("run/rounds")
    shutil.rmtree("run/final")
    shutil.copytree("whole/final", "run/final")
    for command in (commands[0], ("train", "c.yaml", "--from", "run", "--run-dir", "b")):
        refused(capsys, 3, *command, says=("run", "has lost its rounds", "copy"))


@pytest.mark.parametrize("name", ["\udcff", "a\0b"])
def test_names_that_no_file_can_keep(name: str, capsys: Capture) -> None:
    for command in (
        ("train", "c.yaml", "--run-dir", name),
        ("train", "c.yaml", "--from", name, "--run-dir", "b"),
        ("data", "info", name),
        ("data", "import", "iris", "-o", name),
        ("predict", name, "d", "-o", "p.parquet"),
        ("report", name),
    ):
        refused(capsys, 2, *command, says=("UTF-8", "NUL"))


@pytest.mark.parametrize(
    "options",
    [
        ("--rows", "99999999999999999999"),
        ("--rows", "0"),
        ("--rows", "10", "--features", "99999999999"),
        ("--rows", "10", "--classes", "1"),
        ("--rows", "10", "--shards", "11"),
        ("--rows", "10", "--row-group-rows", "99999999999999999999"),
        ("--rows", "10", "--seed", "-1"),
    ],
)
def test_numbers_out_of_range(options: tuple[str, ...], capsys: Capture) -> None:
    refused(capsys, 2, "data", "synth", "--kind", "blobs", "-o", "s", *options, says=(options[-2],))


PREDICTIONS = {
    "absent.csv": (None, "no such file"),
    "empty.csv": ("", "empty"),
    "header.csv": ("a,b,c\n", "no rows"),
    "narrow.csv": ("1,2\n3,4\n", "a row has 2 numbers, the model wants 3"),
    "nan.csv": ("1,2,3\n1,nan,3\n", "row 2"),
    "text.csv": ("1,2,3\n1,two,3\n", "'two'"),
    "late.csv": ("1,2,3\n" * 5000 + "1,2\n", "row 5001"),
}


@pytest.mark.parametrize("name", PREDICTIONS)
def test_bad_rows_to_predict(name: str, capsys: Capture) -> None:
    assert main([*TRAIN, "--quiet"]) == 0
    content, reason = PREDICTIONS[name]
    if content is not None:
        Path(name).write_text(content)
    refused(capsys, 3, "predict", "run", name, "-o", "p.parquet", says=(name, reason))


def test_places_that_cannot_be_written(capsys: Capture) -> None:
    assert main([*TRAIN, "--quiet"]) == 0
    refused(capsys, 4, "predict", "run", "d", "-o", "c.yaml/p.parquet", says=("c.yaml", "cannot write"))
    refused(capsys, 2, "train", "c.yaml", "--run-dir", "c.yaml", says=("is the input, c.yaml",))
    refused(capsys, 2, "train", "c.yaml", "--run-dir", "c.yaml/run", says=("lies in an input, c.yaml",))
    Path("file").write_text("x")
    refused(capsys, 4, "train", "c.yaml", "--run-dir", "file", says=("file",))
    refused(capsys, 4, "train", "c.yaml", "--run-dir", "file/run", says=("file",))
    refused(capsys, 4, "data", "import", "iris", "-o", "c.yaml", says=("c.yaml",))
    refused(capsys, 2, "train", "c.yaml", "--run-dir", "run", says=("--resume", "--from"))
    refused(capsys, 2, "train", "c.yaml", "--from", "run@7", "--run-dir", "b", says=("round 7", "kept: 0, 1, 2"))
    refused(capsys, 2, "train", "c.yaml", "--from", "d", "--run-dir", "b", says=("no run here",))


def test_exit_codes_of_the_process() -> None:
    """What `main` returns is what the shell sees."""

    def code(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "jobs", *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        return done.returncode, done.stderr

    Path("d", SHARD).unlink()
    assert code(*TRAIN)[0] == 3
    assert code(*TRAIN, "--set", "workers=none")[0] == 2
    found, told = code("data", "import", "\udcff\n.csv", "-o", "x")
    assert found == 3 and "no such file" in told
