"""Groups over ZeroMQ: what is sent arrives, who is lost is found, strangers stay out."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from processes import started
from product import ROOT
from zmq.utils.monitor import recv_monitor_message

from nnlib.aggregation.average import Average, Partial
from nnlib.collective.allreduce import Operand, all_reduce
from nnlib.collective.communicator import Communicator, PeerLostError, SupersededError
from nnlib.collective.curve_keys import FILE, Keys, make_keys, read_keys
from nnlib.collective.endpoint import Endpoint
from nnlib.collective.heartbeat import IN_FLIGHT_SECONDS, PeerStatus, diagnose
from nnlib.collective.join import join
from nnlib.collective.network import LOOPBACK
from nnlib.collective.rendezvous import Generation, Member, Rendezvous, Route
from nnlib.collective.zeromq import ZeroMqCommunicator, connect
from nnlib.core.errors import JobError, MismatchError
from nnlib.storage import LocalStorage

MEMBER = ROOT / "tests/helpers/group_member.py"
GENEROUS = 60.0
"""Timeout where nobody is to be lost."""


def new_keys() -> Keys:
    return Keys(*zmq.curve_keypair())


def in_threads(work: Sequence[Callable[[], Any]]) -> list[Any]:
    found: list[Any] = [None] * len(work)

    def run(place: int) -> None:
        try:
            found[place] = work[place]()
        except Exception as error:
            found[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def generation_of(endpoints: Sequence[Endpoint], worker: int, job: str = "j") -> Generation:
    members = [Member(each, f"i{each}", "here", tuple(end.routes)) for each, end in enumerate(endpoints)]
    return Generation(job, 1, worker, tuple(members))


@contextlib.contextmanager
def group(
    workers: int, keys: Keys | None, job: str = "j", timeout: float = GENEROUS
) -> Iterator[list[ZeroMqCommunicator]]:
    """Communicators of one process."""
    endpoints = [Endpoint([LOOPBACK], keys) for _ in range(workers)]
    made = [connect(end, generation_of(endpoints, worker, job), timeout) for worker, end in enumerate(endpoints)]
    try:
        yield made
    finally:
        in_threads([each.close for each in made])


def exchanged(group: Sequence[Communicator], text: str) -> list[Any]:
    """What each worker has received after every worker has sent another text to every worker."""

    def outgoing(worker: int) -> list[list[bytes]]:
        return [[f"{text} {worker} to {peer}".encode(), b""] for peer in range(len(group))]

    found = in_threads([partial(each.exchange, outgoing(each.worker)) for each in group])
    for worker, incoming in enumerate(found):
        assert [bytes(frames[0]) for frames in incoming] == [
            f"{text} {peer} to {worker}".encode() for peer in range(len(group))
        ]
        assert [len(frames[1]) for frames in incoming] == [0] * len(group)
    return found


@pytest.mark.parametrize("encrypted", [True, False])
def test_everyone_gets_what_was_sent_to_it(encrypted: bool) -> None:
    with group(3, new_keys() if encrypted else None) as members:
        for step in range(20):
            exchanged(members, f"step {step}")
        for each in members:
            assert each.sent_bytes == 2 * sum(len(f"step {step} 0 to 1") for step in range(20))


@pytest.mark.parametrize("encrypted", [True, False])
def test_an_all_reduce_has_the_bits_of_the_average(encrypted: bool) -> None:
    random = np.random.default_rng(5)
    partials = [
        [Partial(worker, 10 + worker, random.standard_normal(size).astype(np.float32), "a") for size in (300_000, 5)]
        for worker in range(4)
    ]
    with group(4, new_keys() if encrypted else None) as members:
        for _ in range(3):
            found = in_threads(
                [partial(all_reduce, each, [Operand(part) for part in partials[each.worker]]) for each in members]
            )
            for trial in range(2):
                average = Average(range(4), "a")
                for own in partials:
                    average.add(own[trial])
                assert {each.vectors[trial].tobytes() for each in found} == {average.finish().tobytes()}


def test_work_runs_in_the_background_of_its_caller() -> None:
    """Every caller waits for what its own work does, and only then for the work."""
    with group(3, new_keys()) as members:

        def caller(member: Communicator) -> list[bytes]:
            done = threading.Event()

            def work() -> list[bytes]:
                found = member.exchange([[b"%d" % member.worker]] * 3)
                done.set()
                return [bytes(frames[0]) for frames in found]

            for _ in range(20):
                done.clear()
                wait = member.run_in_background(work)
                assert done.wait(GENEROUS)
                assert wait() == [b"0", b"1", b"2"]
                member.exchange([[b"own thread"]] * 3)
            return wait()

        assert in_threads([partial(caller, each) for each in members]) == [[b"0", b"1", b"2"]] * 3


def test_leaving_ends_work_in_the_background() -> None:
    with group(2, None) as (one, other):
        wait = one.run_in_background(lambda: one.receive({1}))
        one.close()
        with pytest.raises(JobError, match="leaves the group"):
            wait()
        with pytest.raises(PeerLostError, match="has left"):
            other.receive({0})


def test_a_worker_may_be_a_step_ahead() -> None:
    with group(3, None) as members:
        ahead, other, late = members
        ahead.send(1, [b"first"])
        ahead.send(1, [b"second"])
        late.send(1, [b"late"])
        assert [bytes(frame) for frame in other.receive({2})[1]] == [b"late"]
        assert [bytes(other.receive({0})[1][0]) for _ in range(2)] == [b"first", b"second"]


def test_the_own_entry_is_passed_through() -> None:
    with group(2, None) as members:
        own = np.arange(5.0)
        found = in_threads([partial(each.exchange, [[own], [own]]) for each in members])
        assert found[0][0][0] is own
        assert np.frombuffer(found[0][1][0]).tolist() == own.tolist()


def test_two_groups_on_one_host_do_not_meet() -> None:
    with group(2, new_keys(), "one") as one, group(2, new_keys(), "two") as two:
        for step in range(5):
            exchanged(one, f"one {step}")
            exchanged(two, f"two {step}")


def test_diagnosis() -> None:
    """Limit 10 s. A peer that computes or waits is not lost, unless what it has sent does not arrive."""
    long = 11.0
    busy = PeerStatus(silent=0.1, still=0.1, beats=5)
    waits = PeerStatus(silent=0.1, still=long, beats=5, is_waiting=True, sent=7)
    stuck = PeerStatus(silent=0.1, still=long, beats=5)
    assert diagnose(busy, 7, 1000.0, 10.0) is None
    assert diagnose(stuck, 7, 9.0, 10.0) is None  # it may have had nothing to do before it was waited for
    assert diagnose(stuck, 7, long, 10.0) == "it is alive, but makes no progress"
    assert diagnose(waits, 7, 1000.0, 10.0) is None
    assert diagnose(waits, 6, 9.0, 10.0) is None
    assert diagnose(waits, 6, long, 10.0) == "its messages do not arrive"
    assert diagnose(replace(busy, silent=long), 7, 1.0, 10.0) == "no heartbeat arrives"
    cut_off = replace(busy, silent=5.1, is_reachable=False)  # half of the limit is enough
    assert diagnose(cut_off, 7, 1.0, 10.0) == "its machine cannot be reached"
    assert diagnose(replace(cut_off, silent=4.9), 7, 1.0, 10.0) is None
    assert diagnose(replace(cut_off, is_reachable=True), 7, 1.0, 10.0) is None
    assert diagnose(replace(busy, silent=long), 7, 0.0, 10.0) is None  # its heartbeats are being read right now
    assert diagnose(replace(busy, gone="ended"), 7, 2 * IN_FLIGHT_SECONDS, 10.0) == "ended"
    assert diagnose(replace(busy, gone="ended"), 7, IN_FLIGHT_SECONDS / 2, 10.0) is None


@contextlib.contextmanager
def member(
    folder: Path, worker: int, workers: int, timeout: float, steps: int, then: str
) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(MEMBER), str(folder), str(worker), str(workers), str(timeout), str(steps), then]
    with started(command, stdout=subprocess.PIPE, text=True) as process:
        yield process


@pytest.mark.parametrize(
    ("then", "what", "why"),
    [
        ("wait", signal.SIGKILL, "its process has ended"),
        ("wait", signal.SIGSTOP, "no heartbeat arrives"),
        ("hang", None, "it is alive, but makes no progress"),
        ("leave", None, "it has left the group|its process has ended"),
    ],
)
def test_a_lost_peer_is_diagnosed(tmp_path: Path, then: str, what: signal.Signals | None, why: str) -> None:
    """Worker 1 of 3 is killed, stopped, hangs or leaves: worker 0 learns that it is 1; worker 2 is not blamed."""
    folder = LocalStorage(tmp_path / "group", private=True)
    keys = make_keys(folder)
    tasks = [Rendezvous(folder, job="j", worker=worker, workers=3) for worker in (0, 2)]
    with member(folder.path, 1, 3, 5.0, 5, then) as process:
        made = in_threads([partial(join, each, keys, timeout_seconds=5.0) for each in tasks])
        with made[0], made[1]:
            for _ in range(5):
                in_threads([partial(each.exchange, [[b"x"]] * 3) for each in made])
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            if what is not None:
                process.send_signal(what)

            def go_on(communicator: Communicator) -> None:
                while True:  # what the lost worker has sent before may let a step more end
                    communicator.exchange([[b"y"]] * 3)

            error, _ = in_threads([partial(go_on, each) for each in made])
            assert isinstance(error, PeerLostError)
            assert error.workers == [1]
            assert any(part in str(error) for part in why.split("|"))
            with pytest.raises(PeerLostError):
                made[0].exchange([[b"z"]] * 3)


def test_a_peer_that_cannot_be_reached_is_named() -> None:
    endpoints = [Endpoint([LOOPBACK], None) for _ in range(2)]
    endpoints[1].close()
    with pytest.raises(PeerLostError, match=rf"lost worker 1: cannot be reached \(here: {LOOPBACK}:\d+\)"):
        connect(endpoints[0], generation_of(endpoints, 0), GENEROUS)
    endpoints[0].close()


def test_of_several_addresses_one_that_answers_is_taken() -> None:
    endpoints = [Endpoint([LOOPBACK], None) for _ in range(2)]
    with socket.create_server((LOOPBACK, 0)) as closed:
        nobody = closed.getsockname()[1]
    for end in endpoints:
        end.routes.insert(0, Route(LOOPBACK, nobody, nobody))
    made = [connect(end, generation_of(endpoints, worker), GENEROUS) for worker, end in enumerate(endpoints)]
    with made[0], made[1]:
        exchanged(made, "there")


def test_a_worker_that_was_replaced_or_left_behind_is_interrupted(tmp_path: Path) -> None:
    folder = LocalStorage(tmp_path, private=True)
    tasks = [Rendezvous(folder, job="j", worker=worker, workers=2) for worker in range(2)]
    made = in_threads([partial(join, each, None, timeout_seconds=GENEROUS) for each in tasks])
    anew = Rendezvous(folder, job="j", worker=1, workers=2, timeout_seconds=0.0)
    with made[0] as left, made[1] as replaced:
        for each, own in zip(made, tasks, strict=True):
            each.watch_generations(own.workers_ahead, 0.05)
        with pytest.raises(Exception, match="1 of 2 workers came"):
            anew.join_generation([Route(LOOPBACK, 1, 1)])
        with pytest.raises(PeerLostError, match="lost worker 1: went on to a newer generation"):
            left.receive({1})
        with pytest.raises(SupersededError):
            replaced.receive({0})


def test_what_is_late_or_strange_is_dropped_and_a_gap_is_noticed() -> None:
    with group(2, None) as members:
        address = members[0]._endpoint.routes[0]
        with zmq.Context() as context, context.socket(zmq.PUSH) as stranger:
            stranger.connect(f"tcp://{LOOPBACK}:{address.messages}")
            tag = members[0]._tags[0]
            for header in (b"", b"x" * 28, struct.pack("<16sIQ", b"y" * 16, 1, 0), struct.pack("<16sIQ", tag, 9, 0)):
                stranger.send_multipart([header, b"strange"])
            stranger.send_multipart([struct.pack("<16sIQ", tag, 1, 0), b"in order"])
            assert bytes(members[0].receive({1})[1][0]) == b"in order"
            stranger.send_multipart([struct.pack("<16sIQ", tag, 1, 2), b"after a gap"])
            with pytest.raises(PeerLostError, match="its messages were lost on the way"):
                members[0].receive({1})


@pytest.mark.parametrize("key", ["none", "another", "knows the server's"])
@pytest.mark.parametrize("kind", [zmq.PUSH, zmq.SUB])
def test_a_stranger_can_neither_send_nor_listen(key: str, kind: int) -> None:
    keys = new_keys()
    with group(2, keys) as members, zmq.Context() as context, context.socket(kind) as stranger:
        stranger.linger = 0
        if key != "none":
            own = new_keys()
            stranger.curve_publickey, stranger.curve_secretkey = own.public, own.secret
            stranger.curve_serverkey = own.public if key == "another" else keys.public
        if kind == zmq.SUB:
            stranger.subscribe(b"")
        refused = (
            zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
        )
        # a client that does not know the server's key gets no answer: the connection ends
        refused |= zmq.EVENT_DISCONNECTED
        events = stranger.get_monitor_socket(refused | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        route = members[0]._endpoint.routes[0]
        port = route.messages if kind == zmq.PUSH else route.beats
        stranger.connect(f"tcp://{LOOPBACK}:{port}")
        if kind == zmq.PUSH:
            stranger.send_multipart([struct.pack("<16sIQ", members[0]._tags[0], 1, 0), b"false"])
        assert events.poll(20_000)
        assert recv_monitor_message(events)["event"] & refused
        exchanged(members, "undisturbed")
        if kind == zmq.SUB:
            assert not stranger.poll(0)
        stranger.disable_monitor()


def test_garbage_does_no_harm() -> None:
    with group(2, new_keys()) as members:
        route = members[0]._endpoint.routes[0]
        for port in (route.messages, route.beats):
            with socket.create_connection((LOOPBACK, port)) as stranger:
                stranger.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(range(256)) * 100)
        exchanged(members, "undisturbed")


class Wire:
    """Passes connections on to a port and keeps every byte that goes over it."""

    def __init__(self, port: int) -> None:
        self.seen = bytearray()
        self._target = port
        self._server = socket.create_server((LOOPBACK, 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.create_connection((LOOPBACK, self._target)) as server:
            other = {client: server, server: client}
            while True:
                for each in select.select([client, server], [], [])[0]:
                    data = each.recv(65536)
                    if not data:
                        return
                    self.seen += data
                    other[each].sendall(data)

    def close(self) -> None:
        self._server.close()


@pytest.mark.parametrize("encrypted", [True, False])
def test_what_goes_over_the_wire_cannot_be_read(encrypted: bool) -> None:
    keys = new_keys() if encrypted else None
    endpoints = [Endpoint([LOOPBACK], keys) for _ in range(2)]
    real = endpoints[0].routes[0]
    wires = [Wire(real.messages), Wire(real.beats)]
    endpoints[0].routes[:] = [Route(LOOPBACK, wires[0].port, wires[1].port)]
    made = [connect(end, generation_of(endpoints, worker), GENEROUS) for worker, end in enumerate(endpoints)]
    with made[0], made[1]:
        exchanged(made, "a secret")
    seen = bytes(wires[0].seen)
    assert seen
    assert (b"a secret 1 to 0" in seen) is not encrypted
    for wire in wires:
        wire.close()
    if keys is not None:
        assert keys.secret not in seen


def test_the_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = LocalStorage(tmp_path / "run" / "group", private=True)
        keys = make_keys(folder)
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder.path / FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert read_keys(folder) == make_keys(folder) == keys  # a second driver's call changes nothing
    assert keys.secret.decode() not in repr(keys)
    assert len(keys.fingerprint) == 16


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"public": 1, "secret": 2}', "pair"])
def test_a_damaged_key_is_refused(tmp_path: Path, text: str) -> None:
    folder = LocalStorage(tmp_path, private=True)
    if text == "pair":
        one, other = new_keys(), new_keys()
        text = f'{{"format_version": 1, "public": "{one.public.decode()}", "secret": "{other.secret.decode()}"}}'
    folder.write(FILE, text.encode())
    with pytest.raises(MismatchError, match=r"key\.json"):
        read_keys(folder)
