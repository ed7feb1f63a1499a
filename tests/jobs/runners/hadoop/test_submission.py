"""What the client of a job tells, and how a failed job is explained."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from played_hadoop import APPLICATION, ATTEMPT, Yarn, play

from jobs.runners.hadoop.diagnosis import explain
from jobs.runners.hadoop.submission import Submission, submit

TOLD = f"""\
2026-01-01 10:00:00,000 INFO impl.YarnClientImpl: Submitted application {APPLICATION}
2026-01-01 10:00:00,001 INFO mapreduce.Job: The url to track the job: http://rm:8088/proxy/{APPLICATION}/
2026-01-01 10:00:09,000 INFO mapreduce.Job: Task Id : {ATTEMPT}, Status : FAILED
Error: java.lang.RuntimeException: PipeMapRed.waitOutputThreads(): subprocess failed with code 1
2026-01-01 10:00:10,000 INFO mapreduce.Job: Counters: 2
\tFile System Counters
\t\tFILE: Number of bytes read=0
\tJob Counters
\t\tLaunched map tasks=4
\tnnjobs
\t\texamples=3500
"""


def test_the_client_is_heard() -> None:
    submission = Submission()
    for line in TOLD.splitlines():
        submission.read_line(line)
    assert (submission.application, submission.web) == (APPLICATION, "http://rm:8088")
    assert submission.job == "job_1700000000000_12345"
    assert submission.failed == [ATTEMPT]
    assert submission.counters["nnjobs"] == {"examples": 3500}
    assert submission.map_attempts == 4


def test_without_the_history_server_the_client_tells_which_attempt_failed(yarn: tuple[str, type[Yarn]]) -> None:
    host, handler = yarn
    handler.answers = {
        f"/ws/v1/cluster/apps/{APPLICATION}": {"app": {"amContainerLogs": f"http://{host}/node/container_7/me"}},
        "/ws/v1/node/containers/container_7/logs/stderr": "LogContents:\nZeroDivisionError: division by zero\n",
    }
    submission = Submission()
    for line in TOLD.replace("rm:8088", host).splitlines():
        submission.read_line(line)
    error = explain(submission, "yarn", {})
    assert error.where["attempt"] == submission.failed[-1]
    assert error.where["node"] == host
    assert "division by zero" in error.message

    submission.failed.clear()
    handler.answers[f"/ws/v1/cluster/apps/{APPLICATION}"]["app"]["diagnostics"] = (
        "Task failed task_1_2_m_000003\nJob failed"
    )
    where = explain(submission, "yarn", {}).where
    assert where["task"] == "task_1_2_m_000003"
    assert "attempt" not in where


def test_a_failed_job_is_one_error_with_the_attempts_log(yarn: tuple[str, type[Yarn]]) -> None:
    host, handler = yarn
    job = "/ws/v1/history/mapreduce/jobs/job_1700000000000_12345"
    task = "task_1700000000000_12345_m_000003"
    log = "nnjobs: worker 3 on node7\nINFO: noise\nTraceback (most recent call last):\n"
    log += '  File "a.py", line 1, in f\n    g()\nZeroDivisionError: division by zero\n'
    handler.answers = {
        f"/ws/v1/cluster/apps/{APPLICATION}": {"app": {"diagnostics": "Task failed"}},
        f"/proxy/{APPLICATION}/": f"-> http://{host}/jobhistory/job/x",
        "/jobhistory/job/x": "a page",
        f"{job}/tasks": {"tasks": {"task": [{"id": "other", "state": "SUCCEEDED"}, {"id": task, "state": "FAILED"}]}},
        f"{job}/tasks/{task}/attempts": {
            "taskAttempts": {
                "taskAttempt": [
                    {
                        "id": ATTEMPT,
                        "state": "FAILED",
                        "assignedContainerId": "container_1",
                        "nodeHttpAddress": "127.0.0.1:1",  # gone: the history server has the log
                        "diagnostics": "subprocess failed with code 1",
                    }
                ]
            }
        },
        "/ws/v1/history/containerlogs/container_1/stderr": f"LogContents:\n{log}\nEnd of LogType:stderr\n****",
    }
    submission = Submission()
    for line in TOLD.replace("rm:8088", host).splitlines():
        submission.read_line(line)
    error = explain(submission, "/no/such/yarn", os.environ)
    assert error.where["attempt"] == ATTEMPT
    assert error.where["worker"] == 3
    assert error.message.splitlines()[1].strip() == "Traceback (most recent call last):"
    assert error.message.splitlines()[-1].strip() == "ZeroDivisionError: division by zero"
    assert "noise" not in error.message
    assert not error.lasting


@pytest.mark.parametrize(
    ("line", "message", "lasting"),
    [
        ('java.io.IOException: Cannot run program "python9": error=2', "a node has no Python python9", True),
        ("ModuleNotFoundError: No module named 'numpy'", "lacks the module numpy", True),
        ("python: /lib/libc.so.6: version `GLIBC_2.38' not found", "GLIBC_2.38", True),
        ("JobError: there is no run directory /home/me/a on this node", "reach the run directory /home/me/a", True),
        ("Container [pid=1] is running beyond physical memory limits. Current", "more physical memory", False),
        ("nnjobs: worker 1 on node7 ended by SIGKILL", "a worker's process was ended by SIGKILL", False),
        ("AttemptID:x Timed out after 12 secs", "a task hung: it showed no progress for 12 s", False),
        ("AttemptID:x task timeout set: 12s, taskTimedOut: true; task stuck timeout", "no progress for 12 s", False),
        ("File /a/b could only be written to 0 of the 1 minReplication nodes. There are 1", "no DataNode", True),
        ("BlockMissingException: Could not obtain block: BP-1:blk_2 file=/a/b No live nodes", "lost: /a/b", True),
        ("to unknown queue: research", "no queue research", True),
        ("DSQuotaExceededException: The DiskSpace quota", "quota", True),
        ("DSQuotaExceededException: The DiskSpace quota of /a b/c is exceeded: quota = 1 B", "of /a b/c is used", True),
        ("The NameSpace quota (directories and files) of directory /a is exceeded: quota=1", "of /a is used", True),
        ("java.net.ConnectException: Connection refused", "does not answer", False),
    ],
)
def test_failures_with_a_name(line: str, message: str, lasting: bool) -> None:
    submission = Submission()
    submission.read_line(line)
    error = explain(submission, "/no/such/yarn", os.environ)
    assert message in error.message
    assert error.hint
    assert error.lasting is lasting


@pytest.mark.parametrize("line", ["GSSException: Failed to find any Kerberos tgt", "KrbException: Ticket expired (32)"])
def test_a_client_without_a_ticket_is_ended_at_once(hadoop_home: Path, line: str) -> None:
    """It would try again for minutes. The error says what it lacks."""
    play(hadoop_home, "hadoop", f"echo 'WARN ipc.Client: {line}' >&2; exec sleep 3600")
    submission, program = Submission(), str(hadoop_home / "bin" / "hadoop")
    assert submit([program], os.environ, program, submission) != 0
    error = explain(submission, program, os.environ)
    assert "has no good Kerberos ticket" in error.message and error.lasting
    assert "kinit" in str(error.hint)


def test_a_client_whose_job_runs_may_complain(hadoop_home: Path) -> None:
    play(hadoop_home, "hadoop", f"echo 'Submitted application {APPLICATION}' >&2; echo 'Ticket expired' >&2; exit 0")
    program = str(hadoop_home / "bin" / "hadoop")
    assert submit([program], os.environ, program, Submission()) == 0
