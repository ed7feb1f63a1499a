"""Whatever ends a job's driver ends the job, too, and nothing of it is left."""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from played_hadoop import APPLICATION, ATTEMPT, Yarn, after, configured, play, said

from jobs.runners.hadoop.kill import kill_application, kill_attempt
from jobs.runners.hadoop.orphans import folder_name, sweep
from jobs.runners.hadoop.submission import Submission, submit
from jobs.runners.hadoop.yarn_rest import application, current_manager, resource_manager
from nnlib.core.events import Note
from nnlib.core.scratch import folder_prefix
from nnlib.storage import storage

JOB = APPLICATION.replace("application", "job")
PLACE = f"/ws/v1/cluster/apps/{APPLICATION}"


def test_whatever_ends_the_wait_kills_the_application(
    hadoop_home: Path, yarn: tuple[str, type[Yarn]], monkeypatch: pytest.MonkeyPatch
) -> None:
    host, handler = yarn
    handler.answers = {f"/ws/v1/cluster/apps/{APPLICATION}/state": {"state": "KILLED"}}
    script = f"echo 'Submitted application {APPLICATION}' >&2; echo 'url to track the job: http://{host}/x' >&2\n"
    play(hadoop_home, "hadoop", f"{script}exec sleep 3600")

    def read_line(self: Submission, line: str) -> None:
        original(self, line)
        if self.web:
            raise KeyboardInterrupt

    original = Submission.read_line
    monkeypatch.setattr(Submission, "read_line", read_line)
    with pytest.raises(KeyboardInterrupt):
        submit([str(hadoop_home / "bin" / "hadoop")], os.environ, str(hadoop_home / "bin" / "yarn"), Submission())
    ((path, body),) = [(path, body) for method, path, body in handler.heard if method == "PUT"]
    assert json.loads(body) == {"state": "KILLED"}
    assert path.startswith(f"/ws/v1/cluster/apps/{APPLICATION}/state?user.name=")
    assert said(hadoop_home, "yarn") == []
    handler.answers = {}  # a resource manager that lets nobody kill over HTTP
    with pytest.raises(KeyboardInterrupt):
        submit([str(hadoop_home / "bin" / "hadoop")], os.environ, str(hadoop_home / "bin" / "yarn"), Submission())
    assert said(hadoop_home, "yarn") == ["application", "-kill", APPLICATION]


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ("begins", f"Submitted application {APPLICATION}"),
        (f"Disabling Erasure Coding for path: /user/me/.staging/{JOB}", "nothing more"),
        (f"Submitting tokens for job: {JOB}", "nothing more"),
    ],
)
def test_an_interrupt_meets_the_client_while_it_submits(
    first: str, last: str, hadoop_home: Path, yarn: tuple[str, type[Yarn]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have told of the job before it submitted it, or still tell of it at its end; of YARN's address never."""
    host, handler = yarn
    # What the client has started keeps its standard error open: that must not be waited for.
    trap = f"trap \"echo '{last}' >&2; exit 143\" TERM"
    script = f"sleep 3600 &\necho $! > '{hadoop_home}/child'\n{trap}\necho {first} >&2\nwhile :; do sleep 0.1; done"
    play(hadoop_home, "hadoop", script)
    play(hadoop_home, "yarn", "true")

    def read_line(self: Submission, line: str) -> None:
        original(self, line)
        if line == first:
            raise KeyboardInterrupt

    original = Submission.read_line
    monkeypatch.setattr(Submission, "read_line", read_line)
    with pytest.raises(KeyboardInterrupt):
        submit([str(hadoop_home / "bin" / "hadoop")], os.environ, str(hadoop_home / "bin" / "yarn"), Submission())
    os.kill(int((hadoop_home / "child").read_text()), signal.SIGKILL)  # it was still there
    assert said(hadoop_home, "yarn") == ["application", "-kill", APPLICATION]
    configured(hadoop_home, {"yarn.resourcemanager.webapp.address": host})
    handler.answers = {f"{PLACE}/state": {"state": "KILLED"}}
    with pytest.raises(KeyboardInterrupt):
        submit([str(hadoop_home / "bin" / "hadoop")], os.environ, str(hadoop_home / "bin" / "yarn"), Submission())
    os.kill(int((hadoop_home / "child").read_text()), signal.SIGKILL)
    assert "PUT" in {method for method, _, _ in handler.heard}
    assert said(hadoop_home, "yarn") == ["application", "-kill", APPLICATION]  # no second time


def test_an_impatient_second_ctrl_c_asks_for_nothing_more(hadoop_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(hadoop_home, "hadoop", f"echo 'Submitted application {APPLICATION}' >&2\nexec sleep 3600")
    killed: list[str] = []

    waits = threading.Event()
    another = threading.Thread(target=waits.wait)  # such as follows a group: a signal may come to any thread
    another.start()

    def kill(name: str, *_: Any) -> bool:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
            signal.pthread_kill(int(another.ident or 0), number)
        time.sleep(0.1)
        killed.append(name)
        return True

    def read_line(self: Submission, line: str) -> None:
        original(self, line)
        raise KeyboardInterrupt

    original = Submission.read_line
    monkeypatch.setattr(Submission, "read_line", read_line)
    monkeypatch.setattr("jobs.runners.hadoop.submission.kill_application", kill)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt):
        submit([str(hadoop_home / "bin" / "hadoop")], os.environ, "yarn", Submission())
    waits.set()
    another.join()
    assert killed == [APPLICATION]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_of_several_resource_managers_the_active_one_is_asked(hadoop_home: Path, yarn: tuple[str, type[Yarn]]) -> None:
    host, handler = yarn
    key = "yarn.resourcemanager.webapp.address"
    assert resource_manager() is None
    configured(hadoop_home, {"yarn.resourcemanager.ha.rm-ids": "a, b", f"{key}.a": "127.0.0.1:1", f"{key}.b": host})
    info = "/ws/v1/cluster/info"
    handler.answers = {info: {"clusterInfo": {"haState": "STANDBY"}}}
    assert resource_manager() is None
    handler.answers = {info: {"clusterInfo": {"haState": "ACTIVE"}}}
    assert resource_manager() == f"http://{host}"
    handler.answers = {info: handler.answers[info], PLACE: {"app": {"state": "RUNNING"}}}
    before = "http://127.0.0.1:1"  # of the one that was active when the job was submitted
    assert current_manager(before) == f"http://{host}"
    assert application(APPLICATION, before) == {"state": "RUNNING"}
    handler.answers = {}
    assert current_manager(before) == before  # nobody knows a better one


def test_a_resource_manager_is_found_by_its_host_and_hadoops_port(hadoop_home: Path) -> None:
    configured(hadoop_home, {"yarn.resourcemanager.hostname": "rm"})
    assert resource_manager() == "http://rm:8088"
    secure = {"yarn.http.policy": "HTTPS_ONLY", "yarn.resourcemanager.webapp.address": "rm:1"}
    configured(hadoop_home, {"yarn.resourcemanager.hostname": "another.rm", **secure})
    assert resource_manager() == "https://another.rm:8090"


def test_nodes_that_nobody_reaches_are_not_asked_for_ever(
    yarn: tuple[str, type[Yarn]], monkeypatch: pytest.MonkeyPatch
) -> None:
    host, handler = yarn
    monkeypatch.setattr("jobs.runners.hadoop.kill.END_SECONDS", 0.0)
    nodes = [{"nodeHttpAddress": f"http://{host}/{number}"} for number in range(200)]
    handler.answers = {
        PLACE: {"app": {"state": "KILLED"}},
        f"{PLACE}/state": {"state": "KILLED"},
        f"{PLACE}/appattempts": {"appAttempts": {"appAttempt": [{"appAttemptId": "a"}]}},
        f"{PLACE}/appattempts/a/containers": {"container": nodes},
    }
    assert kill_application(APPLICATION, f"http://{host}", "no program", os.environ)
    assert not [path for _, path, _ in handler.heard if "/ws/v1/node/" in path]


def test_a_killed_application_is_waited_for_until_its_nodes_have_nothing_of_it(
    hadoop_home: Path, yarn: tuple[str, type[Yarn]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its master, known by its attempt, and a task, known by its container, go on for a moment behind the kill."""
    host, handler = yarn
    monkeypatch.setattr("jobs.runners.hadoop.kill.END_SECONDS", 60.0)
    attempt = {"appAttemptId": "appattempt_1_1_000001", "nodeHttpAddress": host}
    node = f"/ws/v1/node/apps/{APPLICATION}"
    another = f"/another{node}"
    handler.answers = {
        PLACE: [{"app": {"state": "RUNNING"}}, {"app": {"state": "KILLED"}}],
        f"{PLACE}/state": {"state": "KILLING"},
        f"{PLACE}/appattempts": {"appAttempts": {"appAttempt": [attempt]}},
        f"{PLACE}/appattempts/appattempt_1_1_000001/containers": [
            {"container": {"nodeHttpAddress": f"http://{host}/another"}},  # of one YARN makes no list
            {},  # once it is killed the resource manager knows of none
        ],
        node: [{"app": {"state": "RUNNING"}}, {"app": {"state": "FINISHING_CONTAINERS_WAIT"}}, "gone"],
        another: [{"app": {"state": "RUNNING"}}] * 3 + [{"app": {"state": "FINISHED"}}],
    }
    kill_application(APPLICATION, f"http://{host}", "no program", os.environ)
    asked = [path for method, path, _ in handler.heard if method == "GET"]
    assert [asked.count(path) for path in (PLACE, node, another)] == [2, 3, 4]
    assert asked.index(node) > asked.index(PLACE)


def test_an_attempt_is_ended_over_http_or_else_by_the_command(hadoop_home: Path, yarn: tuple[str, type[Yarn]]) -> None:
    host, handler = yarn
    job = f"/proxy/{APPLICATION}/ws/v1/mapreduce/jobs/job_1700000000000_12345"
    place = f"{job}/tasks/task_1700000000000_12345_m_000003/attempts/{ATTEMPT}/state"
    handler.answers = {place: {"state": "KILLED"}}
    play(hadoop_home, "mapred", "true")
    mapred = str(hadoop_home / "bin" / "mapred")
    kill_attempt(ATTEMPT, f"http://{host}", mapred, os.environ)
    ((method, path, body),) = handler.heard
    assert (method, path.partition("?")[0], json.loads(body)) == ("PUT", place, {"state": "KILLED"})
    assert said(hadoop_home, "mapred") == []
    handler.answers = {}
    kill_attempt(ATTEMPT, f"http://{host}", mapred, os.environ)
    assert said(hadoop_home, "mapred") == ["job", "-kill-task", ATTEMPT]


def test_a_ctrl_c_at_the_terminal_does_not_reach_the_client(hadoop_home: Path) -> None:
    play(hadoop_home, "hadoop", 'ps -o pgid= -p $$ >&2 2>/dev/null || cut -d" " -f5 /proc/$$/stat >&2')
    submission = Submission()
    submit([str(hadoop_home / "bin" / "hadoop")], os.environ, "yarn", submission)
    assert int(submission.lines[0]) != os.getpgid(0)


def test_what_a_killed_driver_left_is_ended(hadoop_home: Path, tmp_path: Path) -> None:
    """Of drivers of this run whoever they were, for its lock is ours; of other runs only where they died here."""
    play(hadoop_home, "yarn", f'case "$*" in *-list*) echo "Total: 1"; echo "{APPLICATION} name";; esac')
    base, run = storage(f"file://{tmp_path}"), "hdfs://host/a run"
    elsewhere = re.sub(r"nnjobs-\w+-\w+-\w+-", f"nnjobs-{'1' * 8}-99-{'2' * 8}-", folder_name(run))
    dead = re.sub(r"-\d+-(\w+)-", r"-999999999-\1-", folder_prefix()) + "00000000-" + "a" * 12
    alive = [folder_name("hdfs://host/another run"), folder_name(None)]
    other = elsewhere.replace(elsewhere.split("-")[-2], "b" * 8)
    kept = [*alive, other, "digits", f"nnjobs-{'c' * 12}"]
    for name in (elsewhere, dead, *kept):
        base.write(f"runs/{name}/plan", b"")
    notes: list[Note] = []
    sweep(base, "runs", run, notes.append)
    assert base.names("runs") == sorted(kept)
    words = said(hadoop_home, "yarn")
    assert after(words, "-appTags") == sorted([elsewhere, dead])
    assert after(words, "-kill") == [APPLICATION, APPLICATION]
    assert len(notes) == 2 and all(APPLICATION in note.text for note in notes)


def test_what_cannot_be_ended_is_not_called_ended(hadoop_home: Path, tmp_path: Path) -> None:
    play(hadoop_home, "yarn", f'case "$*" in *-list*) echo "{APPLICATION} name";; *-kill*) exit 1;; esac')
    base = storage(f"file://{tmp_path}")
    base.write(f"runs/{folder_name('hdfs://host/run')}/plan", b"")
    notes: list[Note] = []
    sweep(base, "runs", "hdfs://host/run", notes.append)
    (note,) = notes
    assert note.text == f"cannot end what a killed driver left running: {APPLICATION} (yarn application -kill)"
    assert note.level == "warning"
    assert len(base.names("runs")) == 1  # by which the next command finds it
    play(hadoop_home, "yarn", f'case "$*" in *-list*) echo "{APPLICATION} name";; esac')
    sweep(base, "runs", "hdfs://host/run", notes.append)
    assert base.names("runs") == [] and APPLICATION in notes[1].text


def test_without_yarn_the_folder_goes_all_the_same(hadoop_home: Path, tmp_path: Path) -> None:
    play(hadoop_home, "yarn", "exit 1")
    base = storage(f"file://{tmp_path}")
    base.write(f"runs/{folder_name('hdfs://host/run')}/plan", b"")
    notes: list[Note] = []
    sweep(base, "runs", "hdfs://host/run", notes.append)
    assert base.names("runs") == [] and "cannot see whether" in notes[0].text


def test_a_path_is_another_run_on_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def mark(run: str) -> str:
        return folder_name(run).split("-")[-2]

    here = mark("/runs/a"), mark("hdfs://host/a")
    monkeypatch.setattr(platform, "node", lambda: "elsewhere")
    assert (mark("/runs/a") != here[0], mark("hdfs://host/a") == here[1]) == (True, True)
    assert len(folder_name("/runs/a")) <= 100  # a tag of YARN's
