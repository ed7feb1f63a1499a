"""The plan: trials travel as JSON without losing a bit, shards are dealt evenly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shards import write_dataset

from nnlib.config.schema import Config
from nnlib.core.errors import ConfigError, MismatchError
from nnlib.data.scaling import Scaler
from nnlib.data.split.rule import SplitRule, Stratum
from nnlib.run.planner import make_spec
from nnlib.run.spec import (
    JobSpec,
    Trial,
    WorkerPlan,
    arrays_from_json,
    arrays_to_json,
    assign_shards,
)

RULE = SplitRule((2**64 - 1, 5), (Stratum((17, 2**64 - 1), (1, 2, 3)), Stratum((), (1,))), True)


def through_json(data: Any) -> Any:
    return json.loads(json.dumps(data, allow_nan=False))


def test_a_trial_keeps_every_bit() -> None:
    rng = np.random.default_rng(0)
    shift = rng.standard_normal(50) * 10.0 ** rng.integers(-300, 300, 50)
    shift[:3] = [-0.0, np.finfo(np.float64).smallest_subnormal, np.finfo(np.float64).max]
    scaler = Scaler("standard", shift, 1 / 3 + rng.standard_normal(50))
    trial = Trial(
        3, 2**62, RULE, 4321, (10, 11), (0, 3), (4, 5), (0.1, 1 / 3), scaler, 2, {"train.lr": 0.1, "model.hidden": [3]}
    )
    again = Trial.from_json(through_json(trial.to_json()))
    assert again.scaler is not None
    assert again.scaler.kind == "standard"
    assert again.scaler.shift.tobytes() == scaler.shift.tobytes()
    assert again.scaler.factor.tobytes() == scaler.factor.tobytes()
    assert replace(again, scaler=None) == replace(trial, scaler=None)
    bare = replace(trial, scaler=None, class_weights=None)
    assert Trial.from_json(through_json(bare.to_json())) == bare


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.sampled_from(["float32", "float64", "int64", "uint8"]), st.binary(max_size=400))
def test_arrays_keep_every_bit(dtype: str, data: bytes) -> None:
    item = np.dtype(dtype).itemsize
    array = np.frombuffer(data[: len(data) // item * item], dtype)
    if array.dtype.kind == "f":
        array = np.where(np.isnan(array), array.dtype.type(1), array)  # JSON knows one NaN only
    (again,) = arrays_from_json(json.loads(json.dumps(arrays_to_json({"a": array})))).values()
    assert again.dtype == array.dtype and again.tobytes() == array.tobytes()


def test_a_spec_reads_back_equal(tmp_path: Path) -> None:
    y = np.arange(60) % 2
    extra = {"who": [f"p{i % 9}" for i in range(60)]}
    dataset = write_dataset(tmp_path, np.ones((60, 3), np.float32), y, shards=4, classes=2, extra=extra)
    config = Config.model_validate(
        {
            "data": {"path": str(tmp_path)},
            "workers": 2,
            "split": {"seeds": [4, 1], "group": "who"},
            "train": {"class_weights": {"1": 2.5}},
        }
    )
    spec, plans = make_spec(config, dataset)
    again = JobSpec.from_json(through_json(spec.to_json()))
    assert again == spec
    assert again.extra_columns == ("who",)
    assert [trial.split for trial in again.trials] == [4, 1]
    assert again.trials[0].class_weights == (1.0, 2.5)
    assert [again.model(trial).layout for trial in again.trials] == [spec.model(trial).layout for trial in spec.trials]
    assert [WorkerPlan.from_line(plan.to_line()) for plan in plans] == plans


@pytest.mark.parametrize(
    "line", ["", "{", "[]", "null", "{}", '{"worker":"x","shards":[1]}', '{"worker":1,"shards":3}']
)
def test_damaged_lines_of_a_plan(line: str) -> None:
    with pytest.raises(MismatchError, match="not a line of a plan"):
        WorkerPlan.from_line(line)


@pytest.mark.parametrize("shards", [1, 2, 7, 8, 64])
@pytest.mark.parametrize("workers", [1, 2, 3, 7, 8])
def test_shards_are_dealt_once_and_evenly(shards: int, workers: int) -> None:
    if workers > shards:
        with pytest.raises(ConfigError, match=f"workers is {workers}.*only {shards} shards") as caught:
            assign_shards([10] * shards, workers)
        assert f"--shards {workers}" in str(caught.value)
        return
    plans = assign_shards([10] * shards, workers)
    assert [plan.worker for plan in plans] == list(range(workers))
    dealt = [shard for plan in plans for shard in plan.shards]
    assert sorted(dealt) == list(range(shards))
    sizes = [len(plan.shards) for plan in plans]
    assert max(sizes) - min(sizes) <= 1
