"""Keys that later versions add: they change no hash of what earlier versions did."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest
from product import ROOT
from pydantic import Field

from nnlib.config.earlier import FIRST, NO_VALUE, stable_values, value_before
from nnlib.config.identity import config_hash, differences
from nnlib.config.load import load_config
from nnlib.config.schema import Config, Sampling
from nnlib.config.section import Section, since
from nnlib.config.tagged import kinds_of

FILES = {
    "configs/digits-8-workers.yaml": "974cb73a139e2c29",
    "configs/digits.yaml": "e1fb3d5c659c0a03",
    "configs/iris.yaml": "8fee02e30c299afb",
    "configs/paper.yaml": "613aff9ce9652ebd",
    "configs/scale-kfold.yaml": "b34eda4906487f81",
    "configs/scale-mlp1.yaml": "b27d5339778746d1",
    "configs/scale-mlp3.yaml": "11437f97315ced69",
    "tests/fixtures/before_rooms/runs/collective/config.yaml": "a0bc1ba6dda15435",
    "tests/fixtures/before_rooms/runs/regression/config.yaml": "b7ec2ffe03d6e153",
    "tests/fixtures/before_rooms/runs/rounds/config.yaml": "5f5114692db00a47",
    "tests/fixtures/before_rooms/runs/sweep/config.yaml": "7da8f902fb718870",
}
"""Configuration files -> the start of their hash in the first version, for a dataset with the fingerprint "data"."""

OVERRIDES = {
    "train.optimizer=adam; train.lr=0.01; train.beta1=0.8": "de48e0fc0f74e230",
    "train.optimizer=cg": "ffdd86780edbbf7f",
    "train.optimizer=lbfgs; train.history=5": "7baa31e996f6229a",
    "train.optimizer=sgd; train.schedule.kind=cosine; train.schedule.final=0.1": "1d77ed0b10f0bb48",
    "sync.outer.kind=nesterov; sync.outer.lr=0.8; sync.outer.momentum=0.5": "305327f090b9aa23",
    "sweep.train.lr=[0.1, 0.2]; sweep.model.hidden=[[4], [8]]": "16ab8021882f90af",
    "split.validation=0.1; train.stop.patience=3": "7da230000fb002f1",
    "train.class_weights={a: 2}": "0e59f0b023db914c",
    "sync.mode=collective; sync.overlap=1; sync.overlap_drain=3": "af5bc316795634a6",
    "train.epochs_per_round=auto; sync.round_cost=0.5": "c68d2c97d4454207",
    "train.schedule={kind: step, gamma: 0.5, warmup_epochs: 2}; train.optimizer=nesterov": "2d1a325fe0212c7c",
}
"""Overrides, separated by "; " -> likewise."""


@pytest.mark.parametrize("file", FILES)
def test_files_hash_as_in_the_first_version(file: str) -> None:
    assert config_hash(load_config(ROOT / file), "data").startswith(FILES[file])


@pytest.mark.parametrize("overrides", OVERRIDES)
def test_overrides_hash_as_in_the_first_version(overrides: str) -> None:
    config = load_config(None, ["data.path=/d", *overrides.split("; ")])
    assert config_hash(config, "data").startswith(OVERRIDES[overrides])


class LaterSampling(Sampling):
    """A section of a later version: one more key, whose default is what the first version did."""

    repeats: int = Field(1, json_schema_extra=since("0.2", before=1))


class LaterConfig(Config):
    """A configuration of a later version: a key in a section, and one whose default is new behaviour."""

    sampling: LaterSampling = LaterSampling()
    clip_norm: float | None = Field(1.0, json_schema_extra=since("0.2", before=None))


def later(file: str, **changes: Any) -> Config:
    values = load_config(ROOT / file).model_dump(mode="json")
    return LaterConfig.model_validate({**values, "clip_norm": None, **changes})


@pytest.mark.parametrize("file", FILES)
def test_a_key_added_later_changes_no_hash_of_what_was_done_before(file: str) -> None:
    assert config_hash(later(file), "data").startswith(FILES[file])


def test_a_key_added_later_enters_the_hash_where_it_changes_what_is_done() -> None:
    before = later("configs/digits.yaml")
    sampling = {**before.sampling.model_dump(), "repeats": 2}
    hashes = {
        config_hash(config, "data")
        for config in (
            before,
            later("configs/digits.yaml", clip_norm=1.0),
            later("configs/digits.yaml", clip_norm=2.0),
            later("configs/digits.yaml", sampling=sampling),
        )
    }
    assert len(hashes) == 4
    assert differences(before, later("configs/digits.yaml", sampling=sampling)) == ["sampling.repeats"]
    assert differences(load_config(ROOT / "configs/digits.yaml"), later("configs/digits.yaml", clip_norm=1.0)) == [
        "clip_norm"
    ]


def keys(section: type[Section], above: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, its field) of all keys of a section, also of each kind."""
    for name, field in section.model_fields.items():
        parts = [part for part in (field.annotation, *get_args(field.annotation)) if isinstance(part, type)]
        sections = [*kinds_of(field.annotation).values()] or [part for part in parts if issubclass(part, Section)]
        if not sections or type(None) in parts:
            yield f"{above}{name}", field
        for inner in sections:
            yield from keys(inner, f"{above}{name}.")


def test_every_key_is_of_the_first_version_or_says_what_was_before() -> None:
    unmarked = [key for key, field in keys(Config) if key not in FIRST and value_before(field) is NO_VALUE]
    assert set(unmarked) == {"data.path", "train.stop.patience"}, (
        "declare what versions without the key did: json_schema_extra=since(...)"
    )


def test_the_stable_values_are_those_of_the_first_version() -> None:
    values = stable_values(load_config(ROOT / "configs/digits.yaml"))
    assert values["train"]["beta1"] == 0.9 and values["train"]["stop"] is None and values["sweep"] == {}
