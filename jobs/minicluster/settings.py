"""The settings of a cluster: its ports, its sizes, its configuration files."""

from __future__ import annotations

import json
import random
import socket
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from jobs.minicluster.assemble import JARS, RESOURCES
from nnlib.core.errors import StorageError, UsageError

PORTS = (
    "namenode",
    "namenode_http",
    "datanode",
    "datanode_http",
    "datanode_ipc",
    "resourcemanager",
    "resourcemanager_http",
    "scheduler",
    "tracker",
    "resourcemanager_admin",
    "nodemanager",
    "nodemanager_http",
    "localizer",
    "shuffle",
    "historyserver",
    "historyserver_http",
    "historyserver_admin",
)
FIRST_PORT, BLOCKS, BLOCK = 20000, 600, 20
"""Ports come in blocks below those that systems use for outgoing connections (from 32768), so that a daemon that is
restarted finds its port still free."""

HOST = "localhost"
DESCRIPTION = "nnjobs-cluster.json"
"""The file that makes a folder a cluster's."""

HISTORY_FOLDER = "/mr-history"
SMALLEST_MB = 256
"""Smallest container, and the step in which containers grow."""


@dataclass(frozen=True)
class ClusterSettings:
    """A cluster's folder, programs, sizes and ports.

    ``memory_mb`` and ``vcores`` are for containers. ``ports`` maps each of `PORTS` to a number.
    """

    folder: Path
    hadoop_home: Path
    java_home: Path
    memory_mb: int
    vcores: int
    ports: dict[str, int]

    @property
    def conf(self) -> Path:
        """The folder of the configuration files, HADOOP_CONF_DIR."""
        return self.folder / "conf"

    @property
    def logs(self) -> Path:
        """The folder of the daemons' logs."""
        return self.folder / "logs"

    @property
    def filesystem(self) -> str:
        """The address of HDFS."""
        return f"hdfs://{HOST}:{self.ports['namenode']}"

    def web(self, port: str) -> str:
        """Return the HTTP address of a daemon by the name of its port."""
        return f"http://{HOST}:{self.ports[port]}"

    def addresses(self) -> dict[str, str]:
        """Return the addresses that clients connect to, by name."""
        return {
            "hdfs": self.filesystem,
            "webhdfs": f"webhdfs://{HOST}:{self.ports['namenode_http']}",
            "namenode": self.web("namenode_http"),
            "resourcemanager": self.web("resourcemanager_http"),
            "nodemanager": self.web("nodemanager_http"),
            "historyserver": self.web("historyserver_http"),
        }

    def environment(self) -> dict[str, str]:
        """Return the environment variables with which ``hadoop``, mrjob and nnjobs use this cluster."""
        return {
            "HADOOP_HOME": str(self.hadoop_home),
            "HADOOP_CONF_DIR": str(self.conf),
            "JAVA_HOME": str(self.java_home),
        }

    def save(self) -> None:
        """Write the description, then conf/: the description comes first, so that the folder is known as a cluster's.

        Raises:
            StorageError: the folder cannot be written.
        """
        try:
            facts = asdict(self) | {"format_version": 1}
            del facts["folder"]  # where the file lies
            self.folder.mkdir(parents=True, exist_ok=True)
            _replace(self.folder / DESCRIPTION, json.dumps(facts, default=str, indent=1).encode())
            self.conf.mkdir(exist_ok=True)
            self.logs.mkdir(exist_ok=True)
            for name, properties in site_files(self).items():
                _replace(self.conf / name, configuration_xml(properties))
            for name in ("capacity-scheduler.xml", "log4j.properties"):
                _replace(self.conf / name, (RESOURCES / name).read_bytes())
        except OSError as error:
            raise StorageError(f"cannot write {error.filename}: {error.strerror}", hint="name another --dir") from error


def load_settings(folder: Path) -> ClusterSettings | None:
    """Read the settings of the cluster in a folder; None if there is no cluster.

    Raises:
        StorageError: its description is damaged.
    """
    path = folder / DESCRIPTION
    try:
        facts: dict[str, Any] = json.loads(path.read_bytes())
        if facts["format_version"] != 1:
            raise ValueError(f"format_version {facts['format_version']} is another version's")
        return ClusterSettings(
            folder,
            Path(facts["hadoop_home"]),
            Path(facts["java_home"]),
            int(facts["memory_mb"]),
            int(facts["vcores"]),
            {name: int(facts["ports"][name]) for name in PORTS},
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{path} cannot be read: {error}", hint="nnjobs cluster stop --delete removes the cluster and its data"
        ) from error


def free_ports() -> dict[str, int]:
    """Find a block of ports that are free now.

    Raises:
        UsageError: there is none.
    """
    # At random: two clusters that start at the same moment see the same free ports.
    for block in random.SystemRandom().sample(range(BLOCKS), BLOCKS):
        ports = {name: FIRST_PORT + block * BLOCK + i for i, name in enumerate(PORTS)}
        if all(is_free(port) for port in ports.values()):
            return ports
    raise UsageError(f"no {len(PORTS)} ports in a row are free between {FIRST_PORT} and {FIRST_PORT + BLOCKS * BLOCK}")


def is_free(port: int) -> bool:
    """Whether a server could listen on a loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Java does: closing connections do not count
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def site_files(settings: ClusterSettings) -> dict[str, dict[str, object]]:
    """Return the properties of each configuration file, by the file's name."""
    at = {name: f"{HOST}:{port}" for name, port in settings.ports.items()}
    folder = settings.folder
    core = {
        "fs.defaultFS": settings.filesystem,
        "hadoop.tmp.dir": folder / "tmp",
        # A client that finds a daemon restarting tries again soon, not after Hadoop's 10 s or 30 s.
        "ipc.client.connect.retry.interval": 500,
        "ipc.client.connect.max.retries": 20,
    }
    hdfs = {
        "dfs.replication": 1,
        "dfs.permissions.enabled": "true",
        "dfs.webhdfs.enabled": "true",
        "dfs.namenode.name.dir": (folder / "data/name").as_uri(),
        "dfs.datanode.data.dir": (folder / "data/blocks").as_uri(),
        "dfs.namenode.http-address": at["namenode_http"],
        "dfs.datanode.address": at["datanode"],
        "dfs.datanode.http.address": at["datanode_http"],
        "dfs.datanode.ipc.address": at["datanode_ipc"],
        "dfs.datanode.hostname": HOST,
        "dfs.namenode.datanode.registration.ip-hostname-check": "false",
        # One node: it is seen as dead after 30 s (Hadoop: 630 s), and nothing is waited for after safe mode.
        "dfs.heartbeat.interval": 1,
        "dfs.namenode.heartbeat.recheck-interval": 10000,
        "dfs.namenode.safemode.extension": 0,
        "dfs.namenode.fs-limits.min-block-size": 4096,
        "dfs.client.datanode-restart.timeout": 10,
        # A file is closed once its DataNode has reported the block: to ask again after 400 ms makes small ones slow.
        "dfs.client.block.write.locateFollowingBlock.initial.delay.ms": 10,
    }
    yarn = {
        "yarn.resourcemanager.hostname": HOST,
        "yarn.resourcemanager.address": at["resourcemanager"],
        "yarn.resourcemanager.webapp.address": at["resourcemanager_http"],
        "yarn.resourcemanager.scheduler.address": at["scheduler"],
        "yarn.resourcemanager.resource-tracker.address": at["tracker"],
        "yarn.resourcemanager.admin.address": at["resourcemanager_admin"],
        # Applications outlive a restart of the ResourceManager, containers one of the NodeManager.
        "yarn.resourcemanager.recovery.enabled": "true",
        "yarn.resourcemanager.store.class": "org.apache.hadoop.yarn.server.resourcemanager.recovery"
        ".FileSystemRMStateStore",
        "yarn.resourcemanager.fs.state-store.uri": (folder / "data/applications").as_uri(),
        "yarn.resourcemanager.connect.retry-interval.ms": 500,
        "yarn.resourcemanager.nm.liveness-monitor.expiry-interval-ms": 30000,
        "yarn.nm.liveness-monitor.expiry-interval-ms": 30000,
        # Containers are given out at a node's heartbeat, which is every second where thousands of nodes have one.
        "yarn.resourcemanager.nodemanagers.heartbeat-interval-ms": 200,
        "yarn.nodemanager.recovery.enabled": "true",
        "yarn.nodemanager.recovery.dir": folder / "nm/recovery",
        "yarn.nodemanager.hostname": HOST,
        "yarn.nodemanager.address": at["nodemanager"],
        "yarn.nodemanager.webapp.address": at["nodemanager_http"],
        "yarn.nodemanager.localizer.address": at["localizer"],
        "yarn.nodemanager.local-dirs": folder / "nm/local",
        "yarn.nodemanager.log-dirs": folder / "nm/logs",
        "yarn.nodemanager.resource.memory-mb": settings.memory_mb,
        "yarn.nodemanager.resource.cpu-vcores": settings.vcores,
        "yarn.scheduler.minimum-allocation-mb": SMALLEST_MB,
        "yarn.scheduler.maximum-allocation-mb": settings.memory_mb,
        "yarn.scheduler.maximum-allocation-vcores": settings.vcores,
        # Virtual memory says nothing about a JVM or numpy; real memory does.
        "yarn.nodemanager.vmem-check-enabled": "false",
        "yarn.nodemanager.pmem-check-enabled": "true",
        # A laptop's disk is often more than 90 % full; what counts here is that some room is left.
        "yarn.nodemanager.disk-health-checker.max-disk-utilization-per-disk-percentage": 100,
        "yarn.nodemanager.disk-health-checker.min-free-space-per-disk-mb": 200,
        # For its debug log every container's folder is listed first, the packed Python's thousands of files, too.
        "yarn.nodemanager.log-container-debug-info.enabled": "false",
        "yarn.nodemanager.aux-services": "mapreduce_shuffle",
        "yarn.application.classpath": settings.conf,
        "yarn.log-aggregation-enable": "true",
        "yarn.log.server.url": f"{settings.web('historyserver_http')}/jobhistory/logs",
    }
    mapred = {
        "mapreduce.framework.name": "yarn",
        "mapreduce.application.classpath": settings.hadoop_home / JARS / "*",
        "mapreduce.jobhistory.address": at["historyserver"],
        "mapreduce.jobhistory.webapp.address": at["historyserver_http"],
        "mapreduce.jobhistory.admin.address": at["historyserver_admin"],
        # Not below the staging folder, whose parent the history server would make, unreadable for others.
        "mapreduce.jobhistory.done-dir": f"{HISTORY_FOLDER}/done",
        "mapreduce.jobhistory.intermediate-done-dir": f"{HISTORY_FOLDER}/tmp",
        "mapreduce.shuffle.port": settings.ports["shuffle"],
        "yarn.app.mapreduce.am.staging-dir": "/user",
    }
    return {"core-site.xml": core, "hdfs-site.xml": hdfs, "yarn-site.xml": yarn, "mapred-site.xml": mapred}


def configuration_xml(properties: dict[str, object]) -> bytes:
    """Return properties in the format of Hadoop's configuration files."""
    entries = "".join(
        f"  <property><name>{escape(name)}</name><value>{escape(str(value))}</value></property>\n"
        for name, value in properties.items()
    )
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<configuration>\n{entries}</configuration>\n'.encode()


def _replace(path: Path, content: bytes) -> None:
    scratch = path.with_name(f".{path.name}.new")
    scratch.write_bytes(content)
    scratch.replace(path)
