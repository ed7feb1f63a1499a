"""The key of a group: one CURVE keypair per job, kept where only the run's owner can read it.

Every worker holds the same pair, as server and as client, and lets in nobody but holders of it: who can read the file
belongs to the group, a stranger on the network can neither join nor read (CurveZMQ, ZeroMQ RFC 26: every connection
has its own short-lived keys besides).
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
        """16 hex digits that name the key without telling it."""
        return hashlib.sha256(self.public).hexdigest()[:16]


def make_keys(private: Storage) -> Keys:
    """A new keypair, written to a storage of private files; if there is one already, that one."""
    public, secret = zmq.curve_keypair()
    facts = {"format_version": FORMAT_VERSION, "public": public.decode(), "secret": secret.decode()}
    if private.create(FILE, json.dumps(facts).encode() + b"\n"):
        return Keys(public, secret)
    return read_keys(private)


def read_keys(private: Storage) -> Keys:
    """The keypair that `make_keys` wrote. Raises `MismatchError` if the file is damaged."""
    place = f"{private.root}/{FILE}"
    try:
        facts = json.loads(private.read(FILE))
        keys = Keys(facts["public"].encode("ascii"), facts["secret"].encode("ascii"))
        if facts["format_version"] != FORMAT_VERSION or zmq.curve_public(keys.secret) != keys.public:
            raise ValueError("not a pair")
    except (ValueError, KeyError, TypeError, AttributeError, zmq.ZMQError) as error:
        raise MismatchError("not a group's key", file=place) from error
    return keys
