"""One spelling for a value that files write in several ways.

So a label or a category learnt from one file is known in another.

The rule, for class names and categories:

- A boolean is ``true`` or ``false``: also the texts True, TRUE, False, FALSE.
- A whole number has no plus sign, no decimal point and no zeros after it: ``3`` for 3, 3.0, "3.0", "+3", "3.". Text of
  digits alone keeps its zeros in front ("01234"), as codes have them, where all names of its column are digits of one
  length, or where the column also holds other text (`unify_names`).
- Other numbers keep their shortest form; a decimal keeps its text.
- A date is ``2024-01-31``, and so is a time stamp at midnight without time zone. A time stamp is
  ``2024-01-31 12:30:00``, with a fraction only where it is not 0. One with a time zone is in UTC and ends with Z.
- Bytes are UTF-8 text. Spaces around a text do not count.

Integers of any size keep all their digits.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import cached_property
from typing import Any

_WHOLE = re.compile(r"([+-]?)([0-9]+)(\.0*)?")
_NUMBER = re.compile(r"([+-]?)(?:([0-9]+)(?:\.([0-9]*))?|\.([0-9]+))(?:[eE]([+-]?[0-9]{1,9}))?")
_TIME_STAMP = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]([0-9]{2}:[0-9]{2})(?::([0-9]{2})(?:\.([0-9]+))?)?"
    r" ?(Z|UTC|[+-][0-9]{2}(?::?[0-9]{2})?)?"
)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(r"([0-9]{2}:[0-9]{2}:[0-9]{2})\.([0-9]+)")
_BOOLEANS = {"True": "true", "TRUE": "true", "False": "false", "FALSE": "false"}
_BOOLEAN_DIGITS = {"true": "1", "false": "0", "1": "true", "0": "false"}
_SHORT = 1e16
"""Whole floats below it are written without an exponent."""

UNKNOWN = -1
"""The index of a label that no class has."""
MISSING = -2
"""The index of a missing label."""


def spell(value: Any) -> str:
    """Return the one spelling of a value: a text, a number, a boolean or None (an empty text). See this module.

    Zeros in front of digits stay: see `unify_names`.
    """
    if isinstance(value, str):
        return spell_text(value.strip())
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if is_short(value) else repr(float(value))
    if isinstance(value, Decimal):
        return spell_text(format(value, "f"))
    return spell_text(str(value))


def spell_text(text: str) -> str:
    """Return the one spelling of a text without spaces around it."""
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if not text or not (text[0].isdigit() or text[0] in "+-"):
        return text
    if (whole := _WHOLE.fullmatch(text)) is not None:
        sign, digits, point = whole.groups()
        if sign or point is not None:
            digits = digits.lstrip("0") or "0"
        return f"-{digits}" if sign == "-" and digits != "0" else digits
    if (stamp := _TIME_STAMP.fullmatch(text)) is not None:
        return _spell_time_stamp(text, *stamp.groups())
    if (time := _TIME.fullmatch(text)) is not None:
        return time[1] + _fraction(time[2])
    return text


def is_short(value: float) -> bool:
    """Return whether a float is a whole number that is spelled without an exponent."""
    return value.is_integer() and abs(value) < _SHORT


def _spell_time_stamp(
    text: str, date: str, minutes: str, seconds: str | None, fraction: str | None, zone: str | None
) -> str:
    try:
        moment = datetime.datetime.fromisoformat(f"{date}T{minutes}:{seconds or '00'}")
        if zone is not None and zone not in ("Z", "UTC"):
            hours, rest = zone[1:3], zone[3:].lstrip(":") or "00"
            shift = datetime.timedelta(hours=int(hours), minutes=int(rest))
            moment += -shift if zone[0] == "+" else shift
    except (ValueError, OverflowError):
        return text
    if zone is None and not _fraction(fraction) and moment.time() == datetime.time():
        return date
    return f"{moment.isoformat(' ')}{_fraction(fraction)}{'' if zone is None else 'Z'}"


def _fraction(digits: str | None) -> str:
    stripped = (digits or "").rstrip("0")
    return f".{stripped}" if stripped else ""


def is_whole(name: str) -> bool:
    """Return whether a spelled name is a whole number."""
    return name.lstrip("-").isdecimal() and name.isascii()


def is_time_stamp(text: str) -> bool:
    """Return whether a text is a date or a time stamp, as ISO 8601 writes it."""
    return _TIME_STAMP.fullmatch(text) is not None or _DATE.fullmatch(text) is not None


def drop_zeros(name: str) -> str:
    """Return a spelled name without zeros in front, if it is digits alone."""
    return name.lstrip("0") or "0" if name.isdecimal() and name.isascii() else name


def unify_names(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the names of a column and their rows, from the rows of each spelling (`spell`), in the same order.

    If all are whole numbers, zeros in front do not count ("03" is "3"), unless all are digits of one length: then they
    are codes, such as "01234". If all are numbers, those that are whole are written without an exponent ("1.0e+00" is
    "1"), and of several spellings of one number the shortest is its name.
    """
    if not all(map(is_whole, counts)) and all(map(_NUMBER.fullmatch, counts)):
        counts = _unify_numbers(counts)
    if not all(map(is_whole, counts)) or (len(set(map(len, counts))) == 1 and all(map(str.isdecimal, counts))):
        return dict(counts)
    names: dict[str, int] = {}
    for name, rows in counts.items():
        names[drop_zeros(name)] = names.get(drop_zeros(name), 0) + rows
    return names


def _unify_numbers(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the names of numbers, at least one of them not spelled as a whole one, and their rows."""
    spellings: dict[tuple[str, str, int] | str, list[str]] = {}
    for name in counts:
        spellings.setdefault(name if is_whole(name) else _number(name) or name, []).append(name)
    names: dict[str, int] = {}
    for key, same in spellings.items():
        name = min(same, key=lambda text: (len(text), text))
        if isinstance(key, tuple) and key[2] >= 0 and is_short(float(name)):
            name = str(int(float(name)))
        names[name] = names.get(name, 0) + sum(counts[each] for each in same)
    return names


def sort_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct names in index order: all whole numbers by size, else as texts."""
    distinct = sorted(set(names))
    return tuple(sorted(distinct, key=_size) if all(map(is_whole, distinct)) else distinct)


def _size(name: str) -> tuple[int, int, str]:
    """Return a key that sorts whole numbers by size, however many digits they have: Python reads 4300 at most."""
    digits = name.lstrip("-").lstrip("0")
    if not name.startswith("-"):
        return (0, len(digits), digits)
    return (-1, -len(digits), digits.translate(_COMPLEMENT))


_COMPLEMENT = str.maketrans("0123456789", "9876543210")


class NameIndex:
    """Finds the index of a value among names, however the value and the names are written.

    ``indices``: the index of each name. A value has the index of the name it equals; else of the one that has the same
    spelling (`spell`), zeros in front aside; else, where all names are numbers, of the one that is the same number. The
    values 1 and 0 are true and false where all names are booleans, and booleans 1 and 0 where all names are 0 or 1.
    Where several names fit in the same way, none does. ``numbers``: those of the names among which numbers are looked
    for, all of them by default.
    """

    def __init__(self, indices: Mapping[str, int], numbers: Mapping[str, int] | None = None) -> None:
        self._names = dict(indices)
        self._may_be_numbers = self._names if numbers is None else dict(numbers)

    def find(self, value: Any) -> int:
        """Return the index of a value, or `UNKNOWN`."""
        text = value.strip() if isinstance(value, str) else spell(value)
        if text in self._names:
            return self._names[text]
        spelled = spell_text(text)
        for key in (spelled, drop_zeros(spelled)):
            if key in self._spelled:
                return self._spelled[key]
        number = _number(spelled)
        if number is not None and number in self._numbers:
            return self._numbers[number]
        return self._booleans.get(spelled, UNKNOWN)

    @cached_property
    def _spelled(self) -> dict[str, int]:
        return _unambiguous((spell(name), index) for name, index in self._names.items())

    @cached_property
    def _numbers(self) -> dict[tuple[str, str, int], int]:
        numbers = {name: _number(spell(name)) for name in self._may_be_numbers}
        if any(number is None for number in numbers.values()):
            return {}
        return _unambiguous((number, self._names[name]) for name, number in numbers.items() if number is not None)

    @cached_property
    def _booleans(self) -> dict[str, int]:
        names = {spell(name) for name in self._names}
        if not (names <= {"true", "false"} or names <= {"0", "1"}):
            return {}
        return {_BOOLEAN_DIGITS[name]: index for name, index in self._spelled.items()}


def _unambiguous(pairs: Iterable[tuple[Any, int]]) -> dict[Any, int]:
    found: dict[Any, int] = {}
    for key, index in pairs:
        found[key] = index if found.get(key, index) == index else UNKNOWN
    return {key: index for key, index in found.items() if index != UNKNOWN}


def _number(text: str) -> tuple[str, str, int] | None:
    """Return what equal numbers have in common, sign, digits and exponent; None for a text that is no number."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    sign, whole, fraction, only, exponent = match.groups()
    after = only or fraction or ""
    digits = ((whole or "") + after).lstrip("0")
    stripped = digits.rstrip("0")
    power = int(exponent or 0) - len(after) + len(digits) - len(stripped)
    return ("-" if sign == "-" else "", stripped, power) if stripped else ("", "", 0)
