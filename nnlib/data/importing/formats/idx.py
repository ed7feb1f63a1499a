"""Read IDX files, plain or gzipped: the format of MNIST (http://yann.lecun.com/exdb/mnist/)."""

from __future__ import annotations

import contextlib
import gzip
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from nnlib.core.errors import DataError, UsageError
from nnlib.data.importing.channels import with_channels_first
from nnlib.data.importing.formats.arrays import ArrayColumn, array_table
from nnlib.data.importing.formats.table import Table
from nnlib.data.importing.read_options import ReadOptions

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MOST_INFLATION = 1032
"""Deflate cannot expand more than this, so a gzipped file's length bounds what its header may promise."""


def open_idx(files: Sequence[str], options: ReadOptions) -> list[Table]:
    """Open image files, each with the label file whose name fits.

    Several files get an extra column ``split`` (train or test), if their names say which they are. Raises `UsageError`
    for label files without images and `DataError` for files that are no IDX.
    """
    images = [file for file in files if "idx1" not in Path(file).name]
    if not images:
        raise UsageError("these are label files (idx1) only: name the image files (idx3)", file=files[0])
    if options.label is not None and len(images) > 1:
        raise UsageError("--label names one label file, but there are several image files", file=options.label)
    parts = [_part(file) for file in images]
    split = len(images) > 1 and None not in parts
    return [_table(file, options, part if split else None) for file, part in zip(images, parts, strict=True)]


def _part(file: str) -> str | None:
    name = Path(file).name
    return "train" if name.startswith("train") else "test" if name.startswith(("t10k", "test")) else None


def _table(file: str, options: ReadOptions, part: str | None) -> Table:
    arrays = {"x": idx_array(file)}
    labels = options.label or _labels_of(file)
    if labels is not None:
        arrays["y"] = idx_array(labels)
    if part is not None:
        values = np.broadcast_to(np.array(part), arrays["x"].shape[:1])
        arrays["split"] = ArrayColumn.of(values)
    arrays = with_channels_first(file, arrays, ["x"], options)
    return array_table(file, arrays, ["x"], "y" if labels else None, ("split",) if part else ())


def _labels_of(file: str) -> str | None:
    path = Path(file)
    name = path.name.replace("images", "labels").replace("idx3", "idx1")
    if name == path.name:
        return None
    for candidate in (name, name.removesuffix(".gz"), f"{name}.gz"):
        if path.with_name(candidate).is_file():
            return str(path.with_name(candidate))
    return None


@contextlib.contextmanager
def _opened(file: str) -> Iterator[IO[bytes]]:
    try:
        with Path(file).open("rb") as stream:
            packed = stream.read(2) == b"\x1f\x8b"
            stream.seek(0)
            if packed:
                with gzip.open(stream) as inflated:
                    yield inflated  # type: ignore[misc]
            else:
                yield stream
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"is not readable ({error})", file=file) from None


def idx_array(file: str) -> ArrayColumn:
    """Return the array of an IDX file, after its header was compared with the length of the file."""
    with _opened(file) as stream:
        magic = stream.read(4)
        if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES or magic[3] == 0:
            raise DataError(f"is not an IDX file: it begins with {magic.hex(' ')}", file=file)
        sides = stream.read(4 * magic[3])
        if len(sides) < 4 * magic[3]:
            raise DataError("ends within its header", file=file)
        shape = struct.unpack(f">{magic[3]}I", sides)
        dtype = np.dtype(_TYPES[magic[2]])
        header = 4 + len(sides)
        packed = isinstance(stream, gzip.GzipFile)
    promised = header + math.prod(shape) * dtype.itemsize
    length = Path(file).stat().st_size
    if (promised > length * _MOST_INFLATION) if packed else (promised != length):
        raise DataError(
            f"its header promises {' x '.join(map(str, shape))} values = {promised} bytes, the file has {length}",
            file=file,
        )

    def blocks(rows: int) -> Iterator[npt.NDArray[Any]]:
        row_bytes = math.prod(shape[1:]) * dtype.itemsize
        with _opened(file) as stream:
            stream.read(header)
            for start in range(0, shape[0], rows):
                count = min(rows, shape[0] - start)
                data = stream.read(count * row_bytes)
                if len(data) < count * row_bytes:
                    raise DataError(f"ends before row {shape[0]} that its header promises", file=file)
                yield np.frombuffer(data, dtype).reshape(count, *shape[1:])
            if stream.read(1):
                raise DataError(f"goes on after the {shape[0]} rows that its header promises", file=file)

    return ArrayColumn(shape, dtype, blocks)
