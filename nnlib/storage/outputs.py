"""Outputs and inputs of a command: no output is an input, holds one, or lies in one.

Names are compared by what they lead to: links, hard links, ``..``, mounts and ``file://`` make no difference.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nnlib.core.errors import UsageError
from nnlib.storage import LocalStorage, is_remote_address, refuse_empty, storage
from nnlib.storage.addresses import is_there, path_in

Relation = Literal["is", "lies in", "holds"]

File = tuple[int, int]
"""Device and number of a file or directory, the same under all its names."""


def refuse_overlap(output: str, inputs: Iterable[str], *, option: str = "-o") -> None:
    """Refuse an output that is one of the inputs, holds one, or lies in one.

    Args:
        output: address of a file or folder, which need not be there yet.
        inputs: addresses of files and folders. What is not there, and what is no file or folder (a pipe), is no input.
        option: how the user named the output.

    Raises:
        UsageError: it is one, holds one or lies in one, or it is empty.
    """
    refuse_empty(output, option)
    place = _Place.of(output)
    for source in inputs:
        refuse_empty(source, "an input")
        relation = place.relation_to(_Place.of_source(source))
        if relation is not None:
            raise UsageError(
                f"{option} {relation} {'an input' if relation != 'is' else 'the input'}, {source}: "
                "it could be destroyed",
                hint=f"choose another place with {option}",
                output=output,
            )


def refuse_open_input(descriptor: int, inputs: Iterable[str]) -> None:
    """Refuse an open file as output that is one of the inputs: ``>> rows.csv`` would make the rows longer as they are
    read.

    ``descriptor``: of the open file; what is no regular file is no input. Raises `UsageError`.
    """
    try:
        state = os.fstat(descriptor)
    except OSError:
        return
    if not stat.S_ISREG(state.st_mode):
        return
    for source in inputs:
        place = _Place.of_source(source)
        found = None if place.local is None else _state(place.local)
        if found is not None and (found.st_dev, found.st_ino) == (state.st_dev, state.st_ino):
            raise UsageError(
                f"standard output is the input, {source}: it could be destroyed",
                hint="send the output to another file",
            )


def relation(output: str, source: str) -> Relation | None:
    """Return how an output stands to an input: it is the input, lies in it or holds it; None: it does neither."""
    return _Place.of(output).relation_to(_Place.of_source(source))


@dataclass(frozen=True)
class _Place:
    """Where an address leads: a file system, and the names of the directories down to it.

    ``local`` is the path on this machine, all links resolved, if there is one.
    """

    system: str
    parts: tuple[str, ...]
    local: Path | None

    @classmethod
    def of(cls, address: str) -> _Place:
        files = storage(address)
        path = files.local_path()
        if path is None:
            system, parts = files.location()
            return cls(system, parts, None)
        return cls._local(path)

    @classmethod
    def of_source(cls, address: str) -> _Place:
        """Files of this machine are read whatever their names, also such as no output may have."""
        if is_remote_address(address) or "\0" in address:
            return cls.of(address)
        return cls._local(LocalStorage(path_in(address)).path)

    @classmethod
    def _local(cls, path: Path) -> _Place:
        real = Path(os.path.realpath(path))
        return cls("", real.parts, real)

    def relation_to(self, source: _Place) -> Relation | None:
        """Return how this place, an output, stands to an input."""
        if self.system != source.system:
            return None
        if self.local is None or source.local is None:
            return _relation_of_names(self.parts, source.parts)
        found = _state(source.local)
        if found is None or not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            return None
        if (by_name := _relation_of_names(self.parts, source.parts)) is not None:
            return by_name
        relation = self._relation_to_file(source.local)
        if relation is None and stat.S_ISDIR(found.st_mode) and is_there(self.local):
            relation = next(filter(None, map(self._relation_to_file, _linked_files(source.local))), None)
        return relation

    def _relation_to_file(self, path: Path) -> Relation | None:
        assert self.local is not None
        ours, theirs = _lineage(self.local), _lineage(Path(os.path.realpath(path)))
        if is_there(self.local) and ours[:1] == theirs[:1]:
            return "is"
        if path.is_dir() and theirs[0] in ours:
            return "lies in"
        state = _state(self.local)
        return "holds" if state is not None and stat.S_ISDIR(state.st_mode) and ours[0] in theirs else None


def _relation_of_names(output: tuple[str, ...], source: tuple[str, ...]) -> Relation | None:
    if output == source:
        return "is"
    if output[: len(source)] == source:
        return "lies in"
    return "holds" if source[: len(output)] == output else None


def _state(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _lineage(path: Path) -> list[File]:
    """Return the identity of a path, if it is there, and of the directories above it, nearest first."""
    states = [_state(each) for each in (path, *path.parents)]
    return [(state.st_dev, state.st_ino) for state in states if state is not None]


def _linked_files(folder: Path) -> Iterator[Path]:
    """Yield what lies in a folder but may have another name outside: links, and files with several names."""
    for root, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(root, name)
            try:
                state = path.lstat()
                if stat.S_ISLNK(state.st_mode):
                    path.stat()  # what leads nowhere is no input
                elif stat.S_ISDIR(state.st_mode) or state.st_nlink < 2:
                    continue
            except OSError:
                continue
            yield path
