"""A group over ZeroMQ: one connection in each direction between every two workers, encrypted by default.

Each message is [header, frames ...]. The header names the receiving worker and its generation and counts the messages
between the two workers, so a late, lost or foreign message cannot pass for another one. Large buffers are copied
neither by the sender nor by the receiver.
"""

from __future__ import annotations

import hashlib
import resource
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import zmq

from nnlib.collective.communicator import Communicator, Frames, PeerLostError, Result, byte_count
from nnlib.collective.endpoint import Endpoint, bracketed
from nnlib.collective.generation_watcher import GenerationWatcher
from nnlib.collective.heartbeat import HeartbeatMonitor, diagnose
from nnlib.collective.network import is_loopback
from nnlib.collective.rendezvous import Generation, Member, Route
from nnlib.core.errors import JobError
from nnlib.core.liveness import HEARTBEAT

CHECK_SECONDS = 0.2
"""How often the peers' heartbeats are checked while a message is waited for."""
CONNECT_SECONDS = 3.0
"""How long one address of a peer is tried."""
_HEADER = struct.Struct("<16sIQ")
"""tag of the receiver in this generation, sender, number of the message between the two"""


class ZeroMqCommunicator(Communicator):
    """The communicator of one generation. Made by `connect`."""

    def __init__(
        self, endpoint: Endpoint, generation: Generation, routes: Sequence[Route], timeout_seconds: float
    ) -> None:
        """``routes``: for each worker the one at which it can be reached."""
        self.worker = generation.worker
        self.workers = len(generation.members)
        self.generation = generation.number
        self._endpoint = endpoint
        self._tags = [_tag(generation, member) for member in generation.members]
        self._incoming = endpoint.messages
        self._incoming.rcvtimeo = int(1000 * CHECK_SECONDS)
        self._outgoing: dict[int, zmq.Socket[bytes]] = {}
        subscriber = endpoint.client(zmq.SUB)
        subscriber.subscribe(b"")
        for peer, route in enumerate(routes):
            if peer != self.worker:
                self._outgoing[peer] = endpoint.client(zmq.PUSH)
                self._outgoing[peer].connect(f"tcp://{bracketed(route.address)}:{route.messages}")
                subscriber.connect(f"tcp://{bracketed(route.address)}:{route.beats}")
        self._monitor = HeartbeatMonitor(
            endpoint.context,
            endpoint.beats,
            subscriber,
            endpoint.authenticator,
            worker=self.worker,
            tags=self._tags,
            addresses=[(route.address, route.messages) for route in routes],
            timeout_seconds=timeout_seconds,
        )
        self._sent = self._monitor.outgoing.sent
        self._received = [0] * self.workers
        self._early: dict[int, deque[Frames]] = {peer: deque() for peer in range(self.workers)}
        """Messages that came while others were waited for."""
        self._error: Exception | None = None
        self._closed = False
        self._watcher: GenerationWatcher | None = None
        self._background: Future[Any] | None = None
        self._monitor.start()

    def send(self, peer: int, frames: Frames) -> None:
        outgoing = self._outgoing[peer]
        header = _HEADER.pack(self._tags[peer], self.worker, self._sent[peer])
        outgoing.send(header, zmq.SNDMORE if len(frames) else 0)
        for number, frame in enumerate(frames, 1):
            outgoing.send(frame, zmq.SNDMORE if number < len(frames) else 0, copy=False)  # type: ignore[arg-type]
        self._sent[peer] += 1
        self.sent_bytes += byte_count(frames)

    def receive(self, peers: Collection[int]) -> tuple[int, Frames]:
        if self._error is not None:
            raise self._error
        for peer in peers:
            if self._early[peer]:
                return peer, self._early[peer].popleft()
        while True:
            peer, frames = self._receive_next(peers)
            if peer in peers:
                return peer, frames
            self._early[peer].append(frames)

    def run_in_background(self, work: Callable[[], Result]) -> Callable[[], Result]:
        """Run ``work`` in a thread, which uses the sockets until it is waited for. ZeroMQ allows that with a memory
        barrier between the threads: starting one and waiting for its result are such barriers."""
        started = self._background = start_in_thread(work)
        return started.result

    def interrupt(self, error: Exception) -> None:
        """Make the worker raise ``error`` instead of waiting any longer. Called from any thread."""
        self._error = error

    def watch_generations(self, workers_ahead: Callable[[], Collection[int]], every_seconds: float) -> None:
        """Interrupt the worker once others are in a newer generation, see `GenerationWatcher`."""
        self._watcher = GenerationWatcher(workers_ahead, self.interrupt, every_seconds)
        self._watcher.start()

    def close(self, flush_seconds: float = 10.0) -> None:
        if self._closed:
            return
        self._closed = True
        if self._background is not None and not self._background.done():  # the caller has failed: end its work, too
            self.interrupt(JobError("this worker leaves the group"))
            wait([self._background])
        if self._watcher is not None:
            self._watcher.stop()
        for peer, outgoing in self._outgoing.items():
            is_gone = self._error is not None or self._monitor.peers[peer].gone is not None
            outgoing.close(linger=0 if is_gone else int(1000 * flush_seconds))
        self._monitor.leave()
        self._incoming.close(linger=0)
        if self._endpoint.authenticator is not None:
            self._endpoint.authenticator.socket.close(linger=0)
        self._endpoint.context.term()

    def _receive_next(self, peers: Collection[int]) -> tuple[int, Frames]:
        """Wait for the next message of any worker. While none comes, check whether ``peers`` still make progress."""
        waited = 0.0
        status = self._monitor.outgoing
        try:
            while True:
                try:
                    frame = self._incoming.recv(copy=False)
                except zmq.Again:
                    waited += CHECK_SECONDS
                    status.is_waiting, status.waits_for = True, frozenset(peers)
                    HEARTBEAT.is_waiting = True
                    self._check(peers, waited)
                    continue
                data = frame.bytes
                buffers = []
                while frame.more:
                    frame = self._incoming.recv(copy=False)
                    buffers.append(frame.buffer)
                if len(data) != _HEADER.size:
                    continue
                tag, peer, number = _HEADER.unpack(data)
                if tag != self._tags[self.worker] or peer not in self._outgoing:
                    continue  # late, of another generation
                if number != self._received[peer]:
                    raise self._lose([peer], waited, "its messages were lost on the way")
                self._received[peer] += 1
                return peer, buffers
        finally:
            status.is_waiting, status.waits_for = False, ()
            HEARTBEAT.is_waiting = False

    def _check(self, peers: Collection[int], waited: float) -> None:
        """Raise the error of an interrupt, or `PeerLostError` for those of ``peers`` that are lost."""
        if self._error is not None:
            raise self._error
        monitor = self._monitor
        reasons = {
            peer: reason
            for peer in peers
            if (reason := diagnose(monitor.peers[peer], self._received[peer], waited, monitor.limit)) is not None
        }
        if reasons:
            raise self._lose(list(reasons), waited, "; ".join(dict.fromkeys(reasons.values())))

    def _lose(self, peers: Sequence[int], waited: float, why: str) -> Exception:
        self._error = PeerLostError(peers, waited, why)
        return self._error


def connect(endpoint: Endpoint, generation: Generation, timeout_seconds: float) -> ZeroMqCommunicator:
    """Connect to all members of a generation and return the communicator, which takes the endpoint over.

    Raises `PeerLostError` for members that cannot be reached.
    """
    _allow_open_files(8 * len(generation.members) + 64)
    this = generation.members[generation.worker]
    begin = time.monotonic()
    routes = [_reachable_route(this, member) for member in generation.members]
    lost = [peer for peer, route in enumerate(routes) if route is None]
    if lost:
        members = [generation.members[peer] for peer in lost]
        tried = "; ".join(f"{member.host}: {_addresses(member.routes)}" for member in members)
        raise PeerLostError(lost, time.monotonic() - begin, f"cannot be reached ({tried})")
    return ZeroMqCommunicator(endpoint, generation, [each for each in routes if each is not None], timeout_seconds)


def start_in_thread(work: Callable[[], Result]) -> Future[Result]:
    """Start ``work`` in a thread of its own, which ends with it."""
    executor = ThreadPoolExecutor(1, thread_name_prefix="exchange")
    started = executor.submit(work)
    executor.shutdown(wait=False)
    return started


def _reachable_route(this: Member, member: Member) -> Route | None:
    """The first of a member's routes that answers; a loopback address leads to the same host only."""
    for route in member.routes:
        if is_loopback(route.address) and member.host != this.host:
            continue
        if member == this:
            return route
        try:
            socket.create_connection((route.address, route.messages), timeout=CONNECT_SECONDS).close()
        except OSError:
            continue
        return route
    return None


def _tag(generation: Generation, member: Member) -> bytes:
    """16 bytes that name a member in this generation of this job."""
    text = f"{generation.job}/{generation.number}/{member.worker}/{member.incarnation}"
    return hashlib.sha256(text.encode()).digest()[:16]


def _addresses(routes: Sequence[Route]) -> str:
    return ", ".join(f"{bracketed(route.address)}:{route.messages}" for route in routes)


def _allow_open_files(number: int) -> None:
    """Raise this process's limit of open files: a group of hundreds needs more sockets than the default allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < number:
        wanted = number if hard == resource.RLIM_INFINITY else min(number, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
