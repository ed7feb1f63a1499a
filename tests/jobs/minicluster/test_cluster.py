"""``nnjobs cluster`` without Java: files, ports, processes, refusals. integration/test_hadoop_cluster.py has it all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from processes import started
from product import ROOT

from jobs.commands.cluster import cluster as command
from jobs.minicluster import assemble, processes
from jobs.minicluster.assemble import RESOURCES, assembly_folder
from jobs.minicluster.cluster import Cluster, default_folder
from jobs.minicluster.daemons import DAEMONS, MAX_ERROR_LINES, command_line, error_lines
from jobs.minicluster.folder import locked
from jobs.minicluster.java import Java, find_java
from jobs.minicluster.processes import daemons_of, user_processes
from jobs.minicluster.settings import (
    BLOCK,
    DESCRIPTION,
    FIRST_PORT,
    PORTS,
    ClusterSettings,
    free_ports,
    is_free,
    load_settings,
    site_files,
)
from nnlib.core.errors import JobError, StorageError, UsageError

DIES = """
import sys
print("2026-01-01 INFO starting")
print("2026-01-01 ERROR namenode.NameNode: Failed to start namenode.")
print("java.net.BindException: Address already in use")
sys.exit(3)
"""
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def fake_java(home: Path, body: str = "", release: str = "17") -> Java:
    """A ``java`` that tells its release and otherwise runs ``body``, a Python program."""
    told = f"    java.home = {home}\n    java.specification.version = {release}\n"
    text = f"import sys\nif '-version' in sys.argv:\n    sys.stderr.write({told!r})\n    sys.exit(0)\n{body}"
    script(home / "bin/java", f"#!{sys.executable}\n{text}")
    return Java(home, int(release.removeprefix("1.")))


@pytest.fixture
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No Java, no Maven, an empty cache; what is called on PATH lies in ``bin``."""
    for name in ("JAVA_HOME", "NNJOBS_CLUSTER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return tmp_path


@pytest.fixture
def fake(surroundings: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster whose Hadoop is there and whose daemons all die at once."""
    assembly_folder().mkdir(parents=True)
    monkeypatch.setenv("JAVA_HOME", str(fake_java(surroundings / "java", DIES).home))
    cluster = Cluster(surroundings / "cluster")
    yield cluster
    cluster.stop()


def settings_in(folder: Path, java: Path = Path("/opt/java")) -> ClusterSettings:
    return ClusterSettings(
        folder, Path("/opt/hadoop"), java, 2048, 3, {name: 20000 + i for i, name in enumerate(PORTS)}
    )


def test_ports_are_a_block_that_is_free() -> None:
    ports = free_ports()
    assert tuple(ports) == PORTS and len(PORTS) <= BLOCK
    first = min(ports.values())
    assert sorted(ports.values()) == list(range(first, first + len(PORTS)))
    assert (first - FIRST_PORT) % BLOCK == 0 and max(ports.values()) < 32768
    with socket.socket() as other:
        other.bind(("127.0.0.1", first))
        other.listen()
        assert not is_free(first)


def test_a_layout_is_read_as_it_was_written(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    assert load_settings(tmp_path) is None
    settings.save()
    assert load_settings(tmp_path) == settings
    written = {path.name for path in settings.conf.iterdir()}
    assert written == {*site_files(settings), "capacity-scheduler.xml", "log4j.properties"}
    root = ElementTree.parse(settings.conf / "core-site.xml").getroot()
    properties = {entry.findtext("name"): entry.findtext("value") for entry in root}
    assert properties["fs.defaultFS"] == "hdfs://localhost:20000"


def test_every_port_is_given_to_hadoop_and_every_address_is_loopback(tmp_path: Path) -> None:
    values = [str(value) for properties in site_files(settings_in(tmp_path)).values() for value in properties.values()]
    for number in settings_in(tmp_path).ports.values():
        assert any(value.endswith(str(number)) or f":{number}/" in value for value in values), number
    assert not any("0.0.0.0" in value for value in values)


def test_a_damaged_description_can_still_be_deleted(tmp_path: Path) -> None:
    settings_in(tmp_path / "c").save()
    (tmp_path / "c" / DESCRIPTION).write_text('{"format_version": 2}')
    with pytest.raises(StorageError, match="stop --delete"):
        load_settings(tmp_path / "c")
    Cluster(tmp_path / "c").stop(delete=True)
    assert not (tmp_path / "c").exists()


def test_a_folder_with_something_else_is_left_alone(surroundings: Path) -> None:
    folder = surroundings / "project"
    (folder / "data").mkdir(parents=True)
    with pytest.raises(UsageError, match="holds data"):
        Cluster(folder).start()
    Cluster(folder).stop(delete=True)
    assert [path.name for path in folder.iterdir()] == ["data"]
    settings_in(surroundings / "mixed").save()
    (surroundings / "mixed/mine.txt").touch()
    result = CliRunner().invoke(command, ["stop", "--delete", "--dir", str(surroundings / "mixed")])
    assert "no cluster runs" in result.stdout and "removed" in result.stdout
    assert [path.name for path in (surroundings / "mixed").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("name", ["with space", "a,b", "a:b", "größe"])
def test_names_that_hadoop_would_split_are_refused(surroundings: Path, name: str) -> None:
    with pytest.raises(UsageError, match="another special character"):
        Cluster(surroundings / name).start()
    assert not (surroundings / name).exists()


def test_the_default_folder(surroundings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_folder() == surroundings / "cache/nnjobs/cluster"
    monkeypatch.setenv("NNJOBS_CLUSTER", "/some/where")
    assert default_folder() == Path("/some/where")


def test_a_machine_without_java_or_maven_is_left_as_it_was(surroundings: Path) -> None:
    cluster = Cluster(surroundings / "cluster")
    with pytest.raises(UsageError, match="nor a JAVA_HOME"):
        cluster.start()
    fake_java(surroundings)  # surroundings/bin is on PATH
    with pytest.raises(UsageError, match="no mvn on PATH"):
        cluster.start()
    assert not cluster.folder.exists() and not (surroundings / "cache").exists()
    assert CliRunner().invoke(command, ["status", "--dir", str(cluster.folder)]).exit_code != 0


@pytest.mark.parametrize(("release", "number"), [("1.8", 8), ("21", 21), ("24", 24)])
def test_other_javas_are_refused(
    surroundings: Path, monkeypatch: pytest.MonkeyPatch, release: str, number: int
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(fake_java(surroundings / "java", release=release).home))
    with pytest.raises(UsageError, match=f"does not run on the Java {number}") as caught:
        find_java()
    assert "JAVA_HOME" in str(caught.value) and "install a JDK 11 or 17" in str(caught.value)


@pytest.mark.parametrize("release", ["11", "17"])
def test_java_is_found(surroundings: Path, release: str) -> None:
    java = fake_java(surroundings, release=release)  # surroundings/bin is on PATH
    assert find_java() == java


def test_a_java_that_does_not_run(surroundings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(surroundings / "nowhere"))
    with pytest.raises(UsageError, match=r"JAVA_HOME=.*nowhere does not run"):
        find_java()
    script(surroundings / "nowhere/bin/java", "#!/bin/sh\necho no space left >&2\nexit 1\n")
    with pytest.raises(UsageError, match="does not run: no space left"):
        find_java()


def maven(folder: Path, body: str) -> None:
    script(folder / "bin/mvn", f"#!{sys.executable}\nimport pathlib, sys\n{body}")


JARS = """
(assembly,) = (word.partition("=")[2] for word in sys.argv if word.startswith("-Dassembly="))
pathlib.Path(assembly).mkdir(parents=True)
for name in ("hadoop-common-3.4.2.jar", "hadoop-streaming-3.4.2.jar"):
    pathlib.Path(assembly, name).touch()
"""


def test_assembling_arranges_the_jars_as_a_release_has_them(surroundings: Path) -> None:
    maven(surroundings, JARS)
    said: list[str] = []
    java = fake_java(surroundings / "java")
    stale = assemble.cache_folder() / f"{assemble.SCRATCH}killed"
    stale.mkdir(parents=True)
    os.utime(stale, (0, 0))
    home = assemble.assemble(java, said.append)
    assert home == assembly_folder() and len(said) == 1
    assert (home / "share/hadoop/tools/lib/hadoop-streaming-3.4.2.jar").exists()
    assert [path.name for path in (home / assemble.JARS).iterdir()] == ["hadoop-common-3.4.2.jar"]
    assert os.access(home / "bin/hadoop", os.X_OK) and (home / "bin/yarn").resolve() == home / "bin/hadoop"
    assert [path.name for path in home.parent.iterdir()] == [home.name], "no scratch is left"
    (surroundings / "bin/mvn").unlink()
    assert assemble.assemble(java, said.append) == home and len(said) == 1


def test_a_maven_that_fails_leaves_nothing(surroundings: Path) -> None:
    maven(surroundings, f"{JARS}\nprint('[ERROR] Could not transfer artifact: Unknown host')\nsys.exit(1)")
    with pytest.raises(JobError, match=r"exit code 1:\n.*Unknown host"):
        assemble.assemble(fake_java(surroundings / "java"), lambda text: None)
    assert not list(assemble.cache_folder().iterdir())


def test_the_files_in_bootstrap_are_those_of_the_package() -> None:
    linked = [path for path in (ROOT / "bootstrap/hadoop").iterdir() if path.suffix != ".md"]
    assert {path.resolve() for path in linked} == set(RESOURCES.resolve().iterdir())
    pom = ElementTree.parse(RESOURCES / "pom.xml")
    versions = [str(entry.text) for entry in pom.iter() if entry.tag.endswith("version")]
    assert versions and not any(word in version for version in versions for word in ("LATEST", "SNAPSHOT", "[", "("))


def test_a_daemon_that_dies_is_told_with_its_log_and_nothing_runs(fake: Cluster) -> None:
    with pytest.raises(JobError) as caught:
        fake.start()
    message = str(caught.value)
    assert "the NameNode could not make its files: exit code 3" in message
    assert "ERROR namenode.NameNode" in message and "Address already in use" in message
    assert "INFO" not in message and str(fake.folder / "logs/format.log") in message
    assert not daemons_of(fake.folder)
    result = CliRunner().invoke(command, ["status", "--dir", str(fake.folder), "--json"])
    assert result.exit_code == 4
    found = json.loads(result.stdout)
    assert not found["ready"] and {state["note"] for state in found["daemons"]} == {"down"}
    assert found["hdfs_used"] is None


def test_the_rest_of_a_killed_start_is_found_and_ended(fake: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if it hears no SIGTERM, and even if the folder is gone; a daemon of another folder is let alone."""
    monkeypatch.setattr("jobs.minicluster.cluster.GRACE_SECONDS", 0.2)
    java = fake_java(fake.folder.parent / "deaf", DEAF).home
    settings, other = (settings_in(folder, java) for folder in (fake.folder, fake.folder.with_name("cluster2")))
    log = fake.folder.parent / "log"
    cases = ((settings, "namenode"), (settings, "datanode"), (other, "namenode"))
    with log.open("wb") as stream, contextlib.ExitStack() as stack:
        children = [stack.enter_context(started(command_line(each, name), stdout=stream)) for each, name in cases]
        while log.read_text().count("deaf") < 3:
            time.sleep(0.01)
        assert set(daemons_of(fake.folder)) == {"namenode", "datanode"}
        assert not fake.folder.exists()
        assert fake.stop() == 2
        assert [child.wait() for child in children[:2]] == [-signal.SIGKILL] * 2
        assert set(daemons_of(other.folder)) == {"namenode"}


def test_only_one_at_a_time_starts_or_stops(fake: Cluster) -> None:
    settings_in(fake.folder).save()
    with locked(fake.folder):
        for act in (fake.start, fake.stop):
            with pytest.raises(JobError, match="another nnjobs is starting or stopping"):
                act()


@pytest.mark.skipif(shutil.which("ps") is None, reason="there is no ps here")
def test_ps_tells_what_proc_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import time; print(flush=True); time.sleep(600)"
    with started([sys.executable, "-c", program, "a mark"], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline()  # until then its command line may be another's
        (here,) = [process for process in user_processes() if process.pid == child.pid]
        monkeypatch.setattr(processes, "PROC", Path("/nowhere"))
        (there,) = [process for process in user_processes() if process.pid == child.pid]
        assert there == here and here.group == child.pid and "a mark" in here.command


def test_error_lines(tmp_path: Path) -> None:
    log = tmp_path / "namenode.log"
    assert error_lines(log) == [f"{log}: No such file or directory"]
    log.write_text("INFO a\nINFO b\n\nINFO c\nINFO d\n")
    assert error_lines(log) == ["INFO b", "INFO c", "INFO d"]
    repeated = "".join(f"INFO x\nERROR {i}\nERROR {i}\n" for i in range(20))
    log.write_text(f"{repeated}Caused by: y\nERROR {'z' * 999}")
    found = error_lines(log)
    assert len(found) == MAX_ERROR_LINES and found[:2] == ["ERROR 0", "ERROR 1"]
    assert found[-2] == "Caused by: y" and len(found[-1]) < 300


def test_every_daemon_has_a_port() -> None:
    assert {daemon.port for daemon in DAEMONS.values()} <= set(PORTS)
