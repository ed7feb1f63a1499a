"""A layout with buffers: a running mean and a counter go through the average, the lines between tasks and checkpoints,
exactly and each by its own rule."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from records import round_facts, round_metrics

from jobs.mapreduce.wire import SliceKey, decode_partial, encode_partial
from nnlib.aggregation.average import Average, Partial
from nnlib.core.entries import BUFFER_DTYPES, Entry, buffer, optimizer_state, parameter
from nnlib.core.errors import DivergedError, MismatchError
from nnlib.core.layout import BLOCK, Layout, LayoutSlice, ModelState
from nnlib.run.checkpoint import Checkpoint, TrialState
from nnlib.run.model_file import model_digest, named_arrays, read_model, unpack
from nnlib.run.round_store import RoundStore
from nnlib.storage import LocalStorage

PARAMETERS: list[Entry] = [parameter("weight", (3, 2), decays=True), parameter("bias", (2,), decays=False)]
BUFFERS: list[Entry] = [
    buffer("running.mean", (3,), "float32", "mean"),
    buffer("batches", (), "int64", "max"),
    buffer("mask", (2, 2), "bool", "keep"),
    buffer("running.variance", (3,), "float32", "mean"),
]
LAYOUT = Layout.build([*BUFFERS[:2], *PARAMETERS, *BUFFERS[2:]], "float32")
LARGE = 2**53 + 1
"""An int64 that no float64 holds."""


def state(seed: int, batches: int = LARGE) -> ModelState:
    """Numbers of `LAYOUT`: drawn, but for the counter and the mask."""
    rng = np.random.default_rng(seed)
    numbers = LAYOUT.zeros()
    numbers.vector[:] = rng.standard_normal(LAYOUT.size)
    views = LAYOUT.buffer_views(numbers.buffers)
    views["running.mean"][:] = rng.standard_normal(3)
    views["running.variance"][:] = rng.random(3)
    views["batches"][...] = batches
    views["mask"][0, 1] = True
    return numbers


def test_buffers_lie_in_a_vector_for_each_dtype_and_rule() -> None:
    assert [(segment.dtype, segment.rule, segment.size) for segment in LAYOUT.segments] == [
        ("float32", "mean", 8),
        ("float32", "mean", 6),
        ("int64", "max", 1),
        ("bool", "keep", 4),
    ]
    assert [entry.name for entry in LAYOUT.entries] == ["weight", "bias"]
    assert (LAYOUT.size, LAYOUT.nbytes) == (8, 4 * 8 + 4 * 6 + 8 + 4)
    assert LAYOUT.weight_ranges() == [slice(0, 6)]
    assert LAYOUT.buffers[0].entry_at(2).name == "running.mean"
    assert LAYOUT.buffers[0].entry_at(3).name == "running.variance"


def test_splitting_gives_views_of_every_array() -> None:
    numbers = state(0)
    arrays = LAYOUT.split(numbers)
    assert {name: array.shape for name, array in arrays.items()} == {
        entry.name: entry.shape for entry in [*PARAMETERS, *BUFFERS]
    }
    assert arrays["batches"].dtype == np.int64 and int(arrays["batches"]) == LARGE
    arrays["batches"] += 1
    arrays["running.variance"][2] = 7.0
    assert int(numbers.buffers[1][0]) == LARGE + 1
    assert numbers.buffers[0][5] == 7.0
    with pytest.raises(MismatchError, match="expected buffers"):
        LAYOUT.split(ModelState(numbers.vector, numbers.buffers[:2]))
    with pytest.raises(MismatchError, match="expected buffers"):
        LAYOUT.buffer_views([vector.astype(np.float64) for vector in numbers.buffers])


def test_optimizer_state_lies_behind_the_parameters() -> None:
    extended = LAYOUT.extended([optimizer_state("velocity", (8,))])
    assert (extended.size, extended.buffers) == (16, LAYOUT.buffers)
    assert extended.entries[-1].range == slice(8, 16)


def test_every_buffer_shows_in_the_fingerprint() -> None:
    changed = [
        PARAMETERS,
        [*PARAMETERS, *BUFFERS[:-1]],
        [*PARAMETERS, *BUFFERS[:-1], buffer("running.variance", (3,), "float32", "max")],
        [*PARAMETERS, *BUFFERS[:-1], buffer("running.variance", (3,), "float64", "mean")],
        [*PARAMETERS, *BUFFERS[:-1], buffer("running.variance", (4,), "float32", "mean")],
        [*PARAMETERS, *BUFFERS],
    ]
    prints = [Layout.build(entries, "float32").fingerprint for entries in changed]
    prints.append(Layout.build([*PARAMETERS, *BUFFERS], "float32", {"tied": "weight"}).fingerprint)
    assert len(set(prints)) == len(prints)
    assert prints[5] == LAYOUT.fingerprint  # where a buffer is declared among parameters changes nothing


def test_a_tied_parameter_is_one_array_with_two_names() -> None:
    layout = Layout.build(PARAMETERS, "float32", {"decoder.weight": "weight"})
    views = layout.views(np.arange(8, dtype=np.float32))
    assert np.shares_memory(views["decoder.weight"], views["weight"])
    assert layout.size == 8 and list(layout.split(layout.zeros())) == ["weight", "bias"]
    assert list(layout.extended([optimizer_state("v", (1,))]).aliases) == [("decoder.weight", "weight")]
    for aliases in ({"bias": "weight"}, {"other": "nothing"}):
        with pytest.raises(ValueError, match=r"same name|do not exist"):
            Layout.build(PARAMETERS, "float32", aliases)


def test_impossible_buffers_are_refused() -> None:
    for dtype, rule in (("int64", "mean"), ("bool", "mean"), ("complex64", "max"), ("bfloat16", "mean")):
        with pytest.raises(ValueError, match="buffer a"):
            buffer("a", (1,), dtype, rule)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="same name"):
        Layout.build([*PARAMETERS, buffer("bias", (1,), "int8", "max")], "float32")


def combined(number: int, values: dict[int, Any], order: list[int], examples: dict[int, int] | None = None) -> Any:
    """The average of a segment of the workers' values, arriving in ``order``."""
    average = Average(list(values), LAYOUT.fingerprint, segment=LAYOUT.segments[number])
    for worker in order:
        average.add(Partial(worker, (examples or {}).get(worker, worker + 1), values[worker], LAYOUT.fingerprint))
    return average.finish()


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_each_rule_combines_in_any_order(order: list[int]) -> None:
    states = {worker: state(worker, LARGE + worker % 2) for worker in range(3)}
    mean = combined(1, {worker: each.buffers[0] for worker, each in states.items()}, order)
    stacked = np.stack([each.buffers[0].astype(np.float64) for each in states.values()])
    assert mean.tobytes() == np.average(stacked, axis=0, weights=[1, 2, 3]).astype(np.float32).tobytes()
    counter = combined(2, {worker: each.buffers[1] for worker, each in states.items()}, order)
    assert counter.dtype == np.int64 and counter.tolist() == [LARGE + 1]
    mask = combined(3, {worker: each.buffers[2] for worker, each in states.items()}, order)
    assert mask.tolist() == [False, True, False, False]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_single_partial_comes_back_unchanged(number: int) -> None:
    values = state(3).buffers[number - 1]
    assert combined(number, {4: values}, [4], {4: 3}).tobytes() == values.tobytes()


def test_merging_is_associative_for_every_rule() -> None:
    for number in (1, 2, 3):
        values = {worker: state(worker, LARGE + worker).buffers[number - 1] for worker in range(4)}
        expected = combined(number, values, [0, 1, 2, 3]).tobytes()
        for cut, turned in itertools.product(range(1, 4), (False, True)):
            parts = []
            for workers in (range(cut), range(cut, 4)):
                average = Average(range(4), LAYOUT.fingerprint, segment=LAYOUT.segments[number])
                for worker in workers:
                    average.add(Partial(worker, worker + 1, values[worker], LAYOUT.fingerprint))
                parts.append(average)
            one, two = parts[::-1] if turned else parts
            assert one.missing != []
            assert one.merge(two).finish().tobytes() == expected
    with pytest.raises(MismatchError, match="different plans"):
        Average([0], "a", segment=LAYOUT.segments[1]).merge(Average([0], "a", segment=LAYOUT.segments[2]))


def test_values_that_are_to_be_kept_must_be_the_same() -> None:
    one, two = state(0).buffers[2], state(0).buffers[2].copy()
    two[3] = True
    with pytest.raises(MismatchError, match=r"buffer mask must be the same at all workers.* worker 0 and 5") as caught:
        combined(3, {0: one, 5: two}, [5, 0])
    assert caught.value.where["worker"] == 5
    floats = Layout.build([*PARAMETERS, buffer("fixed", (2,), "float32", "keep")], "float32").segments[1]
    average = Average([0, 1], "f", segment=floats)
    for worker in (0, 1):
        average.add(Partial(worker, 1, np.array([-np.inf, np.nan], np.float32), "f"))
    assert np.isnan(average.finish()[1])


def test_what_is_wrong_is_refused_for_buffers_too() -> None:
    segment = LAYOUT.segments[1]
    for text, error, values, examples in (
        ("is nan", DivergedError, np.full(6, np.nan, np.float32), 1),
        ("examples", MismatchError, np.zeros(6, np.float32), 0),
        ("expected a vector of float32", MismatchError, np.zeros(6), 1),
    ):
        with pytest.raises(error, match=text):
            Average([0], "f", segment=segment).add(Partial(0, examples, values, "f"))


def test_a_range_of_a_segment_names_its_own_entry() -> None:
    big = Layout.build(
        [*PARAMETERS, buffer("a", (BLOCK,), "int32", "keep"), buffer("b", (5,), "int32", "keep")], "float32"
    )
    average = Average([0, 1], "f", segment=big.segments[1], offset=BLOCK)
    average.add(Partial(0, 1, np.zeros(5, np.int32), "f"))
    with pytest.raises(MismatchError, match="buffer b"):
        average.add(Partial(1, 1, np.arange(5, dtype=np.int32), "f"))


def test_slices_hold_whole_blocks_of_one_segment() -> None:
    big = Layout.build(
        [parameter("w", (BLOCK + 1,), decays=True), buffer("c", (BLOCK + 2,), "int8", "max"), BUFFERS[1]], "float32"
    )
    assert big.slices(1) == [
        LayoutSlice(0, slice(0, BLOCK)),
        LayoutSlice(0, slice(BLOCK, BLOCK + 1)),
        LayoutSlice(1, slice(0, BLOCK)),
        LayoutSlice(1, slice(BLOCK, BLOCK + 2)),
        LayoutSlice(2, slice(0, 1)),
    ]


@pytest.mark.parametrize("dtype", BUFFER_DTYPES)
def test_lines_carry_every_dtype_exactly(dtype: str) -> None:
    values = np.array([0, 1, 100], dtype)
    if dtype == "int64":
        values[1:] = [-LARGE, np.iinfo(np.int64).max]
    key = SliceKey(0, 1).encode()
    back = decode_partial(key, encode_partial(key, Partial(2, 9, values, LAYOUT.fingerprint)))
    assert (back.worker, back.examples, back.fingerprint) == (2, 9, LAYOUT.fingerprint)
    assert back.weights.dtype == dtype and back.weights.tobytes() == values.tobytes()


def test_a_checkpoint_keeps_buffers_by_name_and_dtype(tmp_path: Path) -> None:
    store = RoundStore(LocalStorage(tmp_path), [LAYOUT])
    numbers = state(1)
    trial = TrialState(numbers.vector, np.empty(0, np.float32), np.empty(0), buffers=numbers.buffers)
    store.commit(Checkpoint(0, [trial], round_metrics(0), round_facts(0), best={0: state(2)}))
    stored = unpack((tmp_path / "rounds/000000/model.safetensors").read_bytes(), "f")
    assert {name: array.dtype.name for name, array in stored.items()} == {
        "0.weight": "float32",
        "0.bias": "float32",
        "0.running.mean": "float32",
        "0.running.variance": "float32",
        "0.batches": "int64",
        "0.mask": "bool",
    }
    loaded = RoundStore(LocalStorage(tmp_path), [LAYOUT]).load(0)
    for model, expected in ((loaded.trials[0].model, numbers), (loaded.best[0], state(2))):
        assert model_digest([model]) == model_digest([expected])
        assert int(LAYOUT.split(model)["batches"]) == LARGE
    assert model_digest([numbers]) != model_digest([state(1, LARGE + 1)])
    stored.pop("0.batches")
    with pytest.raises(MismatchError, match=r"array 0\.batches: expected int64 \(\), found absent"):
        read_model(0, stored, LAYOUT, "f")
    assert set(named_arrays(3, numbers, LAYOUT)) == {name.replace("0.", "3.", 1) for name in [*stored, "0.batches"]}
