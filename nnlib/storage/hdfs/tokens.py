"""Reads the file of delegation tokens that YARN puts into a container, where ``HADOOP_TOKEN_FILE_LOCATION`` says.

Hadoop's ``Credentials.readTokenStorageStream`` documents the format: ``HDTS``, a byte for the serialization (0:
Hadoop's Writables, 1: Protocol Buffers), then tokens and other secrets by name. A token is what WebHDFS takes as its
``delegation`` parameter, so a task needs no ticket and no JVM.
"""

from __future__ import annotations

import base64
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nnlib.core.errors import StorageError, UsageError

VARIABLE = "HADOOP_TOKEN_FILE_LOCATION"
MAGIC = b"HDTS"
HDFS_KINDS = ("HDFS_DELEGATION_TOKEN", "WEBHDFS delegation", "SWEBHDFS delegation")
RPC_PORT = 8020
"""Of a NameNode whose address names none."""


@dataclass(frozen=True)
class Token:
    """A delegation token: ``service`` is who accepts it (``IP:PORT``, ``HOST:PORT`` or ``ha-hdfs:NAMESERVICE``)."""

    kind: str
    service: str
    identifier: bytes = field(repr=False)
    password: bytes = field(repr=False)

    def to_url(self) -> str:
        """Return the token as a parameter of an address, as Hadoop's ``Token.encodeToUrlString`` writes it."""
        parts = (self.identifier, self.password, self.kind.encode(), self.service.encode())
        data = b"".join(_vint(len(part)) + part for part in parts)
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    @property
    def owner(self) -> str:
        """The principal that the token stands for; "" for a token of another make."""
        return self._owner_and_end()[0]

    @property
    def end(self) -> float:
        """When it can be renewed no more, in seconds since 1970; infinite for a token of another make."""
        return self._owner_and_end()[1]

    def _owner_and_end(self) -> tuple[str, float]:
        try:
            reader = _Writables(self.identifier)
            if reader.take(1) != b"\0":  # the version of Hadoop's AbstractDelegationTokenIdentifier
                return "", float("inf")
            owner, _, _ = reader.text(), reader.text(), reader.text()  # renewer and real user follow the owner
            reader.vint()  # when it was issued
            return owner, reader.vint() / 1000
        except (ValueError, UnicodeDecodeError):
            return "", float("inf")


def task_tokens() -> list[Token]:
    """Return the tokens of the job that this process is a task of; [] outside a job of a cluster with Kerberos."""
    path = os.environ.get(VARIABLE)
    return [] if not path else read_token_file(Path(path))


def read_token_file(path: Path) -> list[Token]:
    """Return the tokens of a file. Raises `StorageError` where it cannot be read or is none."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StorageError(f"the file of the job's tokens cannot be read: {error.strerror}", file=str(path)) from error
    try:
        return parse_tokens(data)
    except ValueError as error:
        raise StorageError(f"not a file of Hadoop's tokens: {error}", file=str(path)) from None


def parse_tokens(data: bytes) -> list[Token]:
    """Return the tokens in the content of a token file. Raises `ValueError` for other content."""
    if data[:4] != MAGIC or len(data) < 5:
        raise ValueError("it does not begin with HDTS")
    if data[4] == 0:
        return list(_from_writables(_Writables(data[5:])))
    if data[4] == 1:
        return list(_from_protocol_buffers(data[5:]))
    raise ValueError(f"its serialization {data[4]} is unknown (0 and 1 are known)")


def hdfs_token(tokens: list[Token], authority: str) -> Token:
    """Return the token that an HDFS takes: that of its address, else the only one for any HDFS.

    ``authority``: ``HOST:PORT``, ``HOST`` or a nameservice. Raises `UsageError` where there is none.
    """
    ours = [token for token in tokens if token.kind in HDFS_KINDS]
    services = _services(authority)
    for token in ours:
        if token.service in services:
            return token
    if len({(token.identifier, token.password) for token in ours}) == 1:
        return ours[0]
    have = ", ".join(sorted(f"{token.kind} of {token.service}" for token in tokens)) or "none"
    raise UsageError(
        f"the job has no delegation token for the HDFS at {authority} (it has: {have})",
        hint=f'runtime.hadoop.jobconf: {{mapreduce.job.hdfs-servers: "hdfs://{authority}"}} makes Hadoop fetch one',
    )


def _services(authority: str) -> set[str]:
    """The names by which tokens may call an HDFS."""
    host, _, port = authority.rpartition(":") if re.search(r":\d+$", authority) else (authority, "", str(RPC_PORT))
    names = {f"ha-hdfs:{authority}", f"{host}:{port}".lower()}
    try:
        found = socket.getaddrinfo(host, None, socket.AF_INET)
    except OSError:  # a nameservice is no host
        return names
    return names | {f"{address[4][0]}:{port}" for address in found}


class _Writables:
    """Reads what Hadoop's Writables have written."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> bytes:
        if count < 0 or self._at + count > len(self._data):
            raise ValueError("it ends too early")
        self._at += count
        return self._data[self._at - count : self._at]

    def vint(self) -> int:
        """An integer as ``WritableUtils.writeVLong`` writes it: small ones are one byte, of others the first says how
        many follow and whether it is negative."""
        first = int.from_bytes(self.take(1), signed=True)
        if first >= -112:
            return first
        negative = first < -120
        value = int.from_bytes(self.take(-120 - first if negative else -112 - first))
        return ~value if negative else value

    def sized(self) -> bytes:
        return self.take(self.vint())

    def text(self) -> str:
        return self.sized().decode()


def _vint(value: int) -> bytes:
    if value <= 127:
        return bytes([value])
    length = (value.bit_length() + 7) // 8
    return (-112 - length).to_bytes(1, signed=True) + value.to_bytes(length)


def _from_writables(reader: _Writables) -> Iterator[Token]:
    for _ in range(reader.vint()):
        reader.text()  # the name by which it is stored
        identifier, password = reader.sized(), reader.sized()
        kind, service = reader.text(), reader.text()
        yield Token(kind, service, identifier, password)


def _from_protocol_buffers(data: bytes) -> Iterator[Token]:
    """``CredentialsProto`` of Hadoop's Security.proto, behind its length."""
    length, start = _varint(data, 0)
    if start + length > len(data):
        raise ValueError("it ends too early")
    for number, entry in _fields(data[start : start + length]):
        if number == 1:
            for part, token in _fields(entry):
                if part == 2:
                    parts = dict(_fields(token))
                    identifier, password = parts.get(1, b""), parts.get(2, b"")
                    yield Token(parts.get(3, b"").decode(), parts.get(4, b"").decode(), identifier, password)


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a message all of whose fields are bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        if key & 7 != 2:
            raise ValueError(f"a field of wire type {key & 7}")
        length, at = _varint(data, at)
        if at + length > len(data):
            raise ValueError("it ends too early")
        yield key >> 3, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data):
            raise ValueError("it ends too early")
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
