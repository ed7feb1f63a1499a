"""A worker's own sockets: bound to free ports before the workers connect, so that any number of jobs share a host."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache

import zmq

from nnlib.collective.authenticator import ZAP_DOMAIN, Authenticator
from nnlib.collective.curve_keys import Keys
from nnlib.collective.rendezvous import Route
from nnlib.core.errors import JobError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


@cache
def keep_freed_memory() -> None:
    """Make the C library keep the memory of messages for the next ones, up to 64 MiB for each of its arenas.

    By default glibc returns buffers of this size to the kernel and gets them again, page by page: a fifth of the
    processor time of an all-reduce of 10 million elements. Other C libraries are left as they are.
    """
    if hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 4 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 64 << 20)


class Endpoint:
    """The sockets at which a worker receives messages and publishes heartbeats; not yet connected to any peer.

    ``routes``: where peers reach them.
    """

    def __init__(self, addresses: Sequence[str], keys: Keys | None) -> None:
        """Bind the sockets. ``addresses``: this host's, to bind to; ``keys``: the group's, None for connections
        without encryption. Raises `JobError` if an address cannot be bound to."""
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(1)
        keep_freed_memory()
        self._keys = keys
        # It has to exist before any socket is bound: a client may come at once.
        self.authenticator = None if keys is None else Authenticator(self.context, keys.public)
        self.messages = self._server(zmq.PULL)
        self.beats = self._server(zmq.PUB)
        try:
            self.routes = [
                Route(each, self._bind(self.messages, each), self._bind(self.beats, each)) for each in addresses
            ]
        except zmq.ZMQError as error:
            self.close()
            raise JobError(f"cannot listen at {', '.join(addresses)}: {error}") from error

    def client(self, kind: int) -> zmq.Socket[bytes]:
        """Make a socket to connect to a peer with. ``kind``: its type, as `zmq.PUSH`."""
        client = self._socket(kind)
        if self._keys is not None:
            client.curve_secretkey, client.curve_publickey = self._keys.secret, self._keys.public
            client.curve_serverkey = self._keys.public
        return client

    def close(self) -> None:
        """Release the ports, if no communicator has taken the endpoint over."""
        self.context.destroy(linger=0)

    def _server(self, kind: int) -> zmq.Socket[bytes]:
        server = self._socket(kind)
        if self._keys is not None:
            server.curve_server = True
            server.curve_secretkey, server.curve_publickey = self._keys.secret, self._keys.public
            server.zap_domain = ZAP_DOMAIN
            server.zap_enforce_domain = True  # without it every client is accepted if no authenticator answers
        return server

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        made: zmq.Socket[bytes] = self.context.socket(kind)
        made.ipv6 = True
        made.linger = 0
        made.sndhwm = made.rcvhwm = 0  # never block, never drop: an exchange bounds what is in flight
        made.reconnect_ivl = 50
        made.reconnect_ivl_max = 1000
        return made

    def _bind(self, server: zmq.Socket[bytes], address: str) -> int:
        return server.bind_to_random_port(f"tcp://{bracketed(address)}")


def bracketed(address: str) -> str:
    """Return an IP address as it stands before a port: IPv6 in brackets."""
    return f"[{address}]" if ":" in address else address
