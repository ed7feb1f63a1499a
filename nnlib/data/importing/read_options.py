"""How a file is read: what an import's options say, what a dataset stores, and what a prediction uses again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeAlias, TypeVar

from nnlib.data.importing.text.text_options import TextOptions

ReadingChanges: TypeAlias = Mapping[str, Any]
"""Some fields of `ReadOptions` by name: those that a user gives, which go before the stored ones."""

BLANKS = "blanks"
"""The delimiter of columns that stand apart by one or more spaces or tabs."""

_Options = TypeVar("_Options", bound="ReadOptions")


@dataclass(frozen=True)
class ReadOptions:
    """How to read files. None: find out from the file.

    - ``format``: a name in `nnlib.data.importing.format_registry.FORMATS`
    - of CSV: ``delimiter``, one ASCII character or `BLANKS`; ``quote``, one ASCII character, or "" where nothing is
      quoted; ``header``, whether the first line names the columns; ``decimal`` and ``thousands``, the marks in numbers;
      ``encoding``, a codec of Python (None: UTF-8, or what the file's first bytes say); ``comment``, the text with
      which lines begin that are to be skipped
    - ``null_values``: the texts that mean a missing value; None: the usual ones, (): none
    - ``index``: ``auto`` leaves out the columns that number the rows, ``keep`` has them as other columns
    - ``columns``: in the options of a dataset, the names of all columns of its first file, in order
    - ``first_index``: of svmlight files, 0 or 1, the index of the first feature; ``feature_count``: the features that a
      model wants, where the file does not say how many it has
    - ``partitions``: in the options of a dataset, the columns that stood in the names of folders (``year=2024``)
    - ``mode``, of images: ``grey`` or ``rgb``; None: grey if all are; ``resize``: (height, width) that they get
    - ``channels``: whether arrays of images have their channels ``first`` or ``last`` in a row
    - ``row_shape``: the shape of the rows that a model wants
    - ``folder``: where the files of a built-in dataset are that comes as files; None: where they usually are
    - ``features`` and ``label``: the arrays or columns that the user names
    - ``text``: how a column of text, or a template over columns, becomes rows of tokens; None: it does not
    - ``likely_features`` and ``likely_label``: names to look for before the usual ones, where the user names none
    """

    format: str | None = None
    delimiter: str | None = None
    header: bool | None = None
    features: tuple[str, ...] = ()
    label: str | None = None
    likely_features: tuple[str, ...] = ()
    likely_label: str | None = None
    quote: str = '"'
    decimal: str = "."
    thousands: str | None = None
    encoding: str | None = None
    comment: str | None = None
    null_values: tuple[str, ...] | None = None
    index: Literal["auto", "keep"] = "auto"
    columns: tuple[str, ...] = ()
    first_index: int | None = None
    feature_count: int | None = None
    partitions: tuple[str, ...] = ()
    folder: str | None = None
    mode: Literal["grey", "rgb"] | None = None
    resize: tuple[int, int] | None = None
    channels: Literal["first", "last"] | None = None
    row_shape: tuple[int, ...] = ()
    text: TextOptions | None = None

    def changed(self: _Options, changes: ReadingChanges | None) -> _Options:
        """Return the options with those of ``changes`` in place of theirs."""
        return replace(self, **(changes or {}))

    def to_json(self) -> dict[str, Any]:
        """Return the options that differ from the defaults as JSON values; `from_json` is the inverse."""
        values = {option.name: getattr(self, option.name) for option in fields(ReadOptions)}
        chosen = {
            option.name: values[option.name] for option in fields(ReadOptions) if values[option.name] != option.default
        }
        data = {name: list(value) if isinstance(value, tuple) else value for name, value in chosen.items()}
        return data if self.text is None else {**data, "text": self.text.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ReadOptions:
        """Return the options that `to_json` wrote. Raises `TypeError` for an unknown one."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
        }
        if "text" in values:
            values["text"] = TextOptions.from_json(values["text"])
        return ReadOptions(**values)
