"""The rule that decides which rows are for training, validation and test, from each row alone.

A row's hash is a keyed hash of its id (`nnlib.core.seeds.row_hash`, a bijection: no two rows tie). In the order of
these hashes the first rows are for training, the next for validation, the next for testing. `nnlib.data.split.fitting`
finds the cuts between them, so that the counts are exact.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nnlib.core.arrays import BoolArray, IntArray
from nnlib.core.errors import ConfigError, DataError
from nnlib.core.seeds import UInt64, row_hash
from nnlib.data.split.rank_selection import EVERYTHING

PartCodes = npt.NDArray[np.uint8]
"""The part of each row: `UNUSED`, `TRAIN`, `VALIDATION` or `TEST`, shape (n,)."""

ExtraColumns = Mapping[str, npt.NDArray[Any]]
"""The columns of a dataset that its rows have besides features and labels, by name, shape (n,) each."""

UNUSED, TRAIN, VALIDATION, TEST = range(4)
"""The codes of the parts."""

OFFICIAL = {
    "train": TRAIN,
    "training": TRAIN,
    "validation": VALIDATION,
    "valid": VALIDATION,
    "val": VALIDATION,
    "dev": VALIDATION,
    "test": TEST,
}
"""The values that an official split's column may have, in lower case -> the part they name."""


class Labels(NamedTuple):
    """Rows of one shard without their features.

    ``row``: ids, shape (n,) int64. ``y``: class indices (int64) or targets (float64), shape (n,). ``extra``: the
    columns that split rules read.
    """

    shard: int
    row: IntArray
    y: npt.NDArray[Any]
    extra: ExtraColumns


LabelChunks = Callable[[], Iterator[Labels]]
"""Starts a new pass over the labels of a whole dataset, which come in any order and in chunks of any size."""


@dataclass(frozen=True)
class Stratum:
    """Where one class (or all rows, if a split is not stratified) is cut along the order of hashes.

    Part ``codes[i]`` ends at the hash ``cuts[i]``; the last part has no end.
    """

    cuts: tuple[int, ...]
    codes: tuple[int, ...]


@dataclass(frozen=True)
class SplitRule:
    """Decides the part of each row from that row alone. The driver sends it to the tasks as JSON.

    ``key`` seeds the hashes. ``strata`` holds one entry per class if ``stratified``, else one. ``column`` and ``group``
    are `nnlib.config.schema.Split.column` and ``group``.
    """

    key: tuple[int, int]
    strata: tuple[Stratum, ...]
    stratified: bool = False
    column: str | None = None
    group: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The extra columns that the rule reads."""
        return tuple(name for name in (self.column, self.group) if name is not None)

    def parts(self, row: IntArray, y: npt.NDArray[Any], extra: ExtraColumns) -> PartCodes:
        """Return the part of each row.

        ``row``: ids, shape (n,). ``y``: class indices or targets, shape (n,). ``extra`` must hold `columns`. Raises
        `ConfigError` for a missing column and `DataError` for a bad value, naming the row.
        """
        cuts, live, codes = self._tables
        hashes = self.hashes(row, extra)
        stratum: Any = self.stratum(row, y) if self.stratified else 0
        passed = (hashes[:, None] >= cuts[stratum]) & live[stratum]
        drawn: PartCodes = codes[stratum, passed.sum(axis=1)]
        if self.column is None:
            return drawn
        official = self.official(row, extra)
        return np.where(official == TRAIN, drawn, official)

    def hashes(self, row: IntArray, extra: ExtraColumns) -> UInt64:
        """Return the hash that orders each row, shape (n,): equal for all rows of one group."""
        if self.group is None:
            return row_hash(row, self.key)
        return row_hash(_group_ids(_column(extra, self.group, "split.group"), row, self.group), self.key)

    def stratum(self, row: IntArray, y: npt.NDArray[Any]) -> IntArray:
        """Return the index of each row's stratum, shape (n,) int64. Raises `DataError` for a class that there is
        not."""
        if not self.stratified:
            return np.zeros(len(row), np.int64)
        stratum = y.astype(np.int64)
        wrong = np.flatnonzero((stratum < 0) | (stratum >= len(self.strata)))
        if len(wrong):
            raise DataError(f"no such class: {int(stratum[wrong[0]])}", row=int(row[wrong[0]]))
        return stratum

    def official(self, row: IntArray, extra: ExtraColumns) -> PartCodes:
        """Return the part that the official split's column names for each row; `TRAIN` without such a column.

        Raises `ConfigError` if the column is missing and `DataError` if a value names no part.
        """
        if self.column is None:
            return np.full(len(row), TRAIN, np.uint8)
        values = _column(extra, self.column, "split.column").tolist()
        known = {value: OFFICIAL.get(str(value).strip().lower(), -1) for value in set(values)}
        codes = [known[value] for value in values]
        if -1 in codes:
            index = codes.index(-1)
            raise DataError(
                f"the official split's column {self.column} holds {values[index]!r}",
                hint="its values must be train, validation or test",
                row=int(row[index]),
            )
        return np.array(codes, np.uint8)

    @cached_property
    def _tables(self) -> tuple[UInt64, BoolArray, PartCodes]:
        """Cuts, whether each exists, and codes as rectangular arrays: (strata, J), (strata, J), (strata, J + 1)."""
        width = max(len(stratum.cuts) for stratum in self.strata)
        cuts = np.zeros((len(self.strata), width), np.uint64)
        live = np.zeros((len(self.strata), width), np.bool_)
        codes = np.zeros((len(self.strata), width + 1), np.uint8)
        for index, stratum in enumerate(self.strata):
            for number, cut in enumerate(stratum.cuts):
                if cut < EVERYTHING:
                    cuts[index, number], live[index, number] = cut, True
            codes[index, : len(stratum.codes)] = stratum.codes
        return cuts, live, codes

    def to_json(self) -> dict[str, Any]:
        """Return the rule as JSON values; `from_json` is the inverse."""
        return {
            "key": list(self.key),
            "strata": [[list(stratum.cuts), list(stratum.codes)] for stratum in self.strata],
            "stratified": self.stratified,
            "column": self.column,
            "group": self.group,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SplitRule:
        """Return the rule that `to_json` wrote."""
        first, second = data["key"]
        strata = tuple(Stratum(tuple(cuts), tuple(codes)) for cuts, codes in data["strata"])
        return cls((first, second), strata, data["stratified"], data["column"], data["group"])


def _column(extra: ExtraColumns, name: str, key: str) -> npt.NDArray[Any]:
    if name not in extra:
        raise ConfigError(
            f"{key}: the dataset keeps no column {name!r}", hint=f"import it again with --keep {name}", key=key
        )
    return extra[name]


def _group_ids(values: npt.NDArray[Any], row: IntArray, name: str) -> IntArray:
    """Return the 64-bit id of each row's group: the value itself if it is an integer, the first 8 bytes of its SHA-256
    if it is a text."""
    if values.dtype.kind in "iub":
        return values.astype(np.int64)
    ids: dict[str, int] = {}
    result = np.empty(len(values), np.int64)
    for index, value in enumerate(values.tolist()):
        if not isinstance(value, str):
            raise DataError(
                f"the group column {name} holds {value!r}",
                hint="groups must be whole numbers or texts, none missing",
                row=int(row[index]),
            )
        if value not in ids:
            ids[value] = int.from_bytes(hashlib.sha256(value.encode()).digest()[:8], "little", signed=True)
        result[index] = ids[value]
    return result
