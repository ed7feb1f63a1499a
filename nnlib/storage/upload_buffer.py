"""A file of this machine that is written first, and then sent to a storage on others."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from typing import BinaryIO, cast

from nnlib.core.errors import StorageError


@contextlib.contextmanager
def upload_buffer() -> Iterator[BinaryIO]:
    """Yield a temporary file that can seek; it is gone when the block ends. Raises `StorageError` where there can be
    none."""
    try:
        buffer = tempfile.TemporaryFile(prefix="nnjobs-")  # noqa: SIM115  (closed below)
    except OSError as error:
        raise StorageError(f"cannot make a temporary file: {error}", hint="set TMPDIR") from error
    with buffer:
        yield cast(BinaryIO, buffer)


@contextlib.contextmanager
def writing_to(buffer: BinaryIO, address: str) -> Iterator[BinaryIO]:
    """Yield the buffer for a block that writes it, and flush it. Raises `StorageError` where the local disk fails or is
    full; ``address`` is what the buffer will become."""
    try:
        yield buffer
        buffer.flush()
    except OSError as error:
        raise StorageError(
            f"cannot write a temporary file: {error.strerror or error}",
            hint="set TMPDIR to a folder with space",
            file=address,
        ) from error
