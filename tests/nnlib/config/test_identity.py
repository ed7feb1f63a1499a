"""What decides the bits of a run, and what a resumed run may change."""

from __future__ import annotations

import pytest

from nnlib.config.identity import (
    NOT_MATHEMATICS,
    config_hash,
    differences,
    mathematics,
    mathematics_read,
    resume_problems,
    with_measured,
)
from nnlib.config.kinds import MODELS
from nnlib.config.load import load_config
from nnlib.config.schema import Config, stored_config

ANOTHER = {
    "name": "other",
    "run_dir": "elsewhere",
    "reducers": "3",
    "data.path": "/other",
    "sync.slice_elements": "70000",
    "checkpoint.keep": "all",
    "runtime.runner": "local",
    "runtime.cores": "2",
    "runtime.memory_mb": "64",
    "runtime.retries": "0",
    "runtime.task_timeout_seconds": "60",
    "runtime.numerics": "loose",
    "tracking.experiment": "other",
}


def config(*overrides: str) -> Config:
    return load_config(None, ["data.path=/d", *overrides])


@pytest.mark.parametrize(("key", "value"), ANOTHER.items())
def test_where_and_how_it_runs_is_not_mathematics(key: str, value: str) -> None:
    changed = config(f"{key}={value}")
    assert changed != config()
    assert differences(config(), changed) == [] and resume_problems(config(), changed) == []
    assert config_hash(config(), "data") == config_hash(changed, "data")


@pytest.mark.parametrize(
    ("key", "value"),
    [("seed", "1"), ("workers", "2"), ("train.lr", "0.1"), ("model.hidden", "[3]"), ("split.seeds", "[1]"),
     ("sampling.window_rows", "100"), ("train.class_weights", "{a: 2}"), ("sync.outer.lr", "0.5"),
     ("runtime.blas_threads", "2"), ("data.scale", "standard"), ("train.schedule.kind", "step")],
)  # fmt: skip
def test_what_decides_the_bits_is_mathematics(key: str, value: str) -> None:
    changed = config(f"{key}={value}")
    assert differences(config(), changed) == [key]
    assert config_hash(config(), "data") != config_hash(changed, "data")
    assert len(resume_problems(config(), changed)) == 1 and key in resume_problems(config(), changed)[0]


def test_a_section_that_appears_differs_by_its_keys() -> None:
    validated = config("split.validation=0.1")
    assert "train.stop.patience" in differences(validated, config("split.validation=0.1", "train.stop.patience=3"))


def test_the_dataset_belongs_to_the_hash() -> None:
    assert config_hash(config(), "one") != config_hash(config(), "two")


def test_the_hash_is_stable() -> None:
    assert config_hash(config(), "data") == config_hash(config("train.lr=5e-2"), "data")
    assert len(config_hash(config(), "data")) == 64


def test_the_table_names_existing_keys() -> None:
    plain = config().model_dump()
    of_kinds = {option for kind in MODELS.values() for option in kind.options.model_fields}
    values = {**plain, "model": {**plain["model"], **dict.fromkeys(of_kinds)}}
    for key in NOT_MATHEMATICS:
        here = values
        for part in key.split("."):
            assert part in here, key
            here = here[part]


def test_more_epochs_are_the_same_mathematics() -> None:
    longer = config("train.epochs=200")
    assert mathematics(config()) == mathematics(longer)
    assert differences(config(), longer) == ["train.epochs"]
    assert resume_problems(config(), longer) == []
    assert "may only grow" in resume_problems(longer, config())[0]


def test_epochs_that_decide_may_not_grow() -> None:
    cosine = "train.schedule.kind=cosine"
    assert mathematics(config(cosine)) != mathematics(config(cosine, "train.epochs=200"))
    assert "cosine" in resume_problems(config(cosine), config(cosine, "train.epochs=200"))[0]
    assert resume_problems(config(cosine), config(cosine)) == []
    torn = config("train.epochs=12")
    assert "within a round" in resume_problems(torn, config("train.epochs=20"))[0]
    assert resume_problems(config("train.epochs=10"), torn) == []


AUTO = ("train.epochs_per_round=auto", "sync.round_cost=1.0")


def test_what_a_round_costs_decides_only_where_lengths_are_chosen_by_it() -> None:
    assert config_hash(config(), "data") == config_hash(config("sync.round_cost=2.0"), "data")
    chosen = config(*AUTO)
    assert differences(chosen, config("train.epochs_per_round=auto", "sync.round_cost=2.0")) == ["sync.round_cost"]
    assert "as long as what was left" in resume_problems(chosen, config(*AUTO, "train.epochs=200"))[0]
    assert with_measured(chosen, config("train.epochs_per_round=auto")) == chosen


def test_people_see_the_options_that_are_read() -> None:
    shown = mathematics_read(config("train.optimizer=adam"))
    assert shown["train.beta1"] == 0.9 and not {"train.momentum", "train.history"} & set(shown)
    kept = stored_config({**config().model_dump(mode="json"), "train": {"optimizer": "cg", "momentum": 0.5}})
    assert "train.momentum" in mathematics(kept) and "train.momentum" not in mathematics_read(kept)
    assert "train.epochs" not in shown
