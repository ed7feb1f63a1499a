"""Wrong configurations through the command: the key, what it got, what is allowed; nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from refusals import TRAIN, Capture, refused, sound

from jobs.__main__ import main


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sound(tmp_path)


# Configurations: (--set overrides or a whole file) -> what is said.
OVERRIDES = [
    ("modle.hidden=[3]", ("modle", "did you mean model")),
    ("train.epoch=3", ("train.epoch", "did you mean train.epochs?")),
    ("frobnicate=1", ("frobnicate: unknown key",)),
    ("workers=two", ("workers", "a whole number from 1")),
    ("workers=2.5", ("workers", "whole number")),
    ("workers=-1", ("got -1", "from 1")),
    ("workers=0", ("got 0",)),
    ("workers=1000000000000000000000000000000", ("workers", "100000")),
    ("seed=-1", ("seed", "from 0")),
    ("train.lr=0", ("train.lr", "above 0")),
    ("train.lr=-0.1", ("train.lr",)),
    ("train.lr=.nan", ("train.lr",)),
    ("train.lr=.inf", ("train.lr",)),
    ("train.lr=1e400", ("train.lr",)),
    ("train.epochs=-2", ("train.epochs",)),
    ("train.epochs=1e3", ("train.epochs", "write 1000")),
    ("train.batch_size=99999999999999999999", ("train.batch_size",)),
    ("model.hidden=[0]", ("model.hidden[0]",)),
    ("model.hidden=[-5]", ("model.hidden[0]",)),
    ("model.hidden=[1000000000]", ("model.hidden", "parameters", "this machine has")),
    ("model.hidden=[1000000000, 1000000000]", ("model.hidden", "parameters")),
    ("model.activation=relux", ("model.activation", "did you mean relu?")),
    ("train.optimizer=sgdd", ("train.optimizer", "did you mean sgd?")),
    ("split.train=1.5", ("split.train", "to 1")),
    ("split.seeds=[]", ("split.seeds", "at least 1")),
    ("split.seeds=[1, 1]", ("twice",)),
    ("split.group=who", ("who", "--keep who")),
    ("train.class_weights={nobody: 2}", ("train.class_weights", "nobody", "0, 1")),
    ("name=../../outside", ("name", "a text matching")),
    ("data.path=nothing\0here", ("control characters are not allowed",)),
    ("data.path=\udcff", ("not UTF-8",)),
    ("data.path=!!python/name:os.system", ("tag", "not allowed")),
    ("train={lr: [", ("not valid YAML",)),
    ("train.lr", ("KEY=VALUE",)),
]


@pytest.mark.parametrize(("override", "says"), OVERRIDES, ids=[override[:40] for override, _ in OVERRIDES])
def test_wrong_overrides(override: str, says: tuple[str, ...], capsys: Capture) -> None:
    refused(capsys, 2, *TRAIN, "--set", override, says=says)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + level)}: &{chr(98 + level)} [{', '.join(['*' + chr(97 + level)] * 9)}]\n" for level in range(8)
)
FILES = {
    "a YAML bomb": (BOMB, "anchors (&) and aliases (*) are not allowed"),
    "a tag that would run code": ("data: !!python/object/apply:os.system ['touch hacked']\n", "is not allowed"),
    "a local tag": ("data: !thing {path: d}\n", "the tag !thing is not allowed"),
    "nothing": ("", "data: is missing"),
    "a list": ("- 1\n- 2\n", "must be a mapping"),
    "two documents": ("data: {path: d}\n---\ndata: {path: e}\n", "second document"),
    "a key twice": ("data: {path: d}\nseed: 1\nseed: 2\n", "c.yaml:2: seed: is given twice, here and in c.yaml:3"),
    "deep": ("a: " + "[" * 5000, "levels"),
    "long": ("seed: 1 #" + "x" * (2 << 20), "larger than"),
    "wide": ("model: {hidden: [" + "1, " * 20_000 + "1]}\n", "values"),
    "tabs": ("data:\n\tpath: d\n", "c.yaml:2"),
    "several problems": ("data: {path: d}\nworkers: 0\ntrian: {}\ntrain: {lr: fast}\n", "3 problems"),
    "control characters": ("data: {path: d}\nname: a\x07b\n", "not valid YAML"),
}


@pytest.mark.parametrize("name", FILES)
def test_wrong_files(name: str, capsys: Capture) -> None:
    text, reason = FILES[name]
    Path("c.yaml").write_text(text)
    refused(capsys, 2, *TRAIN, says=("c.yaml", reason))


def test_a_home_that_nobody_has(capsys: Capture) -> None:
    refused(capsys, 3, *TRAIN, "--set", "data.path=~no-such-user/d", says=("~no-such-user/d", "no dataset here"))


def test_files_that_are_no_text(capsys: Capture) -> None:
    Path("c.yaml").write_bytes(b"data: {path: d\xff}\n")
    refused(capsys, 2, *TRAIN, says=("c.yaml", "not UTF-8 text: byte 14"))
    Path("c.yaml").unlink()
    Path("c.yml").write_text("")
    refused(capsys, 2, *TRAIN, says=("no such configuration file", "did you mean c.yml?"))
    refused(capsys, 2, "train", "d", says=("directory",))


def test_huge_numbers_that_are_legal(capsys: Capture) -> None:
    """They neither overflow nor take memory that the rows do not need."""
    huge = ("train.batch_size=1000000000", "sampling.window_rows=1000000000", f"seed={2**63 - 1}",
            f"split.seeds=[{2**63 - 1}]", "train.schedule={kind: inverse, warmup_epochs: 1000000000000}",
            "checkpoint.keep=1000000000", "runtime.memory_mb=1000000000")  # fmt: skip
    assert main([*TRAIN, "--quiet", *(part for value in huge for part in ("--set", value))]) == 0


def test_a_resolved_configuration_is_private_and_read_back_as_text(capsys: Capture) -> None:
    """Words that YAML takes for something else come back as the texts they were."""
    assert main(["train", "c.yaml", "--set", "data.path='no'", "--dry-run"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["data"]["path"].endswith("/no")
