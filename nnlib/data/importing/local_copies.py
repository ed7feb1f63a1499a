"""Copy files from other machines while they are imported: formats read local files."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from nnlib.core.errors import DataError, StorageError
from nnlib.core.liveness import heartbeat
from nnlib.data.importing.compression import compression_of
from nnlib.data.importing.format_registry import is_tree
from nnlib.data.importing.hive_partitions import partition_folders
from nnlib.data.importing.source_files import expand_patterns, files_within
from nnlib.storage import LocalStorage, Storage, file_at, has_scheme

PART_BYTES = 8 << 20
"""Bytes copied at a time."""

HEAD_BYTES = 4 << 20
"""Bytes of a file's beginning that are enough to see its columns."""


@contextlib.contextmanager
def local_copies(sources: Sequence[str]) -> Iterator[list[str]]:
    """Return local paths of sources at any address, in order, for the block; copies are deleted when it ends.

    A folder on another machine stands for its files, sorted by name, without hidden and marker files (``.name``,
    ``_SUCCESS``), or for a copy of the whole folder, if its files are images; a pattern in the last part of an address
    for what it names. A pipe (``<(zcat rows.csv.gz)``, ``/dev/stdin``) is copied, too, for formats read a file more
    than once. Copies lie in the system's folder for temporary files. A `DataError` that the block raises names the
    address, not the copy. Raises `DataError` for a source that is missing and `StorageError` if it cannot be copied.
    """
    if not any(has_scheme(source) or is_pipe(source) for source in sources):
        yield list(sources)
        return
    with _folder() as folder:
        copied = [
            copy
            for number, source in enumerate(expand_patterns(sources))
            for copy in _copied(source, folder / f"{number:05d}")
        ]
        with _named(dict(copied)):
            yield [path for path, _ in copied]


def is_pipe(source: str) -> bool:
    """Return whether a source is a pipe of this machine, which can be read once only, from front to end."""
    try:
        return not has_scheme(source) and stat.S_ISFIFO(os.stat(source).st_mode)  # noqa: PTH116  (odd names are no error)
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def head_copy(source: str) -> Iterator[str]:
    """Return the local path of a file with the first `HEAD_BYTES` of a file at any address, for the block.

    Raises as `local_copies` does.
    """
    if not has_scheme(source):
        yield source
        return
    files, name = file_at(source)
    with _folder() as folder:
        path = folder / partition_folders(source) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.open(name) as stream:
            head = stream.read(HEAD_BYTES)
            if compression_of(head) == "zip":  # what it holds stands at its end
                head += stream.read()
        try:
            path.write_bytes(head)
        except OSError as error:
            raise StorageError(f"cannot write a temporary file: {error}", hint="set TMPDIR") from error
        with _named({str(path): source}):
            yield str(path)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    try:
        folder = tempfile.TemporaryDirectory(prefix="nnjobs-import-", ignore_cleanup_errors=True)
    except OSError as error:
        raise StorageError(f"cannot make a temporary folder: {error}", hint="set TMPDIR") from error
    with folder:
        yield Path(folder.name)


@contextlib.contextmanager
def _named(origins: Mapping[str, str]) -> Iterator[None]:
    """Replace the path of a copy by its address in errors about data."""
    try:
        yield
    except DataError as error:
        for path, address in origins.items():
            if (file := str(error.where.get("file"))) == path or file.startswith((f"{path}/", f"{path}:")):
                error.where["file"] = address + file.removeprefix(path)
        raise


def _copied(source: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the local path and the address of each file of a source; files on other machines are copied."""
    if is_pipe(source):
        folder.mkdir(parents=True, exist_ok=True)
        copy = folder / Path(source).name
        _copy(LocalStorage("/"), str(Path(source).absolute())[1:], copy)
        yield str(copy), source
        return
    if not has_scheme(source):
        yield source, source
        return
    files, name = file_at(source.rstrip("/"))
    if (path := files.local_path(name)) is not None:
        yield str(path), source
        return
    base = source.rstrip("/").removesuffix(name)
    inside = files_within(source)
    as_tree = is_tree(inside) and inside != [source]
    for file in inside:
        within = file.removeprefix(base)
        path = folder / partition_folders(base) / within
        _copy(files, within, path)
        if not as_tree:
            yield str(path), file
    if as_tree:
        yield str(folder / partition_folders(base) / name), source.rstrip("/")


def _copy(files: Storage, name: str, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.open(name) as source, path.open("xb") as target:
            while part := source.read(PART_BYTES):
                heartbeat()
                target.write(part)
    except OSError as error:
        raise StorageError(
            f"cannot keep a copy while it is imported: {error.strerror or error}",
            hint="set TMPDIR to a folder with space",
            file=f"{files.root}/{name}",
        ) from error
