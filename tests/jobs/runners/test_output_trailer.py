"""Sealed outputs: no cut and no flipped byte goes unnoticed."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from jobs.runners import output_trailer
from jobs.runners.output_trailer import SealedStream, unseal

LINES = [b"00000000.00000000\tsome\ttext\n", b"!end\t3\t00000000\n", b"x\ty\n"]  # one of them looks like a seal


def sealed(lines: list[bytes]) -> bytes:
    stream = io.BytesIO()
    output = SealedStream(stream)
    for line in lines:
        assert output.write(line) == len(line)
    output.seal()
    return stream.getvalue()


@pytest.mark.parametrize("lines", [[], LINES, LINES[:1], [b"a" * 70 + b"\n"], [b"no newline at the end"]])
def test_a_whole_file_gives_back_what_was_written(tmp_path: Path, lines: list[bytes]) -> None:
    path = tmp_path / "output"
    path.write_bytes(sealed(lines))
    assert unseal(path)
    assert path.read_bytes() == b"".join(lines)


def test_every_cut_is_noticed_and_changes_nothing(tmp_path: Path) -> None:
    path, whole = tmp_path / "output", sealed(LINES)
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert not unseal(path)
        assert path.read_bytes() == whole[:size]


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path, whole = tmp_path / "output", sealed(LINES)
    for position in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        assert not unseal(path), position


def test_lines_lost_added_or_moved_are_noticed(tmp_path: Path) -> None:
    path, whole = tmp_path / "output", sealed(LINES)
    last = whole.splitlines(keepends=True)[-1]
    for lines in (LINES[1:], LINES[:-1], [LINES[0], LINES[2]], LINES[::-1], [*LINES, LINES[0]], []):
        path.write_bytes(b"".join(lines) + last)
        assert not unseal(path)
    path.write_bytes(whole + b"more\n")
    assert not unseal(path)


def test_long_files_are_checked_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_trailer, "_CHUNK", 1000)
    path, text = tmp_path / "output", np.random.default_rng(0).bytes(12_345)
    path.write_bytes(sealed([text]))
    assert unseal(path)
    assert path.read_bytes() == text
