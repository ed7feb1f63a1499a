"""Splits: exact counts, disjoint and complete, the same however the rows arrive, equal to a plain sort."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlib.config.schema import Split
from nnlib.core.errors import ConfigError, DataError
from nnlib.core.seeds import Purpose, hash_key, row_hash
from nnlib.data.split.counts import count_parts
from nnlib.data.split.fitting import fit_split_rules
from nnlib.data.split.rule import TEST, TRAIN, UNUSED, VALIDATION, LabelChunks, Labels, SplitRule

fixed = settings(derandomize=True, deadline=None, max_examples=60)


def chunks_of(row: Any, y: Any, extra: dict[str, Any] | None = None, step: int = 7, shards: int = 3) -> LabelChunks:
    """The rows in chunks of ``step``, assigned to the shards in turn."""
    row, y = np.asarray(row, np.int64), np.asarray(y)
    kept = {name: np.asarray(values) for name, values in (extra or {}).items()}

    def passes() -> Iterator[Labels]:
        for index, start in enumerate(range(0, len(row), step)):
            part = slice(start, start + step)
            yield Labels(index % shards, row[part], y[part], {name: values[part] for name, values in kept.items()})

    return passes


def rule_of(chunks: LabelChunks, split: Split, **keywords: Any) -> SplitRule:
    trial = (keywords.pop("split_seed", 0), keywords.pop("fold", 0))
    defaults: dict[str, Any] = {"seed": 1, "classes": None}
    (rule,) = fit_split_rules(chunks, split, [trial], **(defaults | keywords))
    return rule


def counts(parts: Any) -> list[int]:
    return [int(count) for count in np.bincount(parts, minlength=4)]


@st.composite
def rows(draw: st.DrawFn) -> tuple[Any, Any]:
    ids = draw(st.lists(st.integers(0, 2**62), min_size=1, max_size=120, unique=True))
    return np.array(ids, np.int64), np.array(draw(st.lists(st.integers(0, 4), min_size=len(ids), max_size=len(ids))))


@st.composite
def fractions(draw: st.DrawFn) -> dict[str, Any]:
    train, validation, test, unused = (draw(st.integers(1, 20)) for _ in range(4))
    whole = train + validation + test + unused
    if draw(st.booleans()):
        return {"train": train / whole, "validation": validation / whole}
    return {"train": train / whole, "validation": validation / whole, "test": test / whole}


@fixed
@given(rows(), fractions())
def test_counts_are_exact_and_equal_a_plain_sort(data: tuple[Any, Any], shares: dict[str, Any]) -> None:
    row, y = data
    n = len(row)
    parts = rule_of(chunks_of(row, y), Split(**shares)).parts(row, y, {})
    train = int(np.floor(shares["train"] * n + 0.5))
    validation = min(int(np.floor(shares["validation"] * n + 0.5)), n - train)
    rest = n - train - validation
    test = min(int(np.floor(shares["test"] * n + 0.5)), rest) if "test" in shares else rest
    expected = np.empty(n, np.uint8)
    order = np.argsort(row_hash(row, hash_key(1, Purpose.SPLIT, split=0)))
    sizes = [train, validation, test, rest - test]
    expected[order] = np.repeat([TRAIN, VALIDATION, TEST, UNUSED], sizes)
    np.testing.assert_array_equal(parts, expected)


@fixed
@given(rows(), fractions(), st.randoms(use_true_random=False), st.integers(1, 50))
def test_order_chunks_and_shards_do_not_matter(data: tuple[Any, Any], shares: Any, random: Any, step: int) -> None:
    row, y = data
    order = list(range(len(row)))
    random.shuffle(order)
    for stratified in (False, True):
        split = Split(**shares, stratified=stratified)
        one = rule_of(chunks_of(row, y), split, classes=5)
        other = rule_of(chunks_of(row[order], y[order], step=step, shards=1), split, classes=5)
        assert one == other
        np.testing.assert_array_equal(
            one.parts(row, y, {}),
            np.concatenate([one.parts(row[i : i + 1], y[i : i + 1], {}) for i in range(len(row))]),
        )


@fixed
@given(rows(), fractions())
def test_stratified_totals_are_exact_and_classes_proportional(data: tuple[Any, Any], shares: Any) -> None:
    row, y = data
    plain = counts(rule_of(chunks_of(row, y), Split(**shares)).parts(row, y, {}))
    rule = rule_of(chunks_of(row, y), Split(**shares, stratified=True), classes=5)
    parts = rule.parts(row, y, {})
    assert counts(parts) == plain
    for label in range(5):
        members = int((y == label).sum())
        for code, total in enumerate(plain):
            assert abs(int((parts[y == label] == code).sum()) - members * total / len(row)) < 1
    assert SplitRule.from_json(json.loads(json.dumps(rule.to_json()))) == rule


@fixed
@given(rows(), st.integers(2, 7), st.booleans(), st.sampled_from([0.0, 0.1, 0.3]))
def test_folds_partition_the_rows(data: tuple[Any, Any], folds: int, stratified: bool, validation: float) -> None:
    row, y = data
    split = Split(stratified=stratified, validation=validation)
    trials = [(4, fold) for fold in range(folds)]
    rules = fit_split_rules(chunks_of(row, y), split, trials, seed=1, classes=5, folds=folds)
    parts = np.array([rule.parts(row, y, {}) for rule in rules])
    tested = parts == TEST
    assert (tested.sum(axis=0) == 1).all()
    assert np.ptp(tested.sum(axis=1)) <= 1
    if stratified:
        for label in range(5):
            assert np.ptp(tested[:, y == label].sum(axis=1)) <= 1
    assert not (parts == UNUSED).any()
    held = min(int(np.floor(validation * len(row) + 0.5)), int(len(row) - tested[0].sum()))
    assert (parts[0] == VALIDATION).sum() == held
    assert rules[1] == rule_of(chunks_of(row, y), split, split_seed=4, classes=5, fold=1, folds=folds)


@fixed
@given(rows(), fractions(), st.booleans())
def test_groups_stay_together(data: tuple[Any, Any], shares: Any, texts: bool) -> None:
    row, y = data
    group = np.array([f"g{value % 9}" if texts else value % 9 for value in row.tolist()], object if texts else np.int64)
    chunks, extra = chunks_of(row, y, {"who": group}), {"who": group}
    rule = rule_of(chunks, Split(**shares, group="who"))
    parts = rule.parts(row, y, extra)
    order = np.argsort(rule.hashes(row, extra), kind="stable")
    sizes = []
    for value in dict.fromkeys(group[order].tolist()):
        assert len(set(parts[group == value].tolist())) == 1
        sizes.append(int((group == value).sum()))
    ends = np.concatenate([[0], np.cumsum(sizes)])
    target = int(np.floor(shares["train"] * len(row) + 0.5))
    assert (parts == TRAIN).sum() == ends[np.argmin(np.abs(ends - target))]


def test_other_seeds_give_other_splits() -> None:
    row, y = np.arange(500), np.zeros(500, np.int64)
    split = Split()
    parts = [
        rule_of(chunks_of(row, y), split, seed=seed, split_seed=split_seed).parts(row, y, {})
        for seed, split_seed in ((0, 0), (0, 1), (1, 0))
    ]
    for one in range(3):
        assert counts(parts[one]) == [0, 350, 0, 150]
        for other in range(one):
            # Independent 70/30 splits agree on 0.7**2 + 0.3**2 = 58 % of the rows; 500 rows give or take 10 points.
            assert 0.48 < (parts[one] == parts[other]).mean() < 0.68


def test_an_official_split_is_taken_as_it_is() -> None:
    names = np.array(["Train", "test", " VAL ", "training", "TEST", "dev", "valid", "validation"], object)
    row, y = np.arange(8), np.zeros(8)
    rule = rule_of(chunks_of(row, y, {"part": names}), Split(column="part", validation=0.2))
    expected = [TRAIN, TEST, VALIDATION, TRAIN, TEST, VALIDATION, VALIDATION, VALIDATION]
    assert rule.parts(row, y, {"part": names}).tolist() == expected


def test_validation_is_carved_out_of_official_training_rows() -> None:
    names = np.array(["train", "train", "test"] * 20, object)
    row, y = np.arange(60), np.zeros(60)
    split = Split(column="part", validation=0.1)
    rules = [rule_of(chunks_of(row, y, {"part": names}), split, split_seed=seed) for seed in (0, 1)]
    parts = [rule.parts(row, y, {"part": names}) for rule in rules]
    for one in parts:
        assert counts(one) == [0, 36, 4, 20]
        assert (one[names == "test"] == TEST).all()
    assert (parts[0] != parts[1]).any()


def test_bad_values_name_the_row() -> None:
    row, y = np.array([10, 11, 12]), np.zeros(3)
    with pytest.raises(DataError, match=r"row 12.*'holdout'"):
        rule_of(chunks_of(row, y, {"part": np.array(["train", "test", "holdout"], object)}), Split(column="part"))
    with pytest.raises(DataError, match=r"row 11.*None"):
        rule_of(chunks_of(row, y, {"who": np.array(["a", None, "b"], object)}), Split(group="who"))
    with pytest.raises(DataError, match=r"row 10.*0\.5"):
        rule_of(chunks_of(row, y, {"who": np.array([0.5, 1.0, 2.0])}), Split(group="who"))
    with pytest.raises(DataError, match=r"row 12.*no such class: 7"):
        rule_of(chunks_of(row, np.array([0, 1, 7])), Split(stratified=True), classes=2)


def test_impossible_combinations_are_refused() -> None:
    chunks = chunks_of(np.arange(3), np.zeros(3))
    with pytest.raises(ConfigError, match="numeric target"):
        rule_of(chunks, Split(stratified=True))
    with pytest.raises(ConfigError, match="keeps no column 'who'"):
        rule_of(chunks, Split(group="who"))
    with pytest.raises(ConfigError, match="exclude each other"):
        rule_of(chunks, Split(column="part"), folds=3)
    with pytest.raises(ConfigError, match="impossible folds"):
        rule_of(chunks, Split(), fold=3, folds=3)


def test_count_parts_counts_every_trial_in_one_pass() -> None:
    row, y = np.arange(300), np.arange(300) % 4
    chunks = chunks_of(row, y, step=11)
    passes = 0

    def counted() -> Iterator[Labels]:
        nonlocal passes
        passes += 1
        return chunks()

    split = Split(train=0.5, validation=0.2)
    rules = fit_split_rules(counted, split, [(0, 0), (1, 0)], seed=3, classes=4)
    assert passes == 2
    counted_parts = count_parts(counted, rules, shards=3, classes=4)
    assert passes == 3
    shard = np.arange(300) // 11 % 3
    for rule, count in zip(rules, counted_parts, strict=True):
        parts = rule.parts(row, y, {})
        for code, field in ((TRAIN, count.train), (VALIDATION, count.validation), (TEST, count.test)):
            np.testing.assert_array_equal(field, np.bincount(shard[parts == code], minlength=3))
        assert count.train_classes is not None
        for one in range(3):
            members = y[(parts == TRAIN) & (shard == one)]
            np.testing.assert_array_equal(count.train_classes[one], np.bincount(members, minlength=4))
    assert count_parts(chunks, rules, shards=3, classes=None)[0].train_classes is None


@fixed
@given(rows(), st.booleans(), st.sampled_from([0, 2]), st.floats(0.1, 0.9))
def test_ranges_of_the_training_rows_are_disjoint_and_whole(data: Any, stratified: bool, folds: int, at: float) -> None:
    row, y = data
    split = {"train": 0.6, "validation": 0.1, "stratified": stratified, "folds": folds}
    whole, first, rest = (
        rule_of(chunks_of(row, y), Split.model_validate({**split, "train_range": part}), classes=5, folds=folds)
        for part in (None, [0.0, at], [at, 1.0])
    )
    parts, early, late = (rule.parts(row, y, {}) for rule in (whole, first, rest))
    assert np.array_equal(parts == TRAIN, (early == TRAIN) ^ (late == TRAIN))
    for part in (VALIDATION, TEST):
        assert np.array_equal(parts == part, early == part)
        assert np.array_equal(parts == part, late == part)
    if not stratified:
        assert (early == TRAIN).sum() == int(np.floor(at * (parts == TRAIN).sum() + 0.5))


def test_a_range_without_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="holds no rows"):
        Split(train_range=[0.5, 0.5])
