"""One real Hadoop for all tests of a session. Without Java or Maven they skip, but where CI runs them they fail."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator

import hosts
import kerberos_cluster as kerberos_cluster_module
import pytest
from failures import heal
from host_cluster import CLIENT, MASTER, WORKERS, HostCluster
from kerberos_cluster import KerberosCluster

from jobs.minicluster.assemble import assembly_folder
from jobs.minicluster.cluster import Cluster
from jobs.minicluster.java import find_java
from nnlib.core.errors import UsageError


def lacking() -> str | None:
    """Why no Hadoop can run here."""
    try:
        find_java()
    except UsageError as error:
        return error.message
    if not assembly_folder().is_dir() and shutil.which("mvn") is None:
        return "Hadoop is assembled by Maven, and there is no mvn on PATH"
    return None


def required() -> bool:
    """Whether a machine without Hadoop is an error."""
    return any(os.environ.get(name, "0") not in ("", "0", "false") for name in ("CI", "NNJOBS_REQUIRE_HADOOP"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Here rather than in the fixture: pytest then tells of a file in one line, not of every test.
    several = lacking() or hosts.lacking()
    for fixture, reason in (("hadoop", lacking()), ("host_cluster", several), ("kerberos_cluster", several)):
        for item in items:
            if reason is not None and not required() and fixture in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.skip(reason=f"no Hadoop: {reason}"))
    # Also in CI: what it needs is the system's.
    if (reason := kerberos_cluster_module.lacking() or hosts.lacking()) is not None:
        for item in items:
            if "kerberos_cluster" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.skip(reason=f"no Kerberos: {reason}"))


@pytest.fixture(scope="session")
def hadoop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running cluster. `Cluster.settings` has its addresses, `hadoop_env` makes this process use it."""
    if (reason := lacking()) is not None:
        pytest.fail(f"the Hadoop tests cannot run: {reason}", pytrace=False)
    cluster = Cluster(tmp_path_factory.mktemp("hadoop"))
    # A test run that is ended from outside (`timeout`, a cancelled CI job) stops its daemons, too.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop(delete=True)
        signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def host_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostCluster]:
    """A running Hadoop of several hosts, each with a network of its own."""
    if (reason := lacking() or hosts.lacking()) is not None:
        pytest.fail(f"the tests on several hosts cannot run: {reason}", pytrace=False)
    kept = [assembly_folder().parent, tmp_path_factory.getbasetemp()]
    with hosts.Network(tmp_path_factory.mktemp("hosts"), [MASTER, *WORKERS, CLIENT], kept=kept) as network:
        cluster = HostCluster(network)
        cluster.start()
        yield cluster


@pytest.fixture(scope="session")
def kerberos_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KerberosCluster]:
    """A running Hadoop with Kerberos."""
    if (reason := lacking() or hosts.lacking()) is not None:
        pytest.fail(f"the tests with Kerberos cannot run: {reason}", pytrace=False)
    kept = [assembly_folder().parent, tmp_path_factory.getbasetemp()]
    names = [kerberos_cluster_module.MASTER, kerberos_cluster_module.CLIENT]
    with hosts.Network(tmp_path_factory.mktemp("kerberos"), names, kept=kept) as network:
        cluster = KerberosCluster(network)
        cluster.start()
        yield cluster


@pytest.fixture(scope="module")
def used_hadoop(hadoop: Cluster) -> Iterator[Cluster]:
    """The cluster, which this process uses until the tests of a file are done."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in hadoop.settings.environment().items():
            patch.setenv(name, value)
        yield hadoop


@pytest.fixture
def hadoop_env(hadoop: Cluster, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The variables by which ``hadoop``, mrjob and nnjobs find the cluster, set for one test."""
    variables = hadoop.settings.environment()
    variables["PATH"] = f"{hadoop.settings.hadoop_home / 'bin'}{os.pathsep}{os.environ['PATH']}"
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.fixture
def fragile(hadoop: Cluster) -> Iterator[Cluster]:
    """The cluster for a test that kills daemons: afterwards all run again and no application is left."""
    try:
        yield hadoop
    finally:
        heal(hadoop)
