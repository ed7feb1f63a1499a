"""What a command says while its job waits on a cluster: who does not answer, what is ahead in the queue, lost nodes."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from played_hadoop import APPLICATION, Yarn, yarn

from jobs.mapreduce.round_job import RoundJob
from jobs.runners.hadoop import job_watch
from jobs.runners.hadoop.job_watch import job_text, watched
from jobs.runners.hadoop.submission import State, Submission
from jobs.runners.request import JobRequest
from nnlib.core import waiting
from nnlib.core.waiting import WaitReport, waits_reported_to

__all__ = ["yarn"]

REQUEST = JobRequest(job=RoundJob, phase="train", name="train 3", experiment="e", label="l", lines=["{}"])
APPS = f"/ws/v1/cluster/apps/{APPLICATION}"
ALL_APPS, SCHEDULER, METRICS = "/ws/v1/cluster/apps", "/ws/v1/cluster/scheduler", "/ws/v1/cluster/metrics"


def submitted(host: str, *lines: str) -> Submission:
    submission = Submission()
    submission.read_line(f"INFO impl.YarnClientImpl: Submitted application {APPLICATION}")
    submission.read_line(f"INFO mapreduce.Job: The url to track the job: http://{host}/proxy/{APPLICATION}/")
    for line in lines:
        submission.read_line(line)
    return submission


def app(state: str, **facts: Any) -> dict[str, Any]:
    return {"app": {"id": APPLICATION, "state": state, "queue": "etl", "startedTime": 100, **facts}}


def queue(**facts: Any) -> dict[str, Any]:
    leaf = {"queueName": "etl", "absoluteCapacity": 25.0, "absoluteMaxCapacity": 50.0, "absoluteUsedCapacity": 24.6}
    below = {"queueName": "teams", "queues": {"queue": [{"queueName": "web"}, leaf | facts]}}
    return {"scheduler": {"schedulerInfo": {"queueName": "root", "queues": {"queue": below}}}}


def test_before_the_client_has_submitted() -> None:
    assert job_text(REQUEST, Submission()) == ("submitting", "train 3: is being submitted by the Hadoop client")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("INFO ipc.Client: Retrying connect to server: m0/10.0.0.1:8032. Already tried 4 time(s); retry policy is R",
         "train 3: m0/10.0.0.1:8032 does not answer the Hadoop client"),
        ("WARN ipc.Client: Exception : GSS initiate failed [Caused by Failed to find any Kerberos tgt]",
         "train 3: the Hadoop client has no valid Kerberos ticket (kinit)"),
    ],
)  # fmt: skip
def test_what_the_client_complains_of(line: str, text: str) -> None:
    submission = Submission()
    submission.read_line(line)
    assert job_text(REQUEST, submission) == ("submitting", text)


def test_an_application_that_waits_in_its_queue(yarn: tuple[str, type[Yarn]]) -> None:
    host, server = yarn
    said = (
        "[Mon Nov 30 20:00:00 +0000 2026] Application is added to the scheduler and is not yet activated. Queue's AM "
    )
    said += "resource limit exceeded.  Details : AM Partition = <DEFAULT_PARTITION>; AM Resource Request = <memory:512>"
    others = [
        {"id": "a", "state": "RUNNING", "startedTime": 1},
        {"id": "b", "state": "ACCEPTED", "startedTime": 99},
        {"id": "c", "state": "ACCEPTED", "startedTime": 101},
        {"id": APPLICATION, "state": "ACCEPTED", "startedTime": 100},
    ]
    server.answers = {
        APPS: app("ACCEPTED", diagnostics=said),
        ALL_APPS: {"apps": {"app": others}},
        SCHEDULER: queue(),
        METRICS: {"clusterMetrics": {"activeNodes": 2, "lostNodes": 1, "unhealthyNodes": 0}},
    }
    assert job_text(REQUEST, submitted(host)) == (
        "accepted",
        f"train 3: {APPLICATION} waits in queue etl (ACCEPTED): the queue has 25 % of the cluster, at most 50 %, "
        "25 % are in use; applications there: 1 running, 1 waiting before this one; nodes: 2 running, 1 lost; "
        "Application is added to the scheduler and is not yet activated. Queue's AM resource limit exceeded.",
    )


def test_a_cluster_without_nodes(yarn: tuple[str, type[Yarn]]) -> None:
    host, server = yarn
    server.answers = {APPS: app("ACCEPTED"), METRICS: {"clusterMetrics": {"activeNodes": 0, "lostNodes": 3}}}
    text = f"train 3: {APPLICATION} waits in queue etl (ACCEPTED): no node is running"
    assert job_text(REQUEST, submitted(host)) == ("accepted", text)


def test_a_running_job_says_how_far_it_is_and_what_it_lacks(yarn: tuple[str, type[Yarn]]) -> None:
    host, server = yarn
    server.answers = {APPS: app("RUNNING"), SCHEDULER: queue(pendingContainers=3)}
    submission = submitted(host, "INFO mapreduce.Job:  map 37% reduce 0%")
    waits = f"train 3: map 37 %, reduce 0 %, containers that queue etl has no room for: 3 ({APPLICATION})"
    assert job_text(REQUEST, submission) == ("running", waits)
    server.answers = {APPS: app("RUNNING")}
    assert job_text(REQUEST, submitted(host))[1] == f"train 3: its tasks have not started ({APPLICATION})"


def test_pages_that_do_not_answer(yarn: tuple[str, type[Yarn]]) -> None:
    host, _ = yarn
    text = f"train 3: {APPLICATION} runs, but YARN's pages do not answer at http://{host}"
    assert job_text(REQUEST, submitted(host)) == ("silent", text)


def test_a_job_that_is_being_ended() -> None:
    submission = submitted("h:1")
    submission.state = State.ENDED
    assert job_text(REQUEST, submission) == ("ending", f"train 3: ending {APPLICATION}")


def test_waits_are_reported_when_a_job_goes_on(yarn: tuple[str, type[Yarn]], monkeypatch: pytest.MonkeyPatch) -> None:
    """From the queue to the containers: the second wait counts from its own begin."""
    host, server = yarn
    for name, value in (("FIRST_SECONDS", 0.0), ("CHANGE_SECONDS", 0.0), ("CHECK_SECONDS", 0.01)):
        monkeypatch.setattr(waiting, name, value)
    monkeypatch.setattr(job_watch, "FIRST_SECONDS", 0.01)
    monkeypatch.setattr(job_watch, "POLL_SECONDS", 0.05)
    server.answers = {APPS: app("ACCEPTED")}
    reports: list[WaitReport] = []

    def until(text: str) -> None:
        deadline = time.monotonic() + 10.0
        while not any(text in report.what for report in reports):
            assert time.monotonic() < deadline, reports
            time.sleep(0.01)

    before = threading.active_count()
    with waits_reported_to(reports.append), watched(REQUEST, submitted(host)):
        until("waits in queue etl")
        server.answers = {APPS: app("RUNNING")}
        until("its tasks have not started")
    assert reports[-1].is_over
    deadline = time.monotonic() + 10.0
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before
