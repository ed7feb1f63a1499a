"""Heartbeats between the workers of a group: they tell whether a peer is alive and makes progress.

Every worker sends heartbeats from a thread with sockets of its own. A heartbeat holds how often the worker's
`nnlib.core.liveness` counter was increased, whether the worker itself waits, and how many messages it has sent to each
peer. From that a waiting worker can tell apart a peer that

- computes: its counter increases;
- waits for a third worker: that third worker is diagnosed by those that wait for it directly;
- hangs: heartbeats arrive, but its counter stands still;
- has sent messages that do not arrive;
- is on a machine that is switched off or cut off: no heartbeat arrives, and the machine takes no connection;
- is dead or stopped: no heartbeat arrives.

Time is counted in steps of this thread, so a process that was itself stopped for a while blames nobody for it.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import zmq

from nnlib.collective.authenticator import Authenticator
from nnlib.core.liveness import HEARTBEAT

MISSED_HEARTBEATS = 3
"""After this many missing heartbeats in a row a peer's port is probed."""
LAST_HEARTBEAT_MS = 200
"""How long the last heartbeat, which announces that the worker leaves, may take: a peer that has left as well may not
accept it. A peer that misses it learns from its probe that the process has ended."""
IN_FLIGHT_SECONDS = 0.5
"""How long a message of a peer that has left may still be in flight."""
UNREACHABLE = 0.5
"""The part of the timeout after which a peer is lost whose machine takes no connection. One that is stopped, or has no
processor time, still has a system that takes them."""
_HEADER = struct.Struct("<16sIqBB")
"""tag, worker, beats, waits, has left; behind it one uint64 for each worker: messages sent to it."""
_STOP_ADDRESS = "inproc://stop"


@dataclass
class PeerStatus:
    """What is known of a peer: the seconds since its last heartbeat (``silent``), the seconds since anything in its
    heartbeats has changed (``still``), and its last heartbeat. ``is_reachable``: its machine took a connection when it
    was last tried, or was not tried yet. ``gone`` says why the peer will not come back."""

    silent: float = 0.0
    still: float = 0.0
    beats: int = -1
    is_waiting: bool = False
    sent: int = 0
    is_reachable: bool = True
    gone: str | None = None


@dataclass
class OutgoingStatus:
    """What this worker's main thread publishes in its heartbeats: messages ``sent`` to each peer, whether it waits and
    for which peers."""

    sent: list[int]
    is_waiting: bool = False
    waits_for: Collection[int] = field(default_factory=tuple)


def diagnose(peer: PeerStatus, received: int, waited: float, limit: float) -> str | None:
    """Return why a peer counts as lost; None if its message may still come.

    ``received``: messages that came from it; ``waited``: seconds for which none came while this worker waited for one;
    ``limit``: the timeout in seconds.

    A peer that waits itself is not lost: the message that it waits for is due before the one that it owes. At the end
    of such a chain is a worker that makes no progress, and those that wait for it directly declare it lost.
    """
    if waited > IN_FLIGHT_SECONDS:
        if peer.gone is not None:
            return peer.gone
        if peer.silent > UNREACHABLE * limit and not peer.is_reachable:
            return "its machine cannot be reached"
        if peer.silent > limit:
            return "no heartbeat arrives"
    if min(peer.still, waited) > limit:
        if not peer.is_waiting:
            return "it is alive, but makes no progress"
        if peer.sent > received:
            return "its messages do not arrive"
    return None


class HeartbeatMonitor(threading.Thread):
    """Sends this worker's heartbeats and receives those of its peers, until `leave`.

    ``outgoing`` is written by the worker's main thread, ``peers`` by this one.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        publisher: zmq.Socket[bytes],
        subscriber: zmq.Socket[bytes],
        authenticator: Authenticator | None,
        *,
        worker: int,
        tags: Sequence[bytes],
        addresses: Sequence[tuple[str, int]],
        timeout_seconds: float,
    ) -> None:
        """``tags``: each worker's, 16 bytes; ``addresses``: (host, port) at which each worker can be probed."""
        super().__init__(name="heartbeats", daemon=True)
        self.interval = min(1.0, timeout_seconds / 10)
        self.limit = timeout_seconds - 2 * self.interval
        """Two intervals shorter (one for a heartbeat's way, one for a step of the clock), so that a loss is noticed
        within the timeout."""
        self.worker = worker
        self.outgoing = OutgoingStatus([0] * len(tags))
        self.peers = {peer: PeerStatus() for peer in range(len(tags)) if peer != worker}
        self._tags = tags
        self._addresses = addresses
        self._publisher = publisher
        self._subscriber = subscriber
        self._authenticator = authenticator
        self._stop_receiver: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        self._stop_receiver.bind(_STOP_ADDRESS)
        self._stop_sender: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        self._stop_sender.connect(_STOP_ADDRESS)

    def leave(self) -> None:
        """Announce to the peers that this worker leaves, and end the thread."""
        with contextlib.suppress(zmq.Again):  # a thread that has failed no longer receives
            self._stop_sender.send(b"", zmq.NOBLOCK)
        self.join()
        self._stop_sender.close(linger=0)

    def run(self) -> None:
        try:
            self._send_and_receive()
        except Exception as error:
            for peer in self.peers.values():  # without heartbeats the main thread must not wait for ever
                peer.gone = f"the heartbeat monitor has failed: {error}"
            raise
        finally:
            for each in (self._stop_receiver, self._subscriber):
                each.close(linger=0)
            self._publisher.close(linger=LAST_HEARTBEAT_MS)

    def _send_and_receive(self) -> None:
        poller = zmq.Poller()
        poller.register(self._subscriber, zmq.POLLIN)
        poller.register(self._stop_receiver, zmq.POLLIN)
        if self._authenticator is not None:
            poller.register(self._authenticator.socket, zmq.POLLIN)
        last = due = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= due:
                self._step(min(now - last, 2 * self.interval))
                last, due = now, now + self.interval
            ready = dict(poller.poll(max(1, int(1000 * (due - now)))))
            if self._subscriber in ready:
                self._receive()
            if self._authenticator is not None and self._authenticator.socket in ready:
                self._authenticator.answer()
            if self._stop_receiver in ready:
                break
        self._publish(has_left=True)

    def _step(self, seconds: float) -> None:
        """Advance the clock by ``seconds``, probe peers whose heartbeats are missing, and send a heartbeat."""
        for number, peer in self.peers.items():
            peer.silent += seconds
            peer.still += seconds
            is_overdue = peer.silent > MISSED_HEARTBEATS * self.interval
            if is_overdue and number in self.outgoing.waits_for and peer.gone is None:
                self._probe(number)
        self._publish()

    def _publish(self, *, has_left: bool = False) -> None:
        status = self.outgoing
        header = _HEADER.pack(self._tags[self.worker], self.worker, HEARTBEAT.count, status.is_waiting, has_left)
        self._publisher.send(header + struct.pack(f"<{len(status.sent)}Q", *status.sent))

    def _receive(self) -> None:
        with contextlib.suppress(zmq.Again):
            while True:
                data = self._subscriber.recv(zmq.NOBLOCK)
                if len(data) == _HEADER.size + 8 * len(self._tags):
                    self._read(data)

    def _read(self, data: bytes) -> None:
        """Update a peer's status from its heartbeat."""
        tag, number, beats, is_waiting, has_left = _HEADER.unpack_from(data)
        if number not in self.peers or tag != self._tags[number]:
            return
        peer = self.peers[number]
        (sent,) = struct.unpack_from("<Q", data, _HEADER.size + 8 * self.worker)
        if (beats, bool(is_waiting), sent) != (peer.beats, peer.is_waiting, peer.sent):
            peer.still = 0.0
        peer.silent, peer.beats, peer.is_waiting, peer.sent = 0.0, beats, bool(is_waiting), sent
        peer.is_reachable = True
        peer.gone = "it has left the group" if has_left else None

    def _probe(self, peer: int) -> None:
        """Connect to a peer's port: that of a dead process refuses at once, that of a stopped one takes the connection,
        a machine that is off or cut off does not answer."""
        status = self.peers[peer]
        try:
            socket.create_connection(self._addresses[peer], timeout=self.interval).close()
            status.is_reachable = True
        except ConnectionRefusedError:
            status.gone = "its process has ended"
        except OSError:
            status.is_reachable = False  # the timeout decides
