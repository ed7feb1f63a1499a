"""``nnjobs cluster`` with real daemons."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from failures import (
    USER,
    applications,
    containers,
    hanging,
    kill_application,
    lost,
    restart,
    running_applications,
    wait_until,
)
from processes import started

from jobs.commands.cluster import cluster as command
from jobs.minicluster.cluster import Cluster
from jobs.minicluster.daemons import DAEMONS
from jobs.minicluster.java import find_java
from jobs.minicluster.processes import containers_of, daemons_of, user_processes
from jobs.minicluster.readiness import DIRECT, NotReadyError, check_daemon, fetch
from jobs.minicluster.settings import ClusterSettings, free_ports, load_settings
from nnlib.core.errors import JobError


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def put(settings: ClusterSettings, path: str, content: bytes) -> None:
    """Through WebHDFS; the NameNode sends us on to the DataNode."""
    query = f"op=CREATE&overwrite=true&noredirect=true&user.name={USER}"
    address = f"{settings.web('namenode_http')}/webhdfs/v1{path}?{query}"
    with DIRECT.open(urllib.request.Request(address, method="PUT")) as answer:
        place = json.load(answer)["Location"]
    with DIRECT.open(urllib.request.Request(place, content, method="PUT")) as answer:
        assert answer.status == 201


def get(settings: ClusterSettings, path: str) -> bytes:
    with DIRECT.open(f"{settings.web('namenode_http')}/webhdfs/v1{path}?op=OPEN&user.name={USER}") as answer:
        content: bytes = answer.read()
        return content


@pytest.fixture
def folder(hadoop: Cluster, tmp_path: Path) -> Iterator[Path]:
    """Where a second cluster can be, which leaves nothing behind whatever becomes of the test."""
    path = tmp_path / "second"
    yield path
    Cluster(path).stop(delete=True)


def test_status_tells_of_every_daemon(hadoop: Cluster) -> None:
    result = run("status", "--dir", str(hadoop.folder), "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["ready"] and found["live_nodes"] == 1 and found["hdfs_free"] > 0
    pids = {state["name"]: state["pid"] for state in found["daemons"]}
    assert pids == {name: process.pid for name, process in daemons_of(hadoop.folder).items()}
    text = run("status", "--dir", str(hadoop.folder)).stdout
    assert all(daemon.title in text for daemon in DAEMONS.values())
    assert "live nodes 1" in text


def test_starting_a_running_one_says_so(hadoop: Cluster) -> None:
    before = daemons_of(hadoop.folder)
    result = run("start", "--dir", str(hadoop.folder))
    assert result.exit_code == 0 and "runs already" in result.stdout
    assert f"export HADOOP_CONF_DIR={hadoop.folder}/conf" in result.stdout
    assert daemons_of(hadoop.folder) == before
    result = run("start", "--dir", str(hadoop.folder), "--memory", "9000")
    assert result.exception is not None and "runs with 4096 MB" in str(result.exception)


def test_a_streaming_job_through_the_launcher(hadoop: Cluster, hadoop_env: dict[str, str]) -> None:
    """As mrjob calls it; ``hadoop fs`` understands names with spaces, the history server knows the job afterwards."""
    settings = hadoop.settings
    (jar,) = settings.hadoop_home.glob("share/hadoop/tools/lib/hadoop-streaming-*.jar")
    put(settings, "/tmp/words/in%20put.txt", b"b\na\nb\n")
    options = [
        "-D",
        "mapreduce.job.ubertask.enable=true",
        "-D",
        "mapreduce.job.maps=1",
        "-D",
        "mapreduce.job.name=count",
    ]
    paths = ["-input", "/tmp/words", "-output", "/tmp/counts", "-mapper", "cat", "-reducer", "uniq -c"]
    program = str(settings.hadoop_home / "bin/hadoop")
    subprocess.run([program, "jar", str(jar), *options, *paths], check=True, capture_output=True)
    assert get(settings, "/tmp/counts/part-00000").split() == [b"1", b"a", b"2", b"b"]
    listed = subprocess.run(
        [program, "fs", "-cat", "/tmp/words/in put.txt"], check=True, capture_output=True, text=True
    )
    assert listed.stdout == "b\na\nb\n"

    def known() -> list[tuple[object, ...]]:
        jobs = fetch(settings, "historyserver_http", "/ws/v1/history/mapreduce/jobs")["jobs"] or {"job": []}
        return [(job["state"], job["mapsTotal"]) for job in jobs["job"] if job["name"] == "count"]

    # The application master hands the history over when the client has been told already.
    wait_until(known, "the history server knows the job")
    assert known() == [("SUCCEEDED", 1)]


@pytest.mark.full
def test_a_start_that_is_killed_and_a_cluster_beside(hadoop: Cluster, folder: Path) -> None:
    start = [sys.executable, "-m", "jobs", "cluster", "start", "--dir", str(folder)]
    with started(start, stderr=subprocess.DEVNULL) as starter:
        wait_until(lambda: daemons_of(folder), "a daemon is there")
        starter.kill()
        starter.wait()
        assert daemons_of(folder)
        result = run("stop", "--dir", str(folder))
        assert result.exit_code == 0 and "stopped" in result.stdout
        assert not [process for process in user_processes() if str(folder) in process.command]

    # The same folder, half made, is taken up again; the other cluster runs all the while.
    result = run("start", "--dir", str(folder), "--memory", "2048", "--vcores", "1", "--json")
    assert result.exit_code == 0, result.output
    settings = load_settings(folder)
    assert settings is not None
    assert not set(settings.ports.values()) & set(hadoop.settings.ports.values())
    metrics = fetch(settings, "resourcemanager_http", "/ws/v1/cluster/metrics")["clusterMetrics"]
    assert (metrics["totalMB"], metrics["totalVirtualCores"]) == (2048, 1)
    put(settings, "/tmp/kept", b"content")

    assert run("stop", "--dir", str(folder)).exit_code == 0
    assert not [process for process in user_processes() if str(folder) in process.command]
    assert run("status", "--dir", str(folder)).exit_code == 4
    assert run("start", "--dir", str(folder)).exit_code == 0
    assert load_settings(folder) == settings, "ports and sizes are kept"
    assert get(settings, "/tmp/kept") == b"content"
    assert run("stop", "--dir", str(folder), "--delete").exit_code == 0
    assert not folder.exists()
    assert run("status", "--dir", str(hadoop.folder)).exit_code == 0


@pytest.mark.full
def test_a_daemon_that_fails_is_named_and_all_is_stopped(hadoop: Cluster, folder: Path) -> None:
    ClusterSettings(folder, hadoop.settings.hadoop_home, find_java().home, 2048, 2, free_ports()).save()
    (folder / "data").mkdir()
    (folder / "data/blocks").write_text("a file where the DataNode wants a folder")
    result = run("start", "--dir", str(folder))
    assert isinstance(result.exception, JobError)
    message = str(result.exception)
    assert "the DataNode ended with exit code 1" in message
    assert "data/blocks" in message and "datanode.log" in message
    assert "stopping what was started" in result.stderr
    assert not daemons_of(folder)


@pytest.mark.full
def test_a_port_that_is_taken_is_told(fragile: Cluster) -> None:
    fragile.stop_daemon("historyserver")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", fragile.settings.ports["historyserver_http"]))
        other.listen()
        with pytest.raises(JobError, match=r"the JobHistoryServer ended(.|\n)*(Port in use|Address already in use)"):
            fragile.start_daemon("historyserver")
    fragile.start_daemon("historyserver")


@pytest.mark.full
def test_hdfs_survives_its_daemons(fragile: Cluster) -> None:
    put(fragile.settings, "/tmp/survivor", b"content")
    restart(fragile, "namenode", "datanode")
    assert get(fragile.settings, "/tmp/survivor") == b"content"
    with lost(fragile, "datanode"):
        assert run("status", "--dir", str(fragile.folder)).exit_code == 4
        with pytest.raises(OSError):
            get(fragile.settings, "/tmp/survivor")
    assert get(fragile.settings, "/tmp/survivor") == b"content"


@pytest.mark.full
def test_containers_survive_the_managers(fragile: Cluster, hadoop_env: dict[str, str]) -> None:
    """A mapper goes on while YARN's daemons are killed and come back."""
    settings = fragile.settings
    (jar,) = settings.hadoop_home.glob("share/hadoop/tools/lib/hadoop-streaming-*.jar")
    put(settings, "/tmp/one/line", b"x\n")
    command = [str(settings.hadoop_home / "bin/hadoop"), "jar", str(jar), "-D", "mapreduce.job.reduces=0"]
    command += ["-D", "mapreduce.job.maps=1", "-input", "/tmp/one", "-output", "/tmp/never", "-mapper", "sleep 654321"]
    with started(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        wait_until(lambda: containers(fragile, "sleep 654321"), "the mapper runs")
        (application,) = running_applications(fragile)
        before = {process.pid for process in containers(fragile, "sleep 654321")}
        restart(fragile, "nodemanager")
        restart(fragile, "resourcemanager")
        wait_until(lambda: running_applications(fragile) == [application], "the application is known again")
        assert {process.pid for process in containers(fragile, "sleep 654321")} == before
        kill_application(fragile, application)
        wait_until(lambda: not containers_of(fragile.folder), "the containers have ended")
        assert {app["finalStatus"] for app in applications(fragile) if app["id"] == application} == {"KILLED"}


@pytest.mark.full
def test_a_hanging_daemon_is_not_up(fragile: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.minicluster.readiness.SECONDS", 0.5)
    with hanging(fragile, "historyserver"), pytest.raises(NotReadyError, match="does not answer"):
        check_daemon(fragile.settings, "historyserver")
