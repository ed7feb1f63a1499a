"""Lines between tasks: what a mapper writes, a reducer reads and the driver collects.

A line is ``key TAB value``. Keys are ``trial.slice`` in zero-padded digits, so that sorting text sorts numbers; values
begin with the zero-padded worker, so that sorted values come in worker order. A vector travels as base64 of its
little-endian bytes with the layout's fingerprint and a CRC over every other byte of the line; a record as one line of
JSON. Nothing here is ever a pickle.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from dataclasses import dataclass

import numpy as np

from jobs.runners.lines import WORKER_DIGITS
from nnlib.aggregation.average import Partial
from nnlib.aggregation.delta import restore
from nnlib.aggregation.quantization import ENCODINGS, Precision
from nnlib.core.arrays import Vector
from nnlib.core.entries import BUFFER_DTYPES
from nnlib.core.errors import MismatchError

DTYPES = {np.dtype(name).str[1:]: np.dtype(name).newbyteorder("<") for name in BUFFER_DTYPES}
"""A dtype's code in a line, such as ``f4`` or ``i8`` -> the dtype."""

_SLICE_KEY = re.compile(rb"(\d{8})\.(\d{8})")


@dataclass(frozen=True, order=True)
class SliceKey:
    """Slice ``index`` of a trial's vectors: a position in `nnlib.core.layout.Layout.slices`."""

    trial: int
    index: int

    def encode(self) -> bytes:
        """The key's bytes: both numbers in zero-padded digits."""
        return b"%0*d.%0*d" % (WORKER_DIGITS, self.trial, WORKER_DIGITS, self.index)

    @classmethod
    def decode(cls, key: bytes) -> SliceKey:
        """The inverse of `encode`. Raises `MismatchError`."""
        numbers = _SLICE_KEY.fullmatch(key)
        if numbers is None:
            raise MismatchError(f"not a slice key: {key[:60]!r}")
        return cls(int(numbers[1]), int(numbers[2]))


def encode_partial(key: bytes, partial: Partial, delta: tuple[Precision, bytes] | None = None) -> bytes:
    """Write a partial as ``worker TAB code TAB examples TAB fingerprint TAB crc TAB base64``.

    The code is the values' dtype. With ``delta`` (precision, bytes of `nnlib.aggregation.delta.Delta.cut`) it is that
    precision, and those bytes travel instead of the values.
    """
    code: str
    if delta is not None:
        code, data = delta
    else:
        code = partial.weights.dtype.str[1:]
        data = np.ascontiguousarray(partial.weights, DTYPES[code]).tobytes()
    text = base64.b64encode(data)
    head = b"%0*d\t%s\t%d\t%s" % (
        WORKER_DIGITS,
        partial.worker,
        code.encode(),
        partial.examples,
        partial.fingerprint.encode(),
    )
    return b"%s\t%s\t%s" % (head, _checksum(key, head, text), text)


def decode_partial(key: bytes, value: bytes, start: Vector | None = None) -> Partial:
    """Read what `encode_partial` wrote; ``start`` are the slice's weights that a delta is added to.

    Raises `MismatchError` on anything damaged, cut or of another form.
    """
    fields = value.rstrip(b"\t\r\n").split(b"\t")
    if len(fields) == 5:
        fields.append(b"")  # the base64 of no elements
    try:
        worker, code, examples, fingerprint, checksum, text = fields
        if checksum != _checksum(key, b"\t".join(fields[:4]), text):
            raise MismatchError("checksum of a line is wrong: it was damaged on its way", key=_shown(key))
        data, kind = base64.b64decode(text, validate=True), code.decode("ascii")
        weights = np.frombuffer(data, DTYPES[kind]) if kind in DTYPES else _restored(data, start, kind)
        partial = Partial(int(worker), int(examples), weights, fingerprint.decode("ascii"))
    except (ValueError, KeyError, binascii.Error) as error:
        raise MismatchError(f"not a partial: {value[:60]!r} ({len(value)} bytes)", key=_shown(key)) from error
    return partial


def _restored(data: bytes, start: Vector | None, precision: str) -> Vector:
    """A slice's weights: slices begin on edges of blocks, so its scales are those of the whole vector."""
    if start is None:
        raise ValueError("a delta without the weights it is added to")
    for known in ENCODINGS:
        if known == precision:
            return restore(data, start, slice(0, len(start)), known)
    raise ValueError(precision)


def _checksum(key: bytes, head: bytes, text: bytes) -> bytes:
    """Over the text, not the numbers: base64 has several spellings of the same bytes."""
    return b"%08x" % zlib.crc32(text, zlib.crc32(b"%s\t%s\t" % (key, head)))


def _shown(key: bytes) -> str:
    return key[:40].decode("ascii", "backslashreplace")
