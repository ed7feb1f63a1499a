"""A round is committed whole or does not exist: round trips, damage of every byte, two drivers, pruning."""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import LAYOUTS, assert_same, checkpoint, folder, state
from records import round_facts, round_metrics, trial_metrics
from safetensors.numpy import load_file

from nnlib.core.errors import MismatchError, NnjobsError, StorageError
from nnlib.core.layout import ModelState
from nnlib.run.checkpoint import Checkpoint
from nnlib.run.ledger import canonical
from nnlib.run.manifest import LEDGER, MANIFEST, METRICS, MODEL, STATE, TRIALS
from nnlib.run.model_file import model_digest, pack, parse_json, read_model, unpack
from nnlib.run.round_store import RoundStore
from nnlib.storage import LocalStorage


def bare(round_: int) -> Checkpoint:
    """Nothing but weights, so there is no state file."""
    trials = [state(layout, 2 * index) for index, layout in enumerate(LAYOUTS)]
    return Checkpoint(round_, trials, round_metrics(round_), round_facts(round_))


@pytest.fixture
def store(tmp_path: Path) -> RoundStore:
    return RoundStore(LocalStorage(tmp_path / "run"), LAYOUTS)


def committed(store: RoundStore, count: int) -> list[Checkpoint]:
    made: list[Checkpoint] = []
    for round_ in range(count):
        made.append(checkpoint(round_, seed=round_))
        store.commit(made[-1], made[-2] if round_ else None)
    return made


def test_what_was_committed_is_loaded(store: RoundStore) -> None:
    assert store.rounds() == []
    made = committed(store, 3)
    assert store.rounds() == [0, 1, 2]
    for round_ in range(3):
        assert_same(store.load(round_), made[round_])
        assert store.log.metrics(round_) == made[round_].metrics
        assert store.log.ledger(round_) == made[round_].line
        assert store.log.damaged(round_) == []
        assert sorted(path.name for path in folder(store, round_).iterdir()) == sorted(
            [LEDGER, MANIFEST, METRICS, MODEL, STATE, TRIALS]
        )


def test_without_state_there_is_no_state_file(store: RoundStore) -> None:
    store.commit(bare(0), None)
    assert not (folder(store, 0) / STATE).exists()
    loaded = store.load(0)
    assert all(trial.optimizer.size == trial.outer.size == 0 for trial in loaded.trials)


def test_other_programs_read_the_model_by_its_names(store: RoundStore) -> None:
    (made,) = committed(store, 1)
    arrays = load_file(folder(store, 0) / MODEL)
    assert sorted(arrays) == ["0.layer0.bias", "0.layer0.weight", "1.layer0.bias", "1.layer0.weight", "1.out.weight"]
    np.testing.assert_array_equal(arrays["0.layer0.weight"], made.trials[0].weights[:6].reshape(3, 2))
    np.testing.assert_array_equal(arrays["1.out.weight"], made.trials[1].weights[15:].reshape(5, 1))
    assert arrays["0.layer0.bias"].dtype == np.float32 and arrays["1.layer0.bias"].dtype == np.float64


def test_equal_rounds_are_equal_bytes(store: RoundStore, tmp_path: Path) -> None:
    other = RoundStore(LocalStorage(tmp_path / "elsewhere"), LAYOUTS)
    committed(store, 3)
    committed(other, 3)
    for round_ in range(3):
        files = sorted(path.name for path in folder(store, round_).iterdir())
        assert [(folder(store, round_) / name).read_bytes() for name in files] == [
            (folder(other, round_) / name).read_bytes() for name in files
        ]


def test_a_directory_without_manifest_is_no_round(store: RoundStore) -> None:
    made = committed(store, 2)
    (folder(store, 1) / MANIFEST).unlink()
    (folder(store, 1).parent / "notes").mkdir()
    store = RoundStore(store.storage, LAYOUTS)
    assert store.rounds() == [0]
    with pytest.raises(StorageError, match="no such file"):
        store.load(1)
    made[1].metrics = replace(made[1].metrics, epoch=7)  # what a killed driver left is simply written again
    store.commit(made[1], made[0])
    assert_same(store.load(1), made[1])


def test_a_second_commit_is_refused_and_harms_nothing(store: RoundStore) -> None:
    made = committed(store, 2)
    before = {path.name: path.read_bytes() for path in folder(store, 1).iterdir()}
    with pytest.raises(StorageError, match="round 1 was committed by another driver"):
        store.commit(checkpoint(1, seed=7), made[0])
    assert {path.name: path.read_bytes() for path in folder(store, 1).iterdir()} == before
    assert_same(store.load(1), made[1])


def test_of_many_drivers_one_commits(store: RoundStore) -> None:
    """Drivers of one run write equal bytes, so whoever wins, the round is whole."""
    gate = threading.Barrier(6)

    def commit(_: int) -> bool:
        gate.wait()
        try:
            store.commit(checkpoint(0), None)
        except StorageError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(commit, range(6))).count(True) == 1
    expected = checkpoint(0)
    expected.line = store.log.ledger(0)
    assert_same(store.load(0), expected)


@pytest.mark.parametrize("name", [MODEL, STATE, TRIALS, METRICS, LEDGER])
def test_damage_of_any_file_is_found_and_named(store: RoundStore, name: str) -> None:
    committed(store, 1)
    path = folder(store, 0) / name
    data = path.read_bytes()
    for damaged in (data[:-1], data + b"\0", b"", bytes([data[0] ^ 1]) + data[1:], data[:-1] + bytes([data[-1] ^ 128])):
        path.write_bytes(damaged)
        with pytest.raises(MismatchError, match="altered or damaged") as caught:
            store.load(0)
        assert caught.value.where["file"] == str(path)
        assert store.log.damaged(0) == [f"rounds/000000/{name} does not match {MANIFEST}"]
    path.unlink()
    with pytest.raises(MismatchError, match="is missing") as missing:
        store.load(0)
    assert missing.value.where["file"] == str(path)
    if name not in (MODEL, STATE):
        assert store.log.damaged(0) == [f"rounds/000000/{name} is missing"]
    path.write_bytes(data)
    store.load(0)


def test_every_flipped_bit_of_a_manifest_is_found(store: RoundStore) -> None:
    committed(store, 1)
    path = folder(store, 0) / MANIFEST
    data = path.read_bytes()
    for place in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[place] ^= 1 << bit
            path.write_bytes(bytes(damaged))
            with pytest.raises(NnjobsError):
                store.load(0)
    for text in (b"", b"{}", b"[]", b"null", b'{"round":0,"files":[]}', data[:-2], b"\xff"):
        path.write_bytes(text)
        with pytest.raises(MismatchError) as caught:
            store.load(0)
        assert caught.value.where["file"] == str(path)


def test_a_round_of_another_number_or_run_is_refused(store: RoundStore) -> None:
    committed(store, 2)
    shutil.copytree(folder(store, 1), folder(store, 5))
    with pytest.raises(MismatchError, match="round 5"):
        store.load(5)
    for layouts, text in (
        (LAYOUTS[:1], "has 2 trials, the run has 1"),
        (LAYOUTS[::-1], "expected"),
        ([*LAYOUTS, LAYOUTS[0]], "has 2 trials, the run has 3"),
    ):
        with pytest.raises(MismatchError, match=text):
            RoundStore(store.storage, layouts).load(0)


def test_pruning_keeps_the_first_the_newest_and_the_needed(store: RoundStore) -> None:
    made = committed(store, 6)
    store.prune("all", set())
    assert [round_ for round_ in range(6) if store.has_model(round_)] == list(range(6))
    store.prune(2, {2, 5})
    assert [round_ for round_ in range(6) if store.has_model(round_)] == [0, 2, 4, 5]
    assert not (folder(store, 1) / STATE).exists()
    assert store.rounds() == list(range(6))
    for round_ in range(6):
        assert store.log.metrics(round_) == made[round_].metrics
        assert store.log.damaged(round_) == []
    assert_same(store.load(2), made[2])
    store.prune(1, {4})  # round 2 is needed no longer; from round 0 any other can be recomputed
    assert [round_ for round_ in range(6) if store.has_model(round_)] == [0, 4, 5]
    store.prune(100, set())
    assert_same(store.load(4), made[4])


def test_pruning_after_every_round_equals_pruning_at_the_end(store: RoundStore, tmp_path: Path) -> None:
    """A driver prunes as it goes, and after a resume with a new store; what is needed may change."""
    needed = [set(), {1}, {1}, {1}, {4}, {4}, {4}]
    other = RoundStore(LocalStorage(tmp_path / "at the end"), LAYOUTS)
    committed(other, 7)
    other.prune(2, {4})
    before = None
    for round_, best in enumerate(needed):
        if round_ == 3:
            store = RoundStore(store.storage, LAYOUTS)
        current = checkpoint(round_, seed=round_)
        store.commit(current, before)
        before = current
        store.prune(2, best)
        kept = {0, round_ - 1, round_, *best}
        assert {number for number in range(7) if store.has_model(number)} == {number for number in kept if number >= 0}
    assert [store.has_model(round_) for round_ in range(7)] == [other.has_model(round_) for round_ in range(7)]


def test_model_arrays_that_do_not_fit_are_refused() -> None:
    layout = LAYOUTS[0]
    good: dict[str, Any] = {"0.layer0.weight": np.ones((3, 2), np.float32), "0.layer0.bias": np.zeros(2, np.float32)}
    np.testing.assert_array_equal(read_model(0, unpack(pack(good), "f"), layout, "f").vector, [1, 1, 1, 1, 1, 1, 0, 0])
    cases: list[dict[str, Any]] = [
        {"0.layer0.weight": good["0.layer0.weight"]},
        {**good, "0.layer0.bias": np.zeros(3, np.float32)},
        {**good, "0.layer0.bias": np.zeros(2)},
    ]
    for bad in cases:
        with pytest.raises(MismatchError, match=r"array 0\.layer0\.bias") as caught:
            read_model(0, bad, layout, "the file")
        assert caught.value.where["file"] == "the file"
    with pytest.raises(MismatchError, match="absent"):
        read_model(1, good, layout, "f")


def test_any_bytes_are_a_file_or_a_mismatch() -> None:
    rng = np.random.default_rng(0)
    header = canonical({"a": {"dtype": "F33", "shape": [1], "data_offsets": [0, 4]}})
    huge = canonical({"a": {"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 4]}})
    samples = [rng.bytes(size) for size in (0, 1, 7, 8, 9, 100)]
    samples += [len(text).to_bytes(8, "little") + text + b"\0" * 4 for text in (header, huge, b"{}", b"[]", b"\xff")]
    samples += [(2**63).to_bytes(8, "little") + b"{}", pack({"a": np.ones(3)})[:-1]]
    for data in samples:
        for read in (unpack, parse_json):
            try:
                read(data, "the file")
            except MismatchError as error:
                assert error.where["file"] == "the file"


def test_the_models_digest_is_over_plain_bytes() -> None:
    """Equal numbers in any memory layout are equal; order and dtype are not."""
    one: Any = np.arange(5, dtype=np.float32)
    two: Any = np.ones(3)

    def digest_of(*vectors: Any) -> str:
        return model_digest(ModelState(vector) for vector in vectors)

    assert digest_of(one, two) == digest_of(np.arange(10, dtype=np.float32)[:5], np.ones(6)[::2])
    assert digest_of(one.astype(">f4")) == digest_of(one)
    assert len({digest_of(*vectors) for vectors in ([one, two], [two, one], [one], [one.astype(np.float64)])}) == 4
    counted = model_digest([ModelState(one, (np.arange(3),))])
    assert counted not in (digest_of(one), model_digest([ModelState(one, (np.arange(1, 4),))]))


def test_metrics_are_canonical_json(store: RoundStore) -> None:
    committed(store, 1)
    text = (folder(store, 0) / METRICS).read_bytes()
    assert text == canonical(json.loads(text))
    unfit = checkpoint(1)
    unfit.metrics = round_metrics(1, trial_metrics(0.1, loss=float("nan")))
    with pytest.raises(ValueError, match="Out of range float"):
        store.commit(unfit, store.load(0))
    assert store.rounds() == [0] and not folder(store, 1).exists()
