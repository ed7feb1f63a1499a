"""Columns of encoded images (PNG, JPEG ...) in Parquet and Arrow files, as the data sets of Hugging Face have them.

Such a column holds bytes, or structs of ``bytes`` and ``path``. All images get the form of the first one. Labels whose
names are in the file's metadata (``ClassLabel``) become these names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nnlib.core.arrays import Array
from nnlib.core.errors import DataError
from nnlib.core.liveness import heartbeat
from nnlib.core.notes import note
from nnlib.data.arrow import READ_ERRORS
from nnlib.data.arrow_types import is_bytes, plain_column, plain_type
from nnlib.data.columns import Column, Columns, RowOrigin
from nnlib.data.importing.formats.arrow_tables import ReadBatches
from nnlib.data.importing.formats.table import Role, Table, count_rows, rechunk, rows_per_chunk
from nnlib.data.importing.image_decoding import ImageForm, image_facts, wanted_form
from nnlib.data.importing.read_options import ReadOptions

_MAGIC = (b"\x89PNG\r\n", b"\xff\xd8\xff")
"""First bytes by which a column of plain bytes is one of images; as text they would be an error."""
_LABELS = ("label", "labels", "fine_label", "class", "y")
_PEEKED = 16
"""Rows that are read at a time until one has an image."""


@dataclass(frozen=True)
class _ImageColumn:
    """A column ``name`` of images. ``is_struct``: of structs with ``bytes``, else of bytes."""

    name: str
    is_struct: bool

    def of(self, batch: pa.RecordBatch) -> pa.Array:
        """Return the encoded images of a batch; null where one is missing."""
        column = batch.column(self.name)
        if self.is_struct:
            column = column.flatten()[column.type.get_field_index("bytes")]
        return plain_column(column).cast(pa.large_binary())


def with_images(table: Table, schema: pa.Schema, read: ReadBatches, options: ReadOptions) -> Table:
    """Return a table whose columns of encoded images are vectors of pixels; the same where it has none.

    ``read`` reads the file's columns as they are. Raises `DataError` for images without bytes and for damaged ones.
    """
    found = {}
    for field in schema:
        column = _ImageColumn(field.name, pa.types.is_struct(field.type))
        first = _first(column, read) if _may_be_images(field) else None
        if first is not None and (column.is_struct or first[1].startswith(_MAGIC)):
            found[column] = _form(table.file, column, first, options)
    if not found:
        return table
    shown = {f"{column.name}.bytes" if column.is_struct else column.name: column.name for column in found}
    names = _class_names(schema)
    label = next(iter(names), None) if len(names) == 1 else None
    label = label or next((name for name in _LABELS if name in table.columns), None)
    paths = [f"{column.name}.path" for column in found if f"{column.name}.path" in table.columns]
    shapes = {name: shape for name, shape in table.shapes.items() if name not in shown}
    forms = {column.name: form for column, form in found.items()}
    only = next(iter(forms.values()))

    def chunks(roles: Mapping[str, Role]) -> Iterator[Columns]:
        size = min(
            [rows_per_chunk(int(np.prod(form.shape))) for name, form in forms.items() if name in roles] or [65_536]
        )
        others: dict[str, Role] = {name: role for name, role in roles.items() if name not in forms}
        plain = {name: "value" if name in names else role for name, role in others.items()}
        wanted = [column for column in found if column.name in roles]
        streams = [rechunk(_encoded(table.file, column, read, size), size) for column in wanted]
        if plain or not streams:
            streams.append(rechunk(iter(table.chunks(plain)), size))
        start = 0
        for parts in zip(*streams, strict=True):
            origin, chunk = RowOrigin(table.file, start), dict[str, Column]()
            for column, part in zip(wanted, parts, strict=False):
                chunk[column.name] = _decoded(part[column.name], column.name, found[column], options, origin)
            if plain:
                chunk |= {name: _named(parts[-1][name], names.get(name), name, origin) for name in plain}
            start += count_rows(chunk)
            yield {name: chunk[name] for name in roles}

    return replace(
        table,
        columns=tuple(shown.get(name, name) for name in table.columns),
        chunks=chunks,
        shapes=shapes | {name: form.shape for name, form in forms.items()},
        types=dict(table.types) | dict.fromkeys(forms, "uint8") | dict.fromkeys(names, "string"),
        label=None if options.label is not None else label,  # the user's own goes first
        features=tuple(forms) if len(forms) == 1 else (),
        reading=replace(options, mode=only.mode) if len(forms) == 1 else options,
        key=tuple(paths) if len(forms) == 1 else (),
    )


def _may_be_images(field: pa.Field) -> bool:
    kind = field.type
    if pa.types.is_struct(kind):
        names = {each.name for each in kind}
        return names == {"bytes", "path"} and is_bytes(plain_type(kind.field("bytes").type))
    return bool(is_bytes(plain_type(kind)))


def _first(column: _ImageColumn, read: ReadBatches) -> tuple[int, bytes] | None:
    """Return the row and the bytes of the first image that is there."""
    row = 0
    for batch in read(_PEEKED, [column.name]):
        for value in column.of(batch).to_pylist():
            if value is not None:
                return row, value
            row += 1
        if row >= 4096:
            break
    return None


def _form(file: str, column: _ImageColumn, first: tuple[int, bytes], options: ReadOptions) -> ImageForm:
    row, data = first
    facts = image_facts(data, {"file": file, "row": row + 1, "column": column.name})
    wanted = wanted_form(options.row_shape, options.mode, options.resize, file)
    mode = options.mode or ("grey" if facts.is_grey else "rgb")
    return wanted or ImageForm(mode, options.resize or facts.size, options.resize is not None)


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Return the names of the classes by column, as the metadata of Hugging Face's ``datasets`` has them."""
    try:
        described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {
            name: [str(each) for each in feature["names"]]
            for name, feature in described.items()
            if feature.get("_type") == "ClassLabel" and name in schema.names and feature.get("names")
            if pa.types.is_integer(schema.field(name).type)
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _encoded(file: str, column: _ImageColumn, read: ReadBatches, rows: int) -> Iterator[Columns]:
    try:
        for batch in read(min(rows, 1024), [column.name]):
            yield {column.name: column.of(batch)}
    except READ_ERRORS as error:
        raise DataError(f"is not readable ({error})", file=file) from None


def _decoded(images: pa.Array, name: str, form: ImageForm, options: ReadOptions, origin: RowOrigin) -> Array:
    """Decode images, shape (n, width of a row) uint8."""
    pixels = np.empty((len(images), *form.shape), np.uint8)
    for row, value in enumerate(images):
        where = {"file": origin.file, "row": origin.row + row + 1, "column": name}
        data = value.as_py()
        if data is None:
            raise DataError("the image is missing", hint="leave out its row, or put its bytes into the file", **where)
        heartbeat()
        facts = image_facts(data, where)
        if form.mode == "grey" and not facts.is_grey and options.mode is None and not options.row_shape:
            raise DataError("has colours, the first image is grey", hint="say --mode rgb, or --mode grey", **where)
        if facts.has_opacity:
            note(f"{origin.file}: images have an opacity, which is left out")
        if facts.is_deep:
            note(f"{origin.file}: images have 16 bits a pixel, of which the upper 8 are kept")
        if facts.is_grey and form.mode == "rgb":
            note(f"{origin.file}: some images are grey, they become colour ones")
        pixels[row] = form.decode(data, where)
    return pixels.reshape(len(images), -1)


def _named(column: Column, names: Sequence[str] | None, name: str, origin: RowOrigin) -> Column:
    """Return labels as the names they stand for; -1 is a missing one. Raises `DataError` for a number without one."""
    if names is None:
        return column
    numbers: Any = pc.fill_null(plain_column(pa.array(column) if isinstance(column, np.ndarray) else column), -1)
    codes = numbers.to_numpy(zero_copy_only=False)
    bad = (codes < -1) | (codes >= len(names))
    if bad.any():
        row = int(bad.argmax())
        raise DataError(
            f"label {codes[row]} is none of the {len(names)} that the file names",
            file=origin.file,
            row=origin.row + row + 1,
            column=name,
        )
    return pa.array(names, pa.string()).take(pa.array(np.where(codes < 0, 0, codes), mask=codes < 0))
