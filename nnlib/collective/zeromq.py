"""A group over ZeroMQ: one connection in each direction between every two workers, encrypted unless told otherwise.

A worker binds its sockets first (`Endpoint`), to free ports, so that any number of jobs share a host; then the workers
meet (`nnlib.collective.rendezvous`) and connect. Each message is [header, frames ...]; the header says for which
worker of which generation it is and counts messages, so nothing late, lost or strange can pass for something else.
Large buffers are neither copied by the sender nor by the receiver.
"""

from __future__ import annotations

import ctypes
import hashlib
import resource
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, wait
from functools import cache
from typing import Any

import zmq

from nnlib.collective.beside import in_thread
from nnlib.collective.communicator import Communicator, Frames, PeerLostError, Result, Traffic, byte_count
from nnlib.collective.curve_keys import Keys
from nnlib.collective.heartbeat import Doorkeeper, Outlook, Watch, verdict
from nnlib.collective.network import is_loopback
from nnlib.collective.rendezvous import Meeting, Member, Route
from nnlib.core.errors import JobError
from nnlib.core.liveness import PULSE

TICK = 0.2
"""Seconds between two looks at the heartbeats while a message is waited for."""
REACH_SECONDS = 3.0
"""How long one address of a peer is tried."""
_HEAD = struct.Struct("<16sIQ")
"""tag of the receiver in this generation, sender, count of messages between the two"""


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


@cache
def keep_freed_memory() -> None:
    """Let the C library keep the memory of messages for the next ones, up to 64 MiB for each of its arenas.

    By default glibc gives buffers of this size back to the kernel and gets them anew, page by page: a fifth of the
    processor time of an all-reduce of 10 million elements. Other C libraries are left as they are.
    """
    if hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 4 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 64 << 20)


class Endpoint:
    """A worker's own sockets: bound, so that it can say where it is, and not yet connected."""

    def __init__(self, addresses: Sequence[str], keys: Keys | None) -> None:
        """``addresses``: this host's, to bind to; ``keys``: the group's, None for connections in the clear."""
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(1)
        keep_freed_memory()
        self._keys = keys
        # before anything is bound: whoever comes must find it
        self.doorkeeper = None if keys is None else Doorkeeper(self.context, keys.public)
        self.messages = self._server(zmq.PULL)
        self.beats = self._server(zmq.PUB)
        try:
            self.routes = [
                Route(each, self._bind(self.messages, each), self._bind(self.beats, each)) for each in addresses
            ]
        except zmq.ZMQError as error:
            self.close()
            raise JobError(f"cannot listen at {', '.join(addresses)}: {error}") from error

    def _server(self, kind: int) -> zmq.Socket[bytes]:
        server = self._socket(kind)
        if self._keys is not None:
            server.curve_server = True
            server.curve_secretkey, server.curve_publickey = self._keys.secret, self._keys.public
            server.zap_domain = Doorkeeper.DOMAIN
            server.zap_enforce_domain = True  # without it a client would be let in if nobody answered
        return server

    def client(self, kind: int) -> zmq.Socket[bytes]:
        """A socket to connect to a peer."""
        client = self._socket(kind)
        if self._keys is not None:
            client.curve_secretkey, client.curve_publickey = self._keys.secret, self._keys.public
            client.curve_serverkey = self._keys.public
        return client

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        made: zmq.Socket[bytes] = self.context.socket(kind)
        made.ipv6 = True
        made.linger = 0
        made.sndhwm = made.rcvhwm = 0  # never block, never drop: an exchange bounds what is on its way
        made.reconnect_ivl = 50
        made.reconnect_ivl_max = 1000
        return made

    def _bind(self, server: zmq.Socket[bytes], address: str) -> int:
        return server.bind_to_random_port(f"tcp://{_bracketed(address)}")

    def close(self) -> None:
        """Give up the ports, if no communicator was made of them."""
        self.context.destroy(linger=0)


class ZeroMqCommunicator(Communicator):
    """The communicator of one generation. Made by `connect`."""

    def __init__(self, endpoint: Endpoint, meeting: Meeting, reached: Sequence[Route], timeout_seconds: float) -> None:
        self.worker = meeting.worker
        self.workers = len(meeting.members)
        self.generation = meeting.generation
        self._endpoint = endpoint
        self._tags = [_tag(meeting, member) for member in meeting.members]
        self._incoming = endpoint.messages
        self._incoming.rcvtimeo = int(1000 * TICK)
        self._outgoing: dict[int, zmq.Socket[bytes]] = {}
        subscriber = endpoint.client(zmq.SUB)
        subscriber.subscribe(b"")
        for peer, route in enumerate(reached):
            if peer != self.worker:
                self._outgoing[peer] = endpoint.client(zmq.PUSH)
                self._outgoing[peer].connect(f"tcp://{_bracketed(route.address)}:{route.messages}")
                subscriber.connect(f"tcp://{_bracketed(route.address)}:{route.beats}")
        self._watch = Watch(
            endpoint.context,
            endpoint.beats,
            subscriber,
            endpoint.doorkeeper,
            worker=self.worker,
            tags=self._tags,
            doors=[(route.address, route.messages) for route in reached],
            timeout_seconds=timeout_seconds,
        )
        self._sent = self._watch.own.sent
        self._received = [0] * self.workers
        self._early: dict[int, deque[Frames]] = {peer: deque() for peer in range(self.workers)}
        self._traffic = Traffic(waited=dict.fromkeys(self._outgoing, 0.0))
        self._broken: Exception | None = None
        self._closed = False
        self._outlook: Outlook | None = None
        self._beside: Future[Any] | None = None
        self._watch.start()

    def send(self, peer: int, frames: Frames) -> None:
        outgoing = self._outgoing[peer]
        header = _HEAD.pack(self._tags[peer], self.worker, self._sent[peer])
        outgoing.send(header, zmq.SNDMORE if len(frames) else 0)
        for place, frame in enumerate(frames, 1):
            outgoing.send(frame, zmq.SNDMORE if place < len(frames) else 0, copy=False)  # type: ignore[arg-type]
        self._sent[peer] += 1
        self._traffic.sent += byte_count(frames)

    def receive(self, peers: Collection[int]) -> tuple[int, Frames]:
        if self._broken is not None:
            raise self._broken
        for peer in peers:
            if self._early[peer]:
                return peer, self._early[peer].popleft()
        begin = time.perf_counter()
        while True:
            peer, frames = self._next(peers)
            if peer in peers:
                self._traffic.waited[peer] += time.perf_counter() - begin
                return peer, frames
            self._early[peer].append(frames)

    def beside(self, work: Callable[[], Result]) -> Callable[[], Result]:
        """In a thread, which has the sockets until it is waited for: ZeroMQ lets them change threads with a memory
        barrier between, as starting a thread and waiting for its result are."""
        begun = self._beside = in_thread(work)
        return begun.result

    def interrupt(self, error: Exception) -> None:
        """From any thread: what the worker is waiting for will not come; it gets this error instead."""
        self._broken = error

    def look_out(self, newer: Callable[[], Collection[int]], every_seconds: float) -> None:
        """Ask from time to time which workers went on to a newer generation, and follow them."""
        self._outlook = Outlook(newer, self.interrupt, every_seconds)
        self._outlook.start()

    def stats(self) -> Traffic:
        return self._traffic

    def close(self, flush_seconds: float = 10.0) -> None:
        if self._closed:
            return
        self._closed = True
        if self._beside is not None and not self._beside.done():  # the caller fails, and takes its sockets back
            self.interrupt(JobError("this worker leaves the group"))
            wait([self._beside])
        if self._outlook is not None:
            self._outlook.end()
        for peer, each in self._outgoing.items():
            gone = self._broken is not None or self._watch.sights[peer].gone is not None
            each.close(linger=0 if gone else int(1000 * flush_seconds))
        self._watch.leave()
        self._incoming.close(linger=0)
        if self._endpoint.doorkeeper is not None:
            self._endpoint.doorkeeper.socket.close(linger=0)
        self._endpoint.context.term()

    def _next(self, peers: Collection[int]) -> tuple[int, Frames]:
        """The next message of anyone. While none comes, see whether those waited for still get on."""
        waited = 0.0
        own = self._watch.own
        try:
            while True:
                try:
                    frame = self._incoming.recv(copy=False)
                except zmq.Again:
                    waited += TICK
                    own.waits, own.waits_for = True, frozenset(peers)
                    PULSE.waits = True
                    self._check(peers, waited)
                    continue
                data = frame.bytes
                buffers = []
                while frame.more:
                    frame = self._incoming.recv(copy=False)
                    buffers.append(frame.buffer)
                if len(data) != _HEAD.size:
                    continue
                tag, peer, number = _HEAD.unpack(data)
                if tag != self._tags[self.worker] or peer not in self._outgoing:
                    continue  # late, of another generation
                if number != self._received[peer]:
                    raise self._lost([peer], waited, "its messages were lost on the way")
                self._received[peer] += 1
                self._traffic.received += byte_count(buffers)
                return peer, buffers
        finally:
            own.waits, own.waits_for = False, ()
            PULSE.waits = False

    def _check(self, peers: Collection[int], waited: float) -> None:
        if self._broken is not None:
            raise self._broken
        found = {
            peer: verdict(self._watch.sights[peer], self._received[peer], waited, self._watch.limit) for peer in peers
        }
        lost = {peer: why for peer, why in found.items() if why is not None}
        if lost:
            raise self._lost(list(lost), waited, "; ".join(dict.fromkeys(lost.values())))

    def _lost(self, peers: Sequence[int], waited: float, why: str) -> Exception:
        self._broken = PeerLostError(peers, waited, why)
        return self._broken


def connect(endpoint: Endpoint, meeting: Meeting, timeout_seconds: float) -> ZeroMqCommunicator:
    """Connect to all who have met. Takes over the endpoint; raises `PeerLostError` for those whom nothing reaches."""
    _allow_files(8 * len(meeting.members) + 64)
    own = meeting.members[meeting.worker]
    begin = time.monotonic()
    reached = [_reach(own, member) for member in meeting.members]
    lost = [peer for peer, route in enumerate(reached) if route is None]
    if lost:
        tried = "; ".join(f"{meeting.members[peer].host}: {_shown(meeting.members[peer].routes)}" for peer in lost)
        raise PeerLostError(lost, time.monotonic() - begin, f"cannot be reached ({tried})")
    return ZeroMqCommunicator(endpoint, meeting, [each for each in reached if each is not None], timeout_seconds)


def _reach(own: Member, member: Member) -> Route | None:
    """The first of a member's addresses that answers; loopback leads to one's own host only."""
    for route in member.routes:
        if is_loopback(route.address) and member.host != own.host:
            continue
        if member == own:
            return route
        try:
            socket.create_connection((route.address, route.messages), timeout=REACH_SECONDS).close()
        except OSError:
            continue
        return route
    return None


def _tag(meeting: Meeting, member: Member) -> bytes:
    """Names a member in this generation of this job."""
    text = f"{meeting.job}/{meeting.generation}/{member.worker}/{member.incarnation}"
    return hashlib.sha256(text.encode()).digest()[:16]


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _shown(routes: Sequence[Route]) -> str:
    return ", ".join(f"{_bracketed(route.address)}:{route.messages}" for route in routes)


def _allow_files(number: int) -> None:
    """A group of hundreds needs more sockets than a process may open by default."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < number:
        wanted = number if hard == resource.RLIM_INFINITY else min(number, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
