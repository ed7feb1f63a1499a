"""Whether peers live and get on: heartbeats between the workers of a group, on a thread with sockets of its own.

A heartbeat tells how often the worker's `nnlib.core.liveness` beat, whether it waits itself, and how many messages it
has sent to each peer. With that the one who waits can tell apart a peer that computes (it beats), that waits for a
third one (who will be found by it), that hangs (it lives, but does not beat), whose messages are lost on the way, and
that is dead, stopped or cut off (nothing is heard of it).

Time is counted in this thread's own steps, so a process that was itself stopped for a while blames nobody for it.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import zmq
from zmq.utils import z85

from nnlib.collective.communicator import PeerLostError, SupersededError
from nnlib.core.errors import StorageError
from nnlib.core.liveness import PULSE

MISSED = 3
"""Heartbeats in a row that a peer misses before it is looked for."""
FAREWELL_MS = 200
"""For so long the last heartbeat, which says that the worker leaves, is tried to be sent: a peer that has left as well
may not take it. Whoever misses it finds the process ended instead."""
_HEAD = struct.Struct("<16sIqBB")
"""tag, worker, beats, waits, has left; behind it one uint64 for each worker: messages sent to it."""


@dataclass
class Sight:
    """What is known of a peer: seconds since it was heard of and since it got on; its last heartbeat."""

    silent: float = 0.0
    still: float = 0.0
    beats: int = -1
    waits: bool = False
    sent: int = 0
    gone: str | None = None


PATIENCE = 0.5
"""Seconds that a message of a peer that is gone may still be on its way."""


def verdict(sight: Sight, received: int, waited: float, limit: float) -> str | None:
    """Why a peer counts as lost; None if it may still come.

    ``received``: messages that came from it; ``waited``: seconds for which none did while one was waited for. A peer
    that waits itself is let wait, for whatever it waits for is older than what is expected of it: following that to
    its end, one is found that does not get on, and found by who waits for it directly.
    """
    if waited > PATIENCE:
        if sight.gone is not None:
            return sight.gone
        if sight.silent > limit:
            return "nothing is heard of it"
    if min(sight.still, waited) > limit:
        if not sight.waits:
            return "it lives, but does not get on"
        if sight.sent > received:
            return "its messages do not arrive"
    return None


@dataclass
class Own:
    """What the worker's main thread tells the watch."""

    sent: list[int]
    waits: bool = False
    waits_for: Collection[int] = field(default_factory=tuple)


class Watch(threading.Thread):
    """Sends this worker's heartbeats and listens to those of its peers, until `leave`."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        publisher: zmq.Socket[bytes],
        subscriber: zmq.Socket[bytes],
        doorkeeper: Doorkeeper | None,
        *,
        worker: int,
        tags: Sequence[bytes],
        doors: Sequence[tuple[str, int]],
        timeout_seconds: float,
    ) -> None:
        """``tags``: of each worker, 16 bytes; ``doors``: (host, port) at which each can be looked for."""
        super().__init__(name="heartbeats", daemon=True)
        self.interval = min(1.0, timeout_seconds / 10)
        self.limit = timeout_seconds - 2 * self.interval
        """A heartbeat's way and the step of the clock are taken off, so that a loss is noticed within the timeout."""
        self.worker = worker
        self.own = Own([0] * len(tags))
        self.sights = {peer: Sight() for peer in range(len(tags)) if peer != worker}
        self._tags = tags
        self._doors = doors
        self._publisher = publisher
        self._subscriber = subscriber
        self._doorkeeper = doorkeeper
        self._bell: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        self._bell.bind("inproc://bell")
        self._ringer: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        self._ringer.connect("inproc://bell")

    def leave(self) -> None:
        """Tell the peers that this worker goes, and end the thread."""
        with contextlib.suppress(zmq.Again):  # a thread that has failed hears nothing
            self._ringer.send(b"", zmq.NOBLOCK)
        self.join()
        self._ringer.close(linger=0)

    def run(self) -> None:
        try:
            self._keep_watch()
        except Exception as error:
            for sight in self.sights.values():  # who waits must not do so for ever because nobody looks any more
                sight.gone = f"the watch over it has failed: {error}"
            raise
        finally:
            for each in (self._bell, self._subscriber):
                each.close(linger=0)
            self._publisher.close(linger=FAREWELL_MS)

    def _keep_watch(self) -> None:
        poller = zmq.Poller()
        poller.register(self._subscriber, zmq.POLLIN)
        poller.register(self._bell, zmq.POLLIN)
        if self._doorkeeper is not None:
            poller.register(self._doorkeeper.socket, zmq.POLLIN)
        last = due = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= due:
                self._step(min(now - last, 2 * self.interval))
                last, due = now, now + self.interval
            ready = dict(poller.poll(max(1, int(1000 * (due - now)))))
            if self._subscriber in ready:
                self._listen()
            if self._doorkeeper is not None and self._doorkeeper.socket in ready:
                self._doorkeeper.answer()
            if self._bell in ready:
                break
        self._publish(left=True)

    def _step(self, seconds: float) -> None:
        for peer, sight in self.sights.items():
            sight.silent += seconds
            sight.still += seconds
            if sight.silent > MISSED * self.interval and peer in self.own.waits_for and sight.gone is None:
                self._look_for(peer)
        self._publish()

    def _publish(self, *, left: bool = False) -> None:
        head = _HEAD.pack(self._tags[self.worker], self.worker, PULSE.beats, self.own.waits, left)
        self._publisher.send(head + struct.pack(f"<{len(self.own.sent)}Q", *self.own.sent))

    def _listen(self) -> None:
        with contextlib.suppress(zmq.Again):
            while True:
                data = self._subscriber.recv(zmq.NOBLOCK)
                if len(data) == _HEAD.size + 8 * len(self._tags):
                    self._read(data)

    def _read(self, data: bytes) -> None:
        tag, peer, beats, waits, left = _HEAD.unpack_from(data)
        if peer not in self.sights or tag != self._tags[peer]:
            return
        sight = self.sights[peer]
        (sent,) = struct.unpack_from("<Q", data, _HEAD.size + 8 * self.worker)
        if (beats, bool(waits), sent) != (sight.beats, sight.waits, sight.sent):
            sight.still = 0.0
        sight.silent, sight.beats, sight.waits, sight.sent = 0.0, beats, bool(waits), sent
        sight.gone = "it has left the group" if left else None

    def _look_for(self, peer: int) -> None:
        """A process that is dead refuses at once; one that is stopped or cut off does not answer."""
        try:
            socket.create_connection(self._doors[peer], timeout=self.interval).close()
        except ConnectionRefusedError:
            self.sights[peer].gone = "its process has ended"
        except OSError:
            pass  # no answer: the timeout decides


class Doorkeeper:
    """Answers whether a client of a CURVE connection may come in: holders of one key only (ZAP, ZeroMQ RFC 27).

    pyzmq's own `zmq.auth` would do; it imports asyncio, 70 ms of every task, and wants one more thread.
    """

    DOMAIN = b"group"

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], public: bytes) -> None:
        self._allowed = public
        self.socket: zmq.Socket[bytes] = context.socket(zmq.REP)
        self.socket.bind("inproc://zeromq.zap.01")

    def answer(self) -> None:
        """One request, which is there."""
        version, request, domain, _, _, mechanism, *credentials = self.socket.recv_multipart()
        known = (
            version == b"1.0"
            and domain == self.DOMAIN
            and mechanism == b"CURVE"
            and len(credentials) == 1
            and z85.encode(credentials[0]) == self._allowed
        )
        status, text = (b"200", b"OK") if known else (b"400", b"another key")
        self.socket.send_multipart([b"1.0", request, status, text, b"", b""])


class Outlook(threading.Thread):
    """Looks from time to time whether the group has gone on to a newer generation, for a task that was given up by
    mistake gets on well, and so do its peers: nobody would miss the one that has taken its place."""

    def __init__(
        self, newer: Callable[[], Collection[int]], interrupt: Callable[[Exception], None], every_seconds: float
    ) -> None:
        super().__init__(name="outlook", daemon=True)  # it may hang in a storage that does; that must keep nobody
        self._newer = newer
        self._interrupt = interrupt
        self._every = every_seconds
        self._ended = threading.Event()

    def end(self) -> None:
        self._ended.set()

    def run(self) -> None:
        while not self._ended.wait(self._every):
            try:
                workers = self._newer()
            except SupersededError as error:
                self._interrupt(error)
                return
            except StorageError:
                continue  # it is asked again
            if workers and not self._ended.is_set():
                self._interrupt(PeerLostError(sorted(workers), 0.0, "went on to a newer generation"))
                return
