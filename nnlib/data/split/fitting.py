"""Fit split rules to a dataset: stream its labels twice to find the hashes at which the rows are cut into parts.

Counts for n rows: train = floor(train * n + 1/2); validation = floor(validation * n + 1/2), but no more than are left;
test likewise, or all that are left if no fraction is configured. Stratified, these totals are divided among the classes
so that each class gets its exact proportion rounded up or down. With groups, a cut moves to the nearest rank at which a
group ends (the lower of two as near). An official split (`split.column`) is taken as it is; if it names no validation
rows and `split.validation` is above 0, that fraction of its training rows becomes validation.
`split.train_range` leaves some of the training rows of each stratum unused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np

from nnlib.config.schema import Split
from nnlib.core.arrays import IntArray
from nnlib.core.errors import ConfigError
from nnlib.core.seeds import Purpose, UInt64, hash_key
from nnlib.data.split.apportionment import apportion
from nnlib.data.split.rank_selection import RankSelector
from nnlib.data.split.rule import (
    TEST,
    TRAIN,
    UNUSED,
    VALIDATION,
    LabelChunks,
    Labels,
    PartCodes,
    SplitRule,
    Stratum,
)


def fit_split_rules(
    label_chunks: LabelChunks,
    split: Split,
    trials: Sequence[tuple[int, int]],
    *,
    seed: int,
    classes: int | None,
    folds: int = 0,
) -> list[SplitRule]:
    """Return the rule of each trial (split seed, fold), in two passes over the labels.

    ``classes``: number of classes, None for a numeric target. With ``folds`` above 0 it is k-fold cross-validation: the
    test part is the fold-th of ``folds`` parts of the order, whose sizes differ by at most one (per class too if
    stratified). Then ``split.train`` does not count: all rows but those for test and validation are for training.

    Raises `ConfigError` for impossible combinations and `DataError` for bad values in a column.
    """
    if split.stratified and classes is None:
        raise ConfigError("split.stratified needs classes; this dataset has a numeric target", key="split.stratified")
    if folds and split.column is not None:
        raise ConfigError("folds and an official split exclude each other", key="split.column")
    if folds == 1 or any(not 0 <= fold < max(folds, 1) for _, fold in trials):
        raise ConfigError(f"impossible folds: {folds} folds, trials {list(trials)}")
    count = classes if split.stratified and classes is not None else 1
    drafts = [
        SplitRule(
            hash_key(seed, Purpose.SPLIT, split=split_seed),
            (Stratum((), (TRAIN,)),) * count,
            split.stratified,
            split.column,
            split.group,
        )
        for split_seed, _ in trials
    ]
    selectors = [RankSelector(count) for _ in drafts]
    official_rows = np.zeros(4, np.int64)
    for chunk in label_chunks():
        official = drafts[0].official(chunk.row, chunk.extra)
        official_rows += np.bincount(official, minlength=4)
        for draft, selector in zip(drafts, selectors, strict=True):
            selector.count(*_ranked_rows(draft, chunk, official))
    strata: list[list[list[tuple[int, int]]]] = []
    for (_, fold), selector in zip(trials, selectors, strict=True):
        if split.column is not None:
            validation = 0.0 if official_rows[VALIDATION] else split.validation
            strata.append([_train_and_validation(selector.totals[0], validation)])
        elif folds:
            strata.append(_fold_pieces(selector.totals, split, fold, folds))
        else:
            strata.append(_part_pieces(selector.totals, split))
        if split.train_range is not None:
            strata[-1] = [_within(pieces, *split.train_range) for pieces in strata[-1]]
        selector.seek([_ends(pieces) for pieces in strata[-1]])
    for chunk in label_chunks():
        official = drafts[0].official(chunk.row, chunk.extra)
        for draft, selector in zip(drafts, selectors, strict=True):
            selector.collect(*_ranked_rows(draft, chunk, official))
    return [
        replace(
            draft,
            strata=tuple(
                Stratum(tuple(cuts), tuple(code for code, _ in pieces))
                for pieces, cuts in zip(trial_strata, selector.cuts(), strict=True)
            ),
        )
        for draft, selector, trial_strata in zip(drafts, selectors, strata, strict=True)
    ]


def _ranked_rows(rule: SplitRule, chunk: Labels, official: PartCodes) -> tuple[IntArray, UInt64]:
    """Return strata and hashes of the rows that hashes divide: all, or with an official split its training rows."""
    stratum, hashes = rule.stratum(chunk.row, chunk.y), rule.hashes(chunk.row, chunk.extra)
    return (stratum, hashes) if rule.column is None else (stratum[official == TRAIN], hashes[official == TRAIN])


def _count_of(fraction: float, rows: int) -> int:
    """Return the number of rows that a fraction of ``rows`` is, rounded half up."""
    return min(rows, math.floor(fraction * rows + 0.5))


def _pieces(*pieces: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the pieces (code, rows) that are not empty; one piece for an empty stratum."""
    return [(code, rows) for code, rows in pieces if rows] or [(TRAIN, 0)]


def _within(pieces: Sequence[tuple[int, int]], start: float, stop: float) -> list[tuple[int, int]]:
    """Return the pieces of a stratum with the training rows outside of a range, as fractions of them, left unused."""
    rows = sum(count for code, count in pieces if code == TRAIN)
    first, last = _count_of(start, rows), _count_of(stop, rows)
    result: list[tuple[int, int]] = []
    passed = 0
    for code, count in pieces:
        if code != TRAIN:
            result.append((code, count))
            continue
        before = min(max(first - passed, 0), count)
        within = min(max(last - passed, 0), count) - before
        result += [(UNUSED, before), (TRAIN, within), (UNUSED, count - before - within)]
        passed += count
    return _pieces(*result)


def _ends(pieces: Sequence[tuple[int, int]]) -> list[int]:
    """Return the rank at which each piece but the last ends."""
    return list(accumulate(rows for _, rows in pieces))[:-1]


def _train_and_validation(rows: int, validation: float) -> list[tuple[int, int]]:
    """Return the pieces of an official split's training rows, of which a fraction is for validation."""
    carved = _count_of(validation, rows)
    return _pieces((TRAIN, rows - carved), (VALIDATION, carved))


def _part_pieces(strata_rows: Sequence[int], split: Split) -> list[list[tuple[int, int]]]:
    """Return the pieces of each stratum for a split by fractions."""
    rows = sum(strata_rows)
    train = _count_of(split.train, rows)
    validation = min(_count_of(split.validation, rows), rows - train)
    rest = rows - train - validation
    test = rest if split.test is None else min(_count_of(split.test, rows), rest)
    codes = (TRAIN, VALIDATION, TEST, UNUSED)
    by_stratum = apportion(strata_rows, (train, validation, test, rest - test))
    return [_pieces(*zip(codes, counts, strict=True)) for counts in by_stratum]


def _fold_pieces(strata_rows: Sequence[int], split: Split, fold: int, folds: int) -> list[list[tuple[int, int]]]:
    """Return the pieces of each stratum for one fold; the test rows are one run of each stratum's order.

    Rows are assigned to folds round robin, and each stratum goes on where the one before it stopped. So fold sizes
    differ by at most one, in each stratum and in total.
    """

    def rows_of_fold(rows: int, to: int) -> int:
        return (rows - to + folds - 1) // folds

    firsts: list[int] = []
    tests: list[int] = []
    offset = 0
    for rows in strata_rows:
        sizes = [rows_of_fold(offset + rows, to) - rows_of_fold(offset, to) for to in range(fold + 1)]
        firsts.append(sum(sizes[:fold]))
        tests.append(sizes[fold])
        offset += rows
    rests = [rows - test for rows, test in zip(strata_rows, tests, strict=True)]
    validation = min(_count_of(split.validation, offset), sum(rests))
    result: list[list[tuple[int, int]]] = []
    for first, test, (train, held) in zip(
        firsts, tests, apportion(rests, (sum(rests) - validation, validation)), strict=True
    ):
        early = min(first, train)
        result.append(
            _pieces(
                (TRAIN, early),
                (VALIDATION, first - early),
                (TEST, test),
                (TRAIN, train - early),
                (VALIDATION, held - (first - early)),
            )
        )
    return result
