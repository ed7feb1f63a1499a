"""The options of an import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal

from nnlib.core.errors import UsageError
from nnlib.data.importing.read_options import ReadOptions
from nnlib.data.importing.spill_buffer import BUFFER_BYTES


@dataclass(frozen=True)
class ImportOptions(ReadOptions):
    """How to import, and how to read the files; `nnjobs data import --help` explains most options.

    Columns are named, or given by number (0 is the first, -1 the last). ``classes`` are all classes in index order, for
    an input whose rows may lack some; empty, they are those of the rows. ``buffer_bytes`` bounds the memory of each of
    an import's two buffers.
    """

    shards: int = 1
    categorical: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    nulls: Literal["error", "mean"] = "error"
    unknown_category: Literal["error", "ignore"] = "error"
    task: Literal["auto", "classification", "regression", "language"] = "auto"
    dtype: Literal["auto", "float32", "float64", "uint8"] = "auto"
    shape: tuple[int, ...] | None = None
    classes: tuple[str, ...] = ()
    label_map: Mapping[str, str] = field(default_factory=dict)
    by_label: bool = False
    seed: int = 0
    row_group_rows: int | None = None
    name: str | None = None
    overwrite: bool = False
    buffer_bytes: int = BUFFER_BYTES

    @property
    def reading(self) -> ReadOptions:
        """The options that say how files are read."""
        return ReadOptions(**{option.name: getattr(self, option.name) for option in fields(ReadOptions)})

    def check(self) -> None:
        """Raise `UsageError` for options that fit no data."""
        if self.shards < 1 or (self.row_group_rows or 1) < 1:
            raise UsageError("shards and row_group_rows must be at least 1")
