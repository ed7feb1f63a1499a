"""Decides which clients may connect to a worker's encrypted sockets: only those that hold the group's key.

This is a handler of the ZeroMQ Authentication Protocol (ZAP, ZeroMQ RFC 27). pyzmq's own `zmq.auth` would do as well,
but it imports asyncio, which costs every task 70 ms, and needs a thread of its own.
"""

from __future__ import annotations

import zmq
from zmq.utils import z85

ZAP_DOMAIN = b"group"
_ZAP_ADDRESS = "inproc://zeromq.zap.01"


class Authenticator:
    """Answers ZAP requests on a socket; the thread that polls the socket calls `answer` when a request is there."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], public: bytes) -> None:
        """``public``: the group's public key in Z85, which clients must hold."""
        self._allowed = public
        self.socket: zmq.Socket[bytes] = context.socket(zmq.REP)
        self.socket.bind(_ZAP_ADDRESS)

    def answer(self) -> None:
        """Read one request and accept or refuse the client that it is about."""
        version, request, domain, _, _, mechanism, *credentials = self.socket.recv_multipart()
        is_allowed = (
            version == b"1.0"
            and domain == ZAP_DOMAIN
            and mechanism == b"CURVE"
            and len(credentials) == 1
            and z85.encode(credentials[0]) == self._allowed
        )
        status, text = (b"200", b"OK") if is_allowed else (b"400", b"another key")
        self.socket.send_multipart([b"1.0", request, status, text, b"", b""])
