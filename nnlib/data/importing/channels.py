"""Arrays of images, shape (n, a, b, c): rows are stored channels first, (channels, height, width), as torch has them.

An image of one channel has the shape (height, width).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from nnlib.core.arrays import Array
from nnlib.core.errors import DataError
from nnlib.core.notes import note
from nnlib.data.importing.formats.arrays import ArrayColumn
from nnlib.data.importing.read_options import ReadOptions

CHANNELS = (1, 3, 4)
"""Numbers of channels by which an axis is recognized: grey, colour, colour with opacity."""

Shape = tuple[int, ...]


def with_channels_first(
    file: str, arrays: Mapping[str, ArrayColumn], features: Sequence[str], options: ReadOptions
) -> dict[str, ArrayColumn]:
    """Return the arrays, those of ``features`` whose rows have three axes with their channels first.

    ``options.channels`` says where they are, or else the sides, or the shape of the rows that a model wants. Raises
    `DataError` where they leave both ways.
    """
    return {name: _turned(file, name, array, options) if name in features else array for name, array in arrays.items()}


def _turned(file: str, name: str, array: ArrayColumn, options: ReadOptions) -> ArrayColumn:
    if len(array.shape) != 4 or array.dtype.kind not in "biuf":
        return array
    row = array.shape[1:]
    if not _are_last(file, name, row, options):
        return _reshaped(array, _plain(row), is_last=False) if row[0] == 1 else array
    turned = _plain((row[2], *row[:2]))
    if row[2] > 1:
        note(f"{file}: the channels of {name}, rows of {_shown(row)}, are last: rows become {_shown(turned)}")
    return _reshaped(array, turned, is_last=True)


def _are_last(file: str, name: str, row: Shape, options: ReadOptions) -> bool:
    ways = {"first": _plain(row), "last": _plain((row[2], *row[:2]))}
    if options.row_shape:
        fitting = [way for way, shape in ways.items() if shape == options.row_shape]
        if len(fitting) == 1:
            return fitting == ["last"]
        if not fitting:
            return False
    elif options.channels is None:
        fitting = [way for way, side in (("first", row[0]), ("last", row[2])) if side in CHANNELS]
        if len(fitting) < 2:
            return fitting == ["last"]
    if options.channels is None:
        raise DataError(
            f"rows of {_shown(row)} may have their channels first or last",
            hint="say which: --channels first, or --channels last",
            file=file,
            column=name,
        )
    return options.channels == "last"


def _reshaped(array: ArrayColumn, row: Shape, *, is_last: bool) -> ArrayColumn:
    def blocks(rows: int) -> Iterator[Array]:
        for block in array.blocks(rows):
            turned = np.ascontiguousarray(block.transpose(0, 3, 1, 2)) if is_last else block
            yield turned.reshape(len(block), *row)

    return ArrayColumn((array.shape[0], *row), array.dtype, blocks)


def _plain(row: Shape) -> Shape:
    """Return a shape with its channels first, without the axis of a single channel."""
    return row[1:] if row[0] == 1 else row


def _shown(row: Shape) -> str:
    return " x ".join(map(str, row))
