"""Lines between tasks carry every bit, sort as their numbers do, and are refused when a bit of them is wrong."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobs.mapreduce.wire import SliceKey, decode_partial, encode_partial
from jobs.runners.lines import ERROR_KEY, LineProtocol, decode_record, encode_record
from nnlib.aggregation.average import Partial
from nnlib.core.errors import MismatchError
from nnlib.core.layout import BLOCK

KEY = SliceKey(3, 17).encode()
SMALL = Partial(2, 1500, np.array([1.5, -0.0, 3e-40, 7.25], np.float32), "0123456789abcdef")


def same(one: Partial, two: Partial) -> bool:
    return (one.worker, one.examples, one.fingerprint, one.weights.dtype, one.weights.tobytes()) == (
        two.worker,
        two.examples,
        two.fingerprint,
        two.weights.dtype,
        two.weights.tobytes(),
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [0, 1, 2, 3, BLOCK - 1, BLOCK, BLOCK + 1])
@pytest.mark.parametrize("tail", [b"", b"\t", b"\r\n", b"\t\n"])
def test_round_trip(dtype: str, size: int, tail: bytes) -> None:
    weights = np.random.default_rng(size).standard_normal(size).astype(dtype)
    partial = Partial(99_999_999, 2**53, weights, "f" * 16)
    value = encode_partial(KEY, partial)
    assert b"\n" not in value and b"\r" not in value
    assert same(decode_partial(KEY, value + tail), partial)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_bit_pattern_survives(dtype: str) -> None:
    kind: Any = {"float32": np.uint32, "float64": np.uint64}[dtype]
    info = np.iinfo(kind)
    words = np.random.default_rng(0).integers(0, info.max, 1000, kind, endpoint=True)
    special = np.array([np.nan, -np.nan, np.inf, -0.0, np.finfo(dtype).smallest_subnormal], dtype)
    weights = np.concatenate([words.view(dtype), special])
    assert same(decode_partial(KEY, encode_partial(KEY, Partial(0, 1, weights, "a"))), Partial(0, 1, weights, "a"))


def test_the_format_is_what_it_was() -> None:
    # Written out, so that a change of the format is a decision and not an accident.
    text = base64.b64encode(np.array([1.0, -2.0], "<f4").tobytes())
    head = b"00000003.00000017\t00000002\tf4\t1500\t0123456789abcdef\t"
    crc = b"%08x" % zlib.crc32(head + text)
    value = encode_partial(
        b"00000003.00000017", Partial(2, 1500, np.array([1.0, -2.0], np.float32), "0123456789abcdef")
    )
    assert (
        LineProtocol().write(b"00000003.00000017", value)
        == head + crc + b"\t" + text
        == (b"00000003.00000017\t00000002\tf4\t1500\t0123456789abcdef\t%s\tAACAPwAAAMA=" % crc)
    )


def test_text_order_is_number_order() -> None:
    numbers = [0, 1, 2, 9, 10, 11, 99, 100, 65_535, 99_999_999]
    keys = [SliceKey(trial, index) for trial in numbers for index in numbers]
    assert sorted(key.encode() for key in keys) == [key.encode() for key in sorted(keys)]
    assert [SliceKey.decode(key.encode()) for key in keys] == keys
    assert min(key.encode() for key in keys) > ERROR_KEY


def test_sorted_lines_come_in_worker_order() -> None:
    workers = [100, 0, 9, 12_345, 2, 11, 1, 10]
    values = [encode_partial(KEY, Partial(worker, 10**worker % 97 + 1, SMALL.weights, "x")) for worker in workers]
    assert [decode_partial(KEY, value).worker for value in sorted(values)] == sorted(workers)
    records = [encode_record(worker, {"a": -worker}) for worker in workers]
    assert [decode_record(value)[0] for value in sorted(records)] == sorted(workers)


def flipped(line: bytes) -> list[bytes]:
    result = []
    for place in range(len(line)):
        for bit in range(8):
            damaged = bytearray(line)
            damaged[place] ^= 1 << bit
            result.append(bytes(damaged))
    return result


@pytest.mark.parametrize("size", [1, 2, 3, 4])  # every length of base64's padding
def test_every_flipped_bit_is_refused(size: int) -> None:
    protocol = LineProtocol()
    line = protocol.write(KEY, encode_partial(KEY, Partial(2, 1500, SMALL.weights[:size], "0123456789abcdef")))
    for damaged in flipped(line):
        with pytest.raises(MismatchError):
            decode_partial(*protocol.read(damaged))


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.binary(min_size=4, max_size=4000), st.integers(0, 10**9), st.integers(0, 10**9))
def test_larger_lines_refuse_any_flipped_byte(data: bytes, place: int, change: int) -> None:
    weights = np.frombuffer(data[: len(data) // 4 * 4], np.float32)
    line = bytearray(LineProtocol().write(KEY, encode_partial(KEY, Partial(1, 5, weights, "abc"))))
    line[place % len(line)] ^= 1 + change % 255
    with pytest.raises(MismatchError):
        decode_partial(*LineProtocol().read(bytes(line)))


def test_cut_lines_are_refused() -> None:
    value = encode_partial(KEY, SMALL)
    for end in range(len(value)):
        with pytest.raises(MismatchError):
            decode_partial(KEY, value[:end])
    with pytest.raises(MismatchError):
        decode_partial(KEY, value + b"AAAA")
    with pytest.raises(MismatchError):
        decode_partial(KEY, value + b"\tAAAA")


def test_another_keys_value_is_refused() -> None:
    value = encode_partial(KEY, SMALL)
    with pytest.raises(MismatchError, match="checksum") as caught:
        decode_partial(SliceKey(3, 18).encode(), value)
    assert caught.value.where["key"] == "00000003.00000018"


def signed(head: bytes, text: bytes) -> bytes:
    """A value whose checksum is right, whatever it says."""
    return b"%s\t%08x\t%s" % (head, zlib.crc32(KEY + b"\t" + head + b"\t" + text), text)


@pytest.mark.parametrize(
    ("head", "text"),
    [
        (b"00000002\tf4\t5\tabc", b"AAA"),  # not base64
        (b"00000002\tf4\t5\tabc", b"AA*A"),
        (b"00000002\tf4\t5\tabc", b"AAAA"),  # 3 bytes
        (b"00000002\tf8\t5\tabc", b"AAAAAA=="),  # 4 bytes
        (b"00000002\tf3\t5\tabc", b"AAAAAA=="),
        (b"00000002\t\xff\t5\tabc", b"AAAAAA=="),
        (b"00000002\tf4\t5\t\xff", b"AAAAAA=="),
        (b"00000002\tf4\t" + b"9" * 5000 + b"\tabc", b"AAAAAA=="),
        (b"9" * 5000 + b"\tf4\t5\tabc", b"AAAAAA=="),
        (b"\tf4\t5\tabc", b"AAAAAA=="),
        (b"00000002\tf4\t1.5\tabc", b"AAAAAA=="),
        (b"00000002\tf4\t5", b"AAAAAA=="),
    ],
)
def test_well_signed_nonsense_is_refused(head: bytes, text: bytes) -> None:
    with pytest.raises(MismatchError):
        decode_partial(KEY, signed(head, text))


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.binary(max_size=40), st.binary(max_size=120))
@example(b"5.", b"")
@example(b".5", b"")
@example(b"9" * 5000 + b"." + b"9" * 5000, b"")
@example("\u0663.\u0663".encode(), b"")
@example(KEY, b"1\t" + b"[" * 100_000)
@example(KEY, b"1\t" + b"9" * 5000)
@example(KEY, b"1\t\xff\xfe{")
@example(KEY, b"\t{}")
@example(KEY, b"1\t[]")
def test_any_bytes_are_read_or_refused(key: bytes, value: bytes) -> None:
    for read in (lambda: SliceKey.decode(key), lambda: decode_partial(key, value), lambda: decode_record(value)):
        try:
            read()
        except MismatchError as error:
            assert len(str(error)) < 600
    assert LineProtocol().read(LineProtocol().write(b"key", value)) == (b"key", value)


@pytest.mark.parametrize("key", [b"1.2", b"000000001.00000002", b"00000001.00000002\n", b"-0000001.00000002", b""])
def test_keys_of_another_form_are_refused(key: bytes) -> None:
    with pytest.raises(MismatchError, match="not a slice key"):
        SliceKey.decode(key)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(st.integers(0, 10**8 - 1), st.dictionaries(st.text(), JSON, max_size=5))
@example(1, {"message": "tab\t, line\n, \u2028, emoji \U0001f600, lone \ud800"})
def test_records(worker: int, record: dict[str, Any]) -> None:
    value = encode_record(worker, record)
    assert value.isascii() and b"\n" not in value and b"\r" not in value and value.count(b"\t") == 1
    assert decode_record(value) == decode_record(value + b"\t\n") == (worker, record)
    shuffled = dict(sorted(record.items(), reverse=True))
    assert encode_record(worker, shuffled) == value
    assert json.loads(value.partition(b"\t")[2]) == record
