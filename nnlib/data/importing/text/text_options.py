"""How text becomes rows of tokens: what `nnjobs data tokenize` and ``data import --text`` decide, stored with a
dataset so that predictions read text alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from nnlib.core.errors import UsageError
from nnlib.data.token_widths import MOST_TOKENS, row_width

DOCUMENT = "document"
"""The column of a dataset of blocks that says which of them share documents: their splits keep them together."""

MOST_LENGTH = 1 << 19
"""The longest row of tokens."""


@dataclass(frozen=True)
class TextOptions:
    """How rows of a table become rows of tokens.

    - ``kind``: ``blocks`` of a language model, or one row for every ``text``, which has a label
    - ``tokenizer``: the tokenizer file, packed (`nnlib.data.importing.text.tokenizer.pack`)
    - ``vocabulary``: one more than the largest id
    - ``length``: tokens of a row
    - ``template``: the text of a document, with its columns in braces; of a ``text`` its column
    - ``counted``: the columns of the template whose tokens the loss counts; none: all of the document
    - ``end``: the id that is put behind every document, None: none; ``pad``: the id that fills rows up
    - ``pack``: whether documents that are short share a block
    - ``empty``: whether a document without tokens is an ``error``, or left out (``skip``)
    - ``keep``: columns that every block of a document keeps
    """

    kind: Literal["blocks", "text"]
    tokenizer: str
    vocabulary: int
    length: int
    template: str
    counted: tuple[str, ...] = ()
    end: int | None = None
    pad: int = 0
    pack: bool = True
    empty: Literal["error", "skip"] = "error"
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 2 <= self.length <= MOST_LENGTH:
            raise UsageError(f"--length {self.length}: a row has 2 to {MOST_LENGTH:,} tokens")
        if not 1 <= self.vocabulary <= MOST_TOKENS:
            raise UsageError(
                f"the tokenizer has ids up to {self.vocabulary - 1:,}, it may have {MOST_TOKENS:,} of them"
            )

    @property
    def dtype(self) -> Literal["uint16", "uint32"]:
        """How a dataset stores the ids."""
        return "uint16" if self.vocabulary <= 1 << 16 else "uint32"

    @property
    def width(self) -> int:
        """The numbers of a row: its ids and its mask."""
        return row_width(self.length)

    def to_json(self) -> dict[str, Any]:
        """Return the options that differ from the defaults as JSON values; `from_json` is the inverse."""
        values = {option.name: getattr(self, option.name) for option in fields(self)}
        chosen = {option.name: values[option.name] for option in fields(self) if values[option.name] != option.default}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in chosen.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TextOptions:
        """Return the options that `to_json` wrote. Raises `TypeError` for an unknown one."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
        }
        return cls(**values)
