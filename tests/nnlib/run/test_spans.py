"""One commit for several rounds: their lines are those of a commit a round; what is missing or damaged shows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from checkpoints import LAYOUTS, assert_same, checkpoint, folder

from nnlib.core.errors import MismatchError, StorageError
from nnlib.run.checkpoint import Checkpoint
from nnlib.run.ledger import digest
from nnlib.run.manifest import BEST, LEDGER, MANIFEST, METRICS, MODEL, STATE, TRIALS
from nnlib.run.round_store import RoundStore
from nnlib.storage import LocalStorage


def written(where: Path, commits: list[int]) -> tuple[RoundStore, list[Checkpoint]]:
    """A store with rounds 0 to the last of ``commits``, of which only those are commits."""
    store = RoundStore(LocalStorage(where), LAYOUTS)
    made: list[Checkpoint] = []
    for round_ in range(commits[-1] + 1):
        made.append(checkpoint(round_, seed=round_))
        if round_ in commits:
            store.commit(made[-1], made[-2] if round_ else None)
        else:
            store.defer(made[-1], made[-2])
    return store, made


def test_lines_do_not_depend_on_the_spans(tmp_path: Path) -> None:
    single, _ = written(tmp_path / "single", list(range(8)))
    for number, commits in enumerate([[0, 7], [0, 1, 4, 7], [0, 3, 6, 7]]):
        spanning, made = written(tmp_path / str(number), commits)
        for store in (spanning, RoundStore(spanning.storage, LAYOUTS)):  # the writer's view, and a reader's
            assert store.rounds() == list(range(8))
            assert [span[-1] for span in store.log.spans()] == commits
            for round_ in (5, 0, 1, 2, 3, 4, 6, 7):
                assert store.log.ledger(round_) == single.log.ledger(round_) == made[round_].line
                assert store.log.metrics(round_) == single.log.metrics(round_)
                assert store.log.commit_of(round_) == min(commit for commit in commits if commit >= round_)
                assert store.has_model(round_) == (round_ in commits)
                facts = json.loads(store.log.ledger(round_))["files"]
                found = store.log.hashes(round_)
                assert found == {name: facts[name] for name in found}
                assert set(found) == ({METRICS, MODEL, STATE, TRIALS} if round_ in commits else {METRICS})
            for commit in commits:
                assert store.log.damaged(commit) == []
                assert_same(store.load(commit), made[commit])


def test_a_span_of_one_is_a_commit_as_ever(tmp_path: Path) -> None:
    store, _ = written(tmp_path, [0, 1, 4])
    assert "first" not in json.loads((folder(store, 1) / MANIFEST).read_bytes())
    assert (store.log.manifest(1).first, store.log.manifest(4).first) == (1, 2)
    assert json.loads((folder(store, 4) / MANIFEST).read_bytes())["first"] == 2
    assert store.log.manifest(4).files[LEDGER].sha256 == digest(b"".join(map(store.log.ledger, (2, 3, 4))))


def test_what_was_deferred_and_not_committed_is_done_again(tmp_path: Path) -> None:
    store, made = written(tmp_path, [0, 1])
    for round_ in (2, 3):
        made.append(checkpoint(round_, seed=round_))
        store.defer(made[-1], made[-2])
    assert store.rounds() == [0, 1]
    store.forget()
    store.commit(made[2], made[1])
    assert store.rounds() == [0, 1, 2] and store.log.manifest(2).first == 2


def test_best_models_within_spans_are_kept_by_the_newest_commit(tmp_path: Path) -> None:
    store, made = written(tmp_path, [0, 1])
    best = checkpoint(2, seed=2)
    store.defer(best, made[1])
    last = checkpoint(3, seed=3)
    last.trials[1].best_round, last.best = 2, {1: best.trials[1].model}
    store.commit(last, best)
    reader = RoundStore(store.storage, LAYOUTS)
    np.testing.assert_array_equal(reader.model(1, 2).vector, best.trials[1].weights)
    np.testing.assert_array_equal(reader.model(1, 1).vector, made[1].trials[1].weights)
    np.testing.assert_array_equal(reader.load(3).best[1].vector, best.trials[1].weights)
    assert reader.load(3).best.keys() == {1}
    with pytest.raises(MismatchError, match="no model of round 2 is kept"):
        reader.model(0, 2)
    assert BEST not in json.loads(reader.log.ledger(3))["files"]
    reader.prune(1, set())
    assert (folder(store, 3) / BEST).exists()
    later = checkpoint(4, seed=4)
    reader.commit(later, last)
    reader.prune(1, set())
    assert not (folder(store, 3) / BEST).exists() and reader.log.damaged(3) == []


def test_damage_and_gaps_of_spans_are_found(tmp_path: Path) -> None:
    store, _ = written(tmp_path, [0, 3, 6])
    for name in (METRICS, LEDGER):
        path = folder(store, 6) / name
        data = path.read_bytes()
        for damaged in (data[:-1], data.split(b"\n", 1)[1], data + b"{}\n", data.replace(b"round", b"ronud", 1)):
            path.write_bytes(damaged)
            assert RoundStore(store.storage, LAYOUTS).log.damaged(6) == [
                f"rounds/000006/{name} does not match {MANIFEST}"
            ]
        path.write_bytes(data.split(b"\n", 1)[1])
        with pytest.raises(MismatchError):
            RoundStore(store.storage, LAYOUTS).log._line(4, name)
        path.write_bytes(data)
    with pytest.raises(StorageError, match="round 6 was committed by another driver"):
        store.commit(checkpoint(6, seed=6), checkpoint(5))
    shutil.rmtree(folder(store, 3))
    assert RoundStore(store.storage, LAYOUTS).rounds() == [0, 4, 5, 6]
    manifest = json.loads((folder(store, 6) / MANIFEST).read_bytes())
    for first in (7, -1, "4", None, 4.0, True):
        (folder(store, 6) / MANIFEST).write_text(json.dumps({**manifest, "first": first}))
        with pytest.raises(MismatchError, match="does not name the rounds it has"):
            store.log.manifest(6)
        assert RoundStore(store.storage, LAYOUTS).rounds() == [0, 6]
