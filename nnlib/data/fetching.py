"""Raw files that lie elsewhere, copied to this machine while they are imported: every importer reads local files."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from nnlib.errors import DataError, StorageError
from nnlib.storage import LocalStorage, Storage, file_at

PART_BYTES = 8 << 20


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
    try:
        folder = tempfile.TemporaryDirectory(prefix="nnjobs-import-", ignore_cleanup_errors=True)
    except OSError as error:
        raise StorageError(f"cannot make a temporary folder: {error}", hint="set TMPDIR") from error
    with folder:
        copied = [
            copy
            for number, source in enumerate(sources)
            for copy in _copied(source, Path(folder.name, f"{number:05d}"))
        ]
        try:
            yield [path for path, _ in copied]
        except DataError as error:
            origins = dict(copied)
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
            shutil.copyfileobj(source, target, PART_BYTES)
    except OSError as error:
        raise StorageError(
            f"cannot keep a copy while it is imported: {error.strerror or error}",
            hint="set TMPDIR to a folder with space",
            file=f"{place.root}/{name}",
        ) from error
