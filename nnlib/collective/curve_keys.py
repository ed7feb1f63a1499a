"""The key of a group: one CURVE keypair per job, kept where only the run's owner can read it.

Every worker uses the same pair, as server and as client, and accepts only clients that hold it. Anyone who can read the
file belongs to the group, and a stranger on the network can neither join nor read (CurveZMQ, ZeroMQ RFC 26; every
connection also has short-lived keys of its own).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

import zmq

from nnlib.core.errors import MismatchError
from nnlib.storage import Storage

FILE = "key.json"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Keys:
    """A CURVE keypair in Z85 (40 characters each). The secret is in no `repr`."""

    public: bytes
    secret: bytes = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """16 hex digits that identify the key without revealing it."""
        return hashlib.sha256(self.public).hexdigest()[:16]


def make_keys(private: Storage) -> Keys:
    """Write a new keypair to a storage of private files and return it; if there is one already, return that one."""
    public, secret = zmq.curve_keypair()
    record = {"format_version": FORMAT_VERSION, "public": public.decode(), "secret": secret.decode()}
    if private.create(FILE, json.dumps(record).encode() + b"\n"):
        return Keys(public, secret)
    return read_keys(private)


def read_keys(private: Storage) -> Keys:
    """Return the keypair that `make_keys` wrote. Raises `MismatchError` if the file is damaged."""
    path = f"{private.root}/{FILE}"
    try:
        record = json.loads(private.read(FILE))
        keys = Keys(record["public"].encode("ascii"), record["secret"].encode("ascii"))
        if record["format_version"] != FORMAT_VERSION or zmq.curve_public(keys.secret) != keys.public:
            raise ValueError("not a pair")
    except (ValueError, KeyError, TypeError, AttributeError, zmq.ZMQError) as error:
        raise MismatchError("not a group's key", file=path) from error
    return keys
