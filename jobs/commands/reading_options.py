"""The options that say how files are read, stated once for `nnjobs data import` and `nnjobs predict`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from jobs.commands.options import Command
from nnlib.core.errors import UsageError
from nnlib.data.importing.format_registry import FORMATS
from nnlib.data.importing.read_options import BLANKS

_SPELLED = {"\\t": "\t", "tab": "\t", "space": " ", "semicolon": ";", "comma": ",", "pipe": "|"}
"""Marks that are awkward to type in a shell, by how they are written there."""


def reading_options(*format_names: str) -> Callable[[Command], Command]:
    """Add the options of reading files to a command; ``format_names`` are the spellings of the one for the format.

    The command gets one argument for them, ``reading``: the fields of `nnlib.data.importing.read_options.ReadOptions`
    that the user gave, by name (`ReadingChanges`).
    """
    options = (
        click.option(*format_names, "read_format", type=click.Choice(list(FORMATS)),
                     help="Format of the files to read. [default: by looking]"),
        click.option("--delimiter", help="CSV: what stands between columns, or blanks for one or more spaces or tabs. "
                          "[default: a comma; a tab in .tsv]"),
        click.option("--header/--no-header", default=None,
                     help="CSV: whether the first line names the columns. [default: by looking]"),
        click.option("--quote", metavar="MARK", help="CSV: what encloses text, or none. [default: \"]"),
        click.option("--decimal", metavar="MARK", help="CSV: the decimal mark. [default: .]"),
        click.option("--thousands", metavar="MARK", help="CSV: the mark between thousands. [default: none]"),
        click.option("--encoding", metavar="NAME",
                     help="CSV: how text is encoded, such as latin-1 or utf-16. [default: UTF-8, or by the BOM]"),
        click.option("--comment", metavar="TEXT", help="CSV: skip lines that begin with it. [default: none]"),
        click.option("--null-values", metavar="A,B,...",
                     help="What means a missing value, or none. [default: empty, NA, NaN, null, ? and the like]"),
        click.option("--index", type=click.Choice(["auto", "keep"]),
                     help="Columns that only number the rows: leave them out, or keep them. [default: auto]"),
        click.option("--mode", type=click.Choice(["grey", "rgb"]),
                     help="Images: what they become. [default: grey if all are]"),
        click.option("--resize", metavar="HxW", help="Images: resize to this height and width. [default: as they are]"),
        click.option("--channels", type=click.Choice(["first", "last"]),
                     help="Arrays of images: where a row has its channels. [default: by the sides]"),
    )  # fmt: skip

    def add(command: Command) -> Command:
        @functools.wraps(command)
        def with_reading(
            *arguments: Any,
            read_format: str | None,
            delimiter: str | None,
            header: bool | None,
            quote: str | None,
            decimal: str | None,
            thousands: str | None,
            encoding: str | None,
            comment: str | None,
            null_values: str | None,
            index: str | None,
            mode: str | None,
            resize: str | None,
            channels: str | None,
            **others: Any,
        ) -> None:
            chosen = {
                "format": read_format,
                "delimiter": delimiter if delimiter == BLANKS else _mark("--delimiter", delimiter),
                "header": header,
                "quote": "" if quote == "none" else _mark("--quote", quote),
                "decimal": _mark("--decimal", decimal),
                "thousands": _mark("--thousands", thousands),
                "encoding": encoding,
                "comment": comment,
                "null_values": None if null_values is None else split_null_values(null_values),
                "index": index,
                "mode": mode,
                "resize": None if resize is None else _size(resize),
                "channels": channels,
            }
            given = {name: value for name, value in chosen.items() if value is not None}
            command(*arguments, reading=given, **others)

        for option in reversed(options):
            with_reading = option(with_reading)
        return with_reading

    return add


def split_null_values(text: str) -> tuple[str, ...]:
    """Return the marks of ``--null-values``: those between commas; ``none`` alone means that there are none."""
    return () if text == "none" else tuple(dict.fromkeys(mark.strip() for mark in text.split(",")))


def _size(text: str) -> tuple[int, int]:
    """Return the height and width of ``--resize``. Raises `UsageError` for another text."""
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isascii() and side.isdigit() and 0 < int(side) <= 16_384 for side in sides):
        raise UsageError(f"--resize {text}: write height and width like 32x32")
    return int(sides[0]), int(sides[1])


def _mark(option: str, text: str | None) -> str | None:
    """Return a mark of one ASCII character as it was meant. Raises `UsageError` for another text."""
    mark = _SPELLED.get(text, text) if text is not None else None
    if mark is not None and (len(mark) != 1 or not mark.isascii()):
        raise UsageError(f"{option} must be one ASCII character, not {text!r}")
    return mark
