"""Which rows are for training, validation and test: a rule that decides each row alone, with exact counts.

Every row draws a keyed hash of its id (`nnlib.core.seeds.row_hash`, a bijection: no two rows tie). In the order of
these hashes the first rows are for training, the next for validation, the next for testing. The driver finds the cuts
between them by streaming the labels twice; the rule then travels to the mappers.

Counts for n rows: train = floor(train * n + 1/2), validation = floor(validation * n + 1/2) but no more than are left,
test likewise, or all that is left if no fraction is given. Stratified, these totals are divided among the classes so
that each class gets its exact share rounded up or down. With groups, a cut moves to the nearest rank where a group
ends (the lower of two as near). An official split (`split.column`) is taken as it is; if it names no validation rows
and `split.validation` is above 0, that fraction of its training rows becomes validation.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nnlib.config.schema import Split
from nnlib.core.arrays import BoolArray, IntArray
from nnlib.core.errors import ConfigError, DataError
from nnlib.core.seeds import Purpose, UInt64, hash_key, row_hash
from nnlib.data.split.apportionment import apportion
from nnlib.data.split.rank_selection import EVERYTHING, RankSelector

Codes = npt.NDArray[np.uint8]
Extra = Mapping[str, npt.NDArray[Any]]

UNUSED, TRAIN, VALIDATION, TEST = range(4)
"""The parts, as they appear in `SplitRule.parts`."""

OFFICIAL = {
    "train": TRAIN,
    "training": TRAIN,
    "validation": VALIDATION,
    "valid": VALIDATION,
    "val": VALIDATION,
    "dev": VALIDATION,
    "test": TEST,
}
"""Values of an official split's column, in any case."""


class Labels(NamedTuple):
    """Rows without their features: ids (n,), targets (n,), kept columns (n,) each."""

    shard: int
    row: IntArray
    y: npt.NDArray[Any]
    extra: Extra


LabelChunks = Callable[[], Iterator[Labels]]
"""Starts a new pass over all labels of a dataset, in any order and any chunks."""


@dataclass(frozen=True)
class Stratum:
    """The parts of one class (or of all rows) along the order of hashes: ``codes[i]`` ends where ``cuts[i]`` lies."""

    cuts: tuple[int, ...]
    codes: tuple[int, ...]


@dataclass(frozen=True)
class SplitRule:
    """Decides for any rows, by themselves, which part they belong to. Travels as JSON."""

    key: tuple[int, int]
    strata: tuple[Stratum, ...]
    stratified: bool = False
    column: str | None = None
    group: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The kept columns that the rule reads."""
        return tuple(name for name in (self.column, self.group) if name is not None)

    def parts(self, row: IntArray, y: npt.NDArray[Any], extra: Extra) -> Codes:
        """The part of each row, shape (n,): `UNUSED`, `TRAIN`, `VALIDATION` or `TEST`. Raises `DataError`."""
        cuts, live, codes = self._tables
        hashes = self.hashes(row, extra)
        stratum: Any = self.stratum(row, y) if self.stratified else 0
        passed = (hashes[:, None] >= cuts[stratum]) & live[stratum]
        dealt: Codes = codes[stratum, passed.sum(axis=1)]
        if self.column is None:
            return dealt
        official = self.official(row, extra)
        return np.where(official == TRAIN, dealt, official)

    def hashes(self, row: IntArray, extra: Extra) -> UInt64:
        """What decides each row's place in the order, shape (n,): the same for all rows of a group."""
        if self.group is None:
            return row_hash(row, self.key)
        return row_hash(_group_ids(_column(extra, self.group, "split.group"), row, self.group), self.key)

    def stratum(self, row: IntArray, y: npt.NDArray[Any]) -> IntArray:
        """The stratum of each row, shape (n,)."""
        if not self.stratified:
            return np.zeros(len(row), np.int64)
        stratum = y.astype(np.int64)
        wrong = np.flatnonzero((stratum < 0) | (stratum >= len(self.strata)))
        if len(wrong):
            raise DataError(f"no such class: {int(stratum[wrong[0]])}", row=int(row[wrong[0]]))
        return stratum

    def official(self, row: IntArray, extra: Extra) -> Codes:
        """The part that the official column names for each row, shape (n,)."""
        if self.column is None:
            return np.full(len(row), TRAIN, np.uint8)
        values = _column(extra, self.column, "split.column").tolist()
        known = {value: OFFICIAL.get(str(value).strip().lower(), -1) for value in set(values)}
        codes = [known[value] for value in values]
        if -1 in codes:
            place = codes.index(-1)
            raise DataError(
                f"the official split's column {self.column} says {values[place]!r}",
                hint="its values must be train, validation or test",
                row=int(row[place]),
            )
        return np.array(codes, np.uint8)

    @cached_property
    def _tables(self) -> tuple[UInt64, BoolArray, Codes]:
        """Cuts, whether each exists, and codes as rectangular arrays: (strata, J), (strata, J), (strata, J + 1)."""
        width = max(len(stratum.cuts) for stratum in self.strata)
        cuts = np.zeros((len(self.strata), width), np.uint64)
        live = np.zeros((len(self.strata), width), np.bool_)
        codes = np.zeros((len(self.strata), width + 1), np.uint8)
        for index, stratum in enumerate(self.strata):
            for place, cut in enumerate(stratum.cuts):
                if cut < EVERYTHING:
                    cuts[index, place], live[index, place] = cut, True
            codes[index, : len(stratum.codes)] = stratum.codes
        return cuts, live, codes

    def to_json(self) -> dict[str, Any]:
        return {
            "key": list(self.key),
            "strata": [[list(stratum.cuts), list(stratum.codes)] for stratum in self.strata],
            "stratified": self.stratified,
            "column": self.column,
            "group": self.group,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SplitRule:
        first, second = data["key"]
        strata = tuple(Stratum(tuple(cuts), tuple(codes)) for cuts, codes in data["strata"])
        return cls((first, second), strata, data["stratified"], data["column"], data["group"])


def _column(extra: Extra, name: str, key: str) -> npt.NDArray[Any]:
    if name not in extra:
        raise ConfigError(
            f"{key}: the dataset keeps no column {name!r}", hint="import it again with this column kept", key=key
        )
    return extra[name]


def _group_ids(values: npt.NDArray[Any], row: IntArray, name: str) -> IntArray:
    """A 64-bit id of each group: an integer is its own, a text has the first 8 bytes of its SHA-256."""
    if values.dtype.kind in "iub":
        return values.astype(np.int64)
    ids: dict[str, int] = {}
    result = np.empty(len(values), np.int64)
    for place, value in enumerate(values.tolist()):
        if not isinstance(value, str):
            raise DataError(
                f"the group column {name} holds {value!r}",
                hint="groups must be whole numbers or texts, none missing",
                row=int(row[place]),
            )
        if value not in ids:
            ids[value] = int.from_bytes(hashlib.sha256(value.encode()).digest()[:8], "little", signed=True)
        result[place] = ids[value]
    return result


def find_split(
    label_chunks: LabelChunks,
    split: Split,
    *,
    seed: int,
    split_seed: int,
    classes: int | None,
    fold: int = 0,
    folds: int = 0,
) -> SplitRule:
    """The rule of one trial: `find_splits` for one."""
    (rule,) = find_splits(label_chunks, split, [(split_seed, fold)], seed=seed, classes=classes, folds=folds)
    return rule


def find_splits(
    label_chunks: LabelChunks,
    split: Split,
    trials: Sequence[tuple[int, int]],
    *,
    seed: int,
    classes: int | None,
    folds: int = 0,
) -> list[SplitRule]:
    """The rules of several trials (split seed, fold) in two passes over the labels.

    ``classes``: number of classes, None for a numeric target. ``folds`` above 0: k-fold cross-validation; the test
    part is the fold-th of ``folds`` parts of the order (sizes differ by at most one, per class too if stratified) and
    ``split.train`` does not count: the rest is for training but the validation rows.
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
            selector.count(*_dealt(draft, chunk, official))
    strata: list[list[list[tuple[int, int]]]] = []
    for (_, fold), selector in zip(trials, selectors, strict=True):
        if split.column is not None:
            strata.append([_carve(selector.totals[0], 0.0 if official_rows[VALIDATION] else split.validation)])
        elif folds:
            strata.append(_fold_pieces(selector.totals, split, fold, folds))
        else:
            strata.append(_part_pieces(selector.totals, split))
        selector.seek([_ends(pieces) for pieces in strata[-1]])
    for chunk in label_chunks():
        official = drafts[0].official(chunk.row, chunk.extra)
        for draft, selector in zip(drafts, selectors, strict=True):
            selector.collect(*_dealt(draft, chunk, official))
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


def _dealt(rule: SplitRule, chunk: Labels, official: Codes) -> tuple[IntArray, UInt64]:
    """Strata and hashes of the rows whose place in the order matters."""
    stratum, hashes = rule.stratum(chunk.row, chunk.y), rule.hashes(chunk.row, chunk.extra)
    return (stratum, hashes) if rule.column is None else (stratum[official == TRAIN], hashes[official == TRAIN])


def _share(fraction: float, rows: int) -> int:
    return min(rows, math.floor(fraction * rows + 0.5))


def _pieces(*pieces: tuple[int, int]) -> list[tuple[int, int]]:
    """The pieces (code, rows) that are not empty; an empty stratum keeps one."""
    return [(code, rows) for code, rows in pieces if rows] or [(TRAIN, 0)]


def _ends(pieces: Sequence[tuple[int, int]]) -> list[int]:
    """The ranks at which each piece but the last ends."""
    return list(accumulate(rows for _, rows in pieces))[:-1]


def _carve(rows: int, validation: float) -> list[tuple[int, int]]:
    carved = _share(validation, rows)
    return _pieces((TRAIN, rows - carved), (VALIDATION, carved))


def _part_pieces(strata_rows: Sequence[int], split: Split) -> list[list[tuple[int, int]]]:
    rows = sum(strata_rows)
    train = _share(split.train, rows)
    validation = min(_share(split.validation, rows), rows - train)
    rest = rows - train - validation
    test = rest if split.test is None else min(_share(split.test, rows), rest)
    codes = (TRAIN, VALIDATION, TEST, UNUSED)
    shares = apportion(strata_rows, (train, validation, test, rest - test))
    return [_pieces(*zip(codes, share, strict=True)) for share in shares]


def _fold_pieces(strata_rows: Sequence[int], split: Split, fold: int, folds: int) -> list[list[tuple[int, int]]]:
    """Test is one run of each stratum's order. Rows are dealt to folds round robin, each stratum going on where the
    one before stopped: so fold sizes differ by at most one in each stratum and in total."""

    def dealt(rows: int, to: int) -> int:
        return (rows - to + folds - 1) // folds

    firsts: list[int] = []
    tests: list[int] = []
    offset = 0
    for rows in strata_rows:
        sizes = [dealt(offset + rows, to) - dealt(offset, to) for to in range(fold + 1)]
        firsts.append(sum(sizes[:fold]))
        tests.append(sizes[fold])
        offset += rows
    rests = [rows - test for rows, test in zip(strata_rows, tests, strict=True)]
    validation = min(_share(split.validation, offset), sum(rests))
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


@dataclass(frozen=True)
class SplitCounts:
    """Rows of one trial per shard, int64 of shape (shards,); ``train_classes`` (shards, classes), None for numbers."""

    train: IntArray
    validation: IntArray
    test: IntArray
    train_classes: IntArray | None


def count_parts(
    label_chunks: LabelChunks, rules: Sequence[SplitRule], *, shards: int, classes: int | None
) -> list[SplitCounts]:
    """Count the parts of several trials in one pass over the labels."""
    parts = np.zeros((len(rules), shards, 4), np.int64)
    by_class = np.zeros((len(rules), shards, classes or 0), np.int64)
    for chunk in label_chunks():
        for index, rule in enumerate(rules):
            codes = rule.parts(chunk.row, chunk.y, chunk.extra)
            parts[index, chunk.shard] += np.bincount(codes, minlength=4)
            if classes is not None:
                labels = chunk.y[codes == TRAIN]
                by_class[index, chunk.shard] += np.bincount(labels, minlength=classes)
    return [
        SplitCounts(
            parts[index, :, TRAIN],
            parts[index, :, VALIDATION],
            parts[index, :, TEST],
            by_class[index] if classes is not None else None,
        )
        for index in range(len(rules))
    ]
