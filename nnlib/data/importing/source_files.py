"""The files that a source names: a file, a folder of files, or a pattern such as ``logs/2024-*.csv``."""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import os
from collections.abc import Sequence
from pathlib import Path

from nnlib.core.errors import DataError, UsageError
from nnlib.storage import Storage, file_at, has_scheme

_WILD = "*?["


def expand_patterns(sources: Sequence[str]) -> list[str]:
    """Return the sources with each pattern replaced by what it names, sorted by name; names that exist are no patterns.

    Hidden and marker files (``.name``, ``_SUCCESS``) fit no pattern that begins otherwise. Raises `DataError` for a
    pattern that nothing fits and `UsageError` for a pattern of folders on another machine.
    """
    return [each for source in sources for each in _expanded(source)]


def input_addresses(sources: Sequence[str], label: str | None = None) -> list[str]:
    """Return the addresses of all that is read: the sources, what patterns among them name, and the labels' file.

    ``label``: what the user named as label, which may be a file. A source that does not exist is no error here.
    """
    found = list(sources)
    for source in sources:
        with contextlib.suppress(DataError, UsageError):
            found += [each for each in _expanded(source) if each != source]
    is_file = label is not None and os.path.isfile(label)  # noqa: PTH113  (pathlib's fails for odd names)
    return [*found, label] if label and is_file else found


def data_files(names: Sequence[str]) -> list[str]:
    """Return the names of a folder that are no hidden and no marker files (``.name``, ``_SUCCESS``)."""
    return [name for name in names if not name.startswith(("_", "."))]


def files_within(source: str) -> list[str]:
    """Return the address itself, if it is a file, or those of all files in a folder and its folders, sorted.

    Hidden and marker files and folders (``.name``, ``_SUCCESS``, ``_delta_log``) are left out. Raises `DataError` for a
    folder without files.
    """
    base = source.rstrip("/") or source
    folder, name = file_at(base)
    files = [f"{base}/{each}" for each in _below(folder, name)]
    if not files and (not folder.exists(name) or (not has_scheme(source) and Path(source).is_dir())):
        raise DataError("there is no file", file=source)
    return files or [source]


def _below(storage: Storage, folder: str) -> list[str]:
    """Return the paths of the files below a folder, without those in folders that are hidden."""
    files: list[str] = []
    for name in data_files(storage.names(folder)):
        path = storage.local_path(f"{folder}/{name}")
        is_file = path.is_file() if path is not None else _is_named_file(name)
        within = [] if is_file else _below(storage, f"{folder}/{name}")
        is_empty_folder = path is not None and path.is_dir()
        files += [f"{name}/{each}" for each in within] if within or is_empty_folder else [name]
    return files


def _is_named_file(name: str) -> bool:
    """Return whether a name on another machine is surely a file's: asking costs a request."""
    return "=" not in name and "." in name[1:]


def _expanded(source: str) -> list[str]:
    if not any(mark in source for mark in _WILD):
        return [source]
    if has_scheme(source):
        return _expanded_address(source)
    if Path(source).exists():
        return [source]
    found = sorted(glob.glob(source, recursive=True))  # noqa: PTH207 - a pattern may be absolute
    return _checked(source, [path for path in found if _fits(source, path)])


def _expanded_address(source: str) -> list[str]:
    folder, name = file_at(source.rstrip("/"))
    prefix = source.rstrip("/").removesuffix(name)
    if any(mark in prefix for mark in _WILD):
        raise UsageError("a pattern may stand in the last part of an address only", source=source)
    if not any(mark in name for mark in _WILD) or folder.exists(name):
        return [source]
    names = [each for each in folder.names() if fnmatch.fnmatchcase(each, name) and _fits(source, each)]
    return _checked(source, [prefix + each for each in names])


def _fits(source: str, path: str) -> bool:
    name, pattern = path.rstrip("/").rpartition("/")[2], source.rstrip("/").rpartition("/")[2]
    return bool(data_files([name])) or pattern[:1] == name[:1]


def _checked(source: str, found: list[str]) -> list[str]:
    if not found:
        raise DataError("no file has such a name", file=source)
    return found
