"""The images below a folder, or in a zip or tar archive of one: which there are, and how each is opened.

Both are read alike: names are paths with slashes, in bytewise order, so an archive gives the rows of its folder.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa

from nnlib.core.errors import DataError
from nnlib.core.listing import listed
from nnlib.core.liveness import heartbeat
from nnlib.core.notes import note
from nnlib.data.importing.compression import READ_ERRORS, compression_of, open_plain, read_head
from nnlib.data.importing.formats.arrays import PARTS
from nnlib.data.importing.image_decoding import MOST_BYTES

_PART_BYTES = 1 << 20

IMAGE_NAME = re.compile(r"\.(png|jpe?g|bmp|gif|webp|tiff?|p[bgpn]m)$", re.IGNORECASE)
"""The ends of names that images have."""

_OF_SYSTEMS = {"thumbs.db", "desktop.ini", "__macosx", "ehthumbs.db", "$recycle.bin"}
"""Files and folders, in lower case, that systems of desktops leave behind, besides hidden ones."""


class ImageTree(Protocol):
    """Files below a root, named by their paths from it."""

    root: str

    def names(self) -> tuple[list[str], list[str]]:
        """Return the paths of all files, and those of all folders; neither are hidden. Raises `DataError` where some
        cannot be read."""
        ...

    def open(self, name: str) -> contextlib.AbstractContextManager[IO[bytes]]:
        """Open a file. Raises `DataError` if it cannot be read, or is larger than an image may be."""
        ...

    def shown(self, name: str) -> str:
        """Return what messages call a file."""
        ...


def open_tree(source: str) -> ImageTree:
    """Open a folder, an archive of one, or a single image as a tree. Raises `DataError` for what is none of them."""
    if Path(source).is_dir():
        return FolderTree(source)
    if IMAGE_NAME.search(source):
        return SingleImage(source)
    kind = compression_of(read_head(source))
    return ZipTree(source) if kind == "zip" else TarTree(source)


def is_skipped(name: str) -> bool:
    """Return whether a file or folder is hidden, a marker (``_SUCCESS``), or one that a system leaves behind."""
    if name.startswith("_") and IMAGE_NAME.search(name):
        note("images whose names begin with _ are skipped")
    return name.startswith((".", "_")) or name.lower() in _OF_SYSTEMS


class FolderTree:
    """The files below a folder of this machine. Links are followed, but not around in a circle."""

    def __init__(self, root: str) -> None:
        self.root = root

    def names(self) -> tuple[list[str], list[str]]:
        """See `ImageTree.names`."""
        files: list[str] = []
        folders: list[str] = []
        self._collect("", (), files, folders)
        return files, folders

    def _collect(self, folder: str, above: tuple[tuple[int, int], ...], files: list[str], folders: list[str]) -> None:
        path = Path(self.root, folder)
        try:
            here = path.stat()
            if (here.st_dev, here.st_ino) in above:
                raise DataError("is a link to a folder that it lies in", file=self.shown(folder))
            for name in os.listdir(path):
                if is_skipped(name):
                    continue
                inner = f"{folder}/{name}" if folder else name
                mode = os.stat(f"{self.root}/{inner}").st_mode  # noqa: PTH116
                if stat.S_ISDIR(mode):
                    folders.append(inner)
                    self._collect(inner, (*above, (here.st_dev, here.st_ino)), files, folders)
                elif stat.S_ISREG(mode):
                    files.append(inner)
                else:
                    raise DataError("is neither a file nor a folder", file=self.shown(inner))
        except OSError as error:
            raise DataError(f"is not readable ({error.strerror})", file=error.filename or self.shown(folder)) from None

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """See `ImageTree.open`."""
        path = Path(self.root, name)
        try:
            _check_size(path.stat().st_size, self.shown(name))
            stream = path.open("rb")
        except OSError as error:
            raise DataError(f"is not readable ({error.strerror})", file=self.shown(name)) from None
        with stream:
            yield stream

    def shown(self, name: str) -> str:
        """See `ImageTree.shown`."""
        return printable(f"{self.root.rstrip('/')}/{name}" if name else self.root)


class SingleImage(FolderTree):
    """One image as a tree of one file."""

    def __init__(self, file: str) -> None:
        path = Path(file)
        super().__init__(str(path.parent))
        self._name = path.name

    def names(self) -> tuple[list[str], list[str]]:
        """See `ImageTree.names`."""
        return [self._name], []


class _ArchiveTree:
    """The files in an archive: its members by their paths, and its folders."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._folders: dict[str, None] = {}
        self._members: dict[str, Any] = {}

    def names(self) -> tuple[list[str], list[str]]:
        """See `ImageTree.names`."""
        return list(self._members), list(self._folders)

    def shown(self, name: str) -> str:
        """See `ImageTree.shown`."""
        return printable(f"{self.root}:{name}")

    def _add(self, path: str, member: Any) -> None:
        """Add a file by its path in the archive, or with ``member`` None a folder, unless they are hidden."""
        parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
        if not parts or any(map(is_skipped, parts)):
            return
        folders = parts if member is None else parts[:-1]
        self._folders |= dict.fromkeys("/".join(folders[: end + 1]) for end in range(len(folders)))
        if member is None:
            return
        name = "/".join(parts)
        if name in self._members:
            raise DataError("is in the archive twice", file=self.shown(name))
        self._members[name] = member


class ZipTree(_ArchiveTree):
    """The files in a zip archive."""

    def __init__(self, root: str) -> None:
        """Read the archive's list of files. Raises `DataError` if it is damaged or encrypted."""
        super().__init__(root)
        try:
            self._archive = zipfile.ZipFile(root)
        except (*READ_ERRORS, UnicodeDecodeError, ValueError) as error:
            raise DataError(f"is not a readable zip archive ({error})", file=root) from None
        for info in self._archive.infolist():
            if info.flag_bits & 1:
                raise DataError("is an encrypted zip archive", hint="unpack it first", file=root)
            self._add(info.filename, None if info.is_dir() else info)

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """See `ImageTree.open`."""
        info = self._members[name]
        _check_size(info.file_size, self.shown(name))
        try:
            data = self._archive.read(info)
        except (*READ_ERRORS, ValueError) as error:
            raise DataError(f"is not readable ({error})", file=self.shown(name)) from None
        yield io.BytesIO(data)


class TarTree(_ArchiveTree):
    """The files in a tar archive. A compressed one is unpacked into a temporary file: images are read in any order."""

    def __init__(self, root: str) -> None:
        """Read the archive's list of files. Raises `DataError` if it is damaged, or holds links."""
        super().__init__(root)
        try:
            if compression_of(read_head(root)) is None:
                self._archive = tarfile.open(root, "r:")  # noqa: SIM115  (open as long as the tree is used)
            else:
                plain = tempfile.TemporaryFile()  # noqa: SIM115
                with open_plain(root) as stream:
                    while part := stream.read(_PART_BYTES):
                        heartbeat()
                        plain.write(part)
                plain.seek(0)
                self._archive = tarfile.open(fileobj=plain, mode="r:")  # noqa: SIM115
            for member in self._archive:
                heartbeat()
                if member.isdir() or member.isreg():
                    self._add(member.name, member if member.isreg() else None)
                elif not is_skipped(member.name.rpartition("/")[2]):
                    raise DataError("is neither a file nor a folder", file=self.shown(member.name))
        except (*READ_ERRORS, tarfile.TarError, pa.ArrowException, ValueError) as error:
            raise DataError(f"is not a readable tar archive ({error})", file=root) from None

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """See `ImageTree.open`."""
        member = self._members[name]
        _check_size(member.size, self.shown(name))
        try:
            stream = self._archive.extractfile(member)
            data = b"" if stream is None else stream.read()
        except (*READ_ERRORS, tarfile.TarError) as error:
            raise DataError(f"is not readable ({error})", file=self.shown(name)) from None
        yield io.BytesIO(data)


def _check_size(size: int, shown: str) -> None:
    if size > MOST_BYTES:
        raise DataError(f"has {size:,} bytes, an image may have {MOST_BYTES:,}", file=shown)


def printable(name: str) -> str:
    """Return a name with what is no UTF-8 in it written as ``\\xff``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class ImageFile:
    """An image of a tree: its path there, its class and its part of the rows; None where folders do not say them."""

    name: str
    label: str | None
    part: str | None


def list_images(tree: ImageTree) -> list[ImageFile]:
    """Return the images of a tree, in bytewise order of their paths, the training rows first.

    A folder at the top is a class; folders named as parts (train, validation, test) hold the classes. One folder that
    holds all others is passed over. Raises `DataError` for files that are no images, for images beside the folders of
    classes, for a class without images, and where there is none.
    """
    files, folders = tree.names()
    others = [name for name in files if not IMAGE_NAME.search(name)]
    if others:
        shown = listed(sorted(map(printable, others)), 5)
        raise DataError(
            f"holds files that are no images by name: {shown}",
            hint="move them elsewhere, or rename them",
            file=tree.root,
        )
    files = sorted((name for name in files if IMAGE_NAME.search(name)), key=os.fsencode)
    if not files:
        raise DataError(
            "there is no image", hint="a class is a folder of images: folder/CLASS/name.png", file=tree.root
        )
    top = _top(files, folders)
    below = [name.removeprefix(top) for name in files]
    if not any("/" in name for name in below):
        return [ImageFile(name, None, None) for name in files]
    classes, is_split = _classes(folders, top)
    found: dict[str, int] = dict.fromkeys(classes, 0)
    images = []
    for file, name in zip(files, below, strict=True):
        class_ = next((each for each in _parents(name) if each in found), None)
        if class_ is None:
            raise DataError("lies beside the folders of the classes, not in one", file=tree.shown(file))
        found[class_] += 1
        label, part = _last(class_), PARTS[class_.partition("/")[0].lower()] if is_split else None
        if printable(label) != label:
            raise DataError("its name is not UTF-8, so it names no class", file=tree.shown(top + class_))
        images.append(ImageFile(file, label, part))
    if empty := next((class_ for class_, count in found.items() if not count), None):
        raise DataError(
            "there is no image of this class", hint="delete the folder, or fill it", file=tree.shown(top + empty)
        )
    order = list(dict.fromkeys(PARTS.values()))
    return sorted(images, key=lambda image: 0 if image.part is None else order.index(image.part))


def _top(files: Sequence[str], folders: Sequence[str]) -> str:
    """Return the path, with a slash at its end, of the folder that holds the folders of the classes or parts.

    A folder that is alone at the top and holds only folders is no class.
    """
    top = ""
    while True:
        inside = {name.removeprefix(top).partition("/")[0] for name in [*files, *folders] if name.startswith(top)} - {
            ""
        }
        only = next(iter(inside)) if len(inside) == 1 else None
        if only is None or f"{top}{only}" not in folders:
            return top
        if any(name.rpartition("/")[0] == f"{top}{only}" for name in files):
            return top
        top = f"{top}{only}/"


def _classes(folders: Sequence[str], top: str) -> tuple[list[str], bool]:
    """Return the paths of the classes' folders, in order, and whether folders of parts hold them."""
    below = sorted((name.removeprefix(top) for name in folders if name.startswith(top)), key=os.fsencode)
    first = [name for name in below if name and "/" not in name]
    second = [name for name in below if name.count("/") == 1]
    are_parts = all(name.lower() in PARTS for name in first) and {name.partition("/")[0] for name in second} == set(
        first
    )
    return (second, True) if are_parts else (first, False)


def _parents(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


def _last(name: str) -> str:
    return name.rpartition("/")[2]
