"""Raw files that lie elsewhere, copied to this machine while they are imported: every importer reads local files."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from nnlib.core.errors import DataError, StorageError
from nnlib.core.liveness import beat
from nnlib.storage import LocalStorage, Storage, file_at

PART_BYTES = 8 << 20
HEAD_BYTES = 4 << 20


@contextlib.contextmanager
def local_copies(sources: Sequence[str]) -> Iterator[list[str]]:
    """Local paths for sources at any address, in order; copies are gone when the block ends.

    A directory elsewhere stands for its files, sorted by name, without those that are hidden or marked (``_SUCCESS``).
    Copies take the room of the originals in the system's temporary folder. A `DataError` of the block names the
    address, not the copy.
    """
    if not any("://" in source for source in sources):
        yield list(sources)
        return
    with _folder() as folder:
        copied = [copy for number, source in enumerate(sources) for copy in _copied(source, folder / f"{number:05d}")]
        with _named(dict(copied)):
            yield [path for path, _ in copied]


@contextlib.contextmanager
def head_copy(source: str) -> Iterator[str]:
    """A local path with the first bytes of a file at any address, enough to see a text file's columns; errors as in
    `local_copies`."""
    if "://" not in source:
        yield source
        return
    place, name = file_at(source)
    with _folder() as folder:
        path = folder / name
        with place.open(name) as stream:
            head = stream.read(HEAD_BYTES)
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
    """Name the address, not the copy, in errors about data."""
    try:
        yield
    except DataError as error:
        if error.where.get("file") in origins:
            error.where["file"] = origins[error.where["file"]]
        raise


def _copied(source: str, folder: Path) -> Iterator[tuple[str, str]]:
    """The local path and the address of each file of a source."""
    if "://" not in source:
        yield source, source
        return
    place, name = file_at(source.rstrip("/"))
    if isinstance(place, LocalStorage):
        yield str(place.path / name), source
        return
    within = [file for file in place.names(name) if not file.startswith(("_", "."))]
    if not within and not place.exists(name):
        raise DataError("there is no such file", file=source)
    for file in [f"{name}/{each}" for each in within] or [name]:
        path = folder / file
        _copy(place, file, path)
        yield str(path), f"{place.root}/{file}"


def _copy(place: Storage, name: str, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with place.open(name) as source, path.open("xb") as target:
            while part := source.read(PART_BYTES):
                beat()
                target.write(part)
    except OSError as error:
        raise StorageError(
            f"cannot keep a copy while it is imported: {error.strerror or error}",
            hint="set TMPDIR to a folder with space",
            file=f"{place.root}/{name}",
        ) from error
