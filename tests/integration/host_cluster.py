"""A Hadoop of several hosts: the masters on ``m0``, a DataNode and a NodeManager on each worker, a client beside them.

The site files are what an administrator of a small cluster would write; `Cluster` is a single machine's.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from failures import ENDED, wait_until
from hosts import DOMAIN, Host, Network

from jobs.minicluster.assemble import JARS, RESOURCES, assemble
from jobs.minicluster.daemons import DAEMONS, JVM_OPTIONS
from jobs.minicluster.java import find_java
from jobs.minicluster.settings import configuration_xml

MASTER, WORKERS, CLIENT = "m0", ("w1", "w2", "w3"), "cl"
MASTER_DAEMONS, WORKER_DAEMONS = ("namenode", "resourcemanager", "historyserver"), ("datanode", "nodemanager")
READY_SECONDS = 180.0
ANSWER_SECONDS = 30.0
"""An answer of a daemon that works comes within this time, however busy the machine is."""
EXPIRY_SECONDS = 20
"""After so long without a heartbeat YARN and HDFS take a node for lost; Hadoop's defaults are 600 and 630 s."""

SCHEDULER = {
    "yarn.scheduler.capacity.root.queues": "default",
    "yarn.scheduler.capacity.root.default.capacity": 100,
    "yarn.scheduler.capacity.maximum-am-resource-percent": 0.6,
    "yarn.scheduler.capacity.resource-calculator": "org.apache.hadoop.yarn.util.resource.DominantResourceCalculator",
    "yarn.scheduler.capacity.node-locality-delay": 0,
    # One container a node and heartbeat, as Hadoop does: they spread over the nodes.
    "yarn.scheduler.capacity.per-node-heartbeat.maximum-offswitch-assignments": 1,
}


class HostCluster:
    """The cluster on the hosts of a network. ``changes``: properties that differ, by file (``yarn-site.xml``)."""

    def __init__(self, network: Network, changes: Mapping[str, Mapping[str, object]] | None = None) -> None:
        self.network = network
        self._changes = changes or {}
        self._java = find_java()
        self._home = assemble(self._java, lambda text: None)
        self.conf = network.folder / "conf"
        self.conf.mkdir()
        self.configure(self._changes)

    @property
    def client(self) -> Host:
        return self.network[CLIENT]

    @property
    def workers(self) -> list[Host]:
        return [self.network[name] for name in WORKERS]

    def environment(self) -> dict[str, str]:
        """The variables with which ``hadoop``, mrjob and nnjobs use the cluster."""
        java = str(self._java.home)
        return {"HADOOP_HOME": str(self._home), "HADOOP_CONF_DIR": str(self.conf), "JAVA_HOME": java}

    def configure(self, changes: Mapping[str, Mapping[str, object]]) -> None:
        """Write the site files of all hosts; daemons read them when they start."""
        for name, properties in self._site_files().items():
            changed = {**properties, **changes.get(name, {})}
            (self.conf / name).write_bytes(configuration_xml(changed))
        (self.conf / "log4j.properties").write_bytes((RESOURCES / "log4j.properties").read_bytes())

    def start(self) -> None:
        """Start all daemons and wait until they are ready."""
        self._launch(self.network[MASTER], "namenode", "-format", "-force", "-nonInteractive").wait()
        for host in self.workers:
            self.start_worker(host)
        for name in ("namenode", "resourcemanager"):
            self._launch(self.network[MASTER], name)
        self.wait_until_ready()
        folders = ["/tmp", "/user", "/user/root", "/mr-history"]
        for folder in folders:
            self._webhdfs(f"{folder}?op=MKDIRS&permission={1777 if folder == '/tmp' else 755}")
        self._launch(self.network[MASTER], "historyserver")
        wait_until(lambda: self.fetch("19888/ws/v1/history/info"), "the history server answers", READY_SECONDS)

    def start_worker(self, host: Host) -> None:
        """Start the daemons of a worker's host that do not run."""
        for name in WORKER_DAEMONS:
            if not self.daemons(host, name):
                self._launch(host, name)

    def start_daemon(self, host: Host, name: str) -> None:
        """Start one daemon of a host."""
        self._launch(host, name)

    def daemons(self, host: Host, name: str) -> list[int]:
        """The processes of a daemon on a host."""
        return [process.pid for process in host.processes(_mark(name))]

    def kill_daemon(self, host: Host, name: str) -> None:
        """Kill a daemon (SIGKILL)."""
        assert host.kill(_mark(name))

    def switch_on(self, host: Host) -> None:
        """Bring back a host that was switched off, and its daemons."""
        self.network.connect(host)
        self.start_worker(host)

    def heal(self) -> None:
        """Make everything good again: links, disks, daemons; no application is left."""
        for host in self.workers:
            if host.is_on:
                host.speed_up()
                host.kill(number=signal.SIGCONT)
                host.plug_in()
                host.release_disk()
                host.empty_disk()
                self.start_worker(host)
            else:
                self.switch_on(host)
        for application in self.running_applications():
            self.kill_application(application)
        self.wait_until_ready()
        wait_until(lambda: not any(self.containers(host) for host in self.workers), "no container runs")
        self._webhdfs("/user/root/.staging?op=DELETE&recursive=true", method="DELETE")

    def wait_until_ready(self) -> None:
        """Wait until every worker's DataNode and NodeManager takes part."""
        wait_until(lambda: self._live_datanodes() == len(WORKERS), "all DataNodes report", READY_SECONDS)
        wait_until(lambda: len(self.nodes("RUNNING")) == len(WORKERS), "all NodeManagers report", READY_SECONDS)

    def fetch(self, port_and_path: str) -> dict[str, Any]:
        """The JSON object at a port and path of the master; {} if nothing answers."""
        address = f"http://{MASTER}.{DOMAIN}:{port_and_path}"
        try:
            data = self.client.visit(_read, urllib.request.Request(address, headers={"Accept": "application/json"}))
            found: dict[str, Any] = json.loads(data)
        except (OSError, ValueError):
            return {}
        return found

    def nodes(self, state: str) -> list[str]:
        """The names of the hosts whose NodeManagers are in a state, by the ResourceManager."""
        nodes = (self.fetch(f"8088/ws/v1/cluster/nodes?states={state}").get("nodes") or {}).get("node", ())
        return [str(node["nodeHostName"]).partition(".")[0] for node in nodes]

    def applications(self) -> list[dict[str, Any]]:
        """What the ResourceManager knows of all applications."""
        return list((self.fetch("8088/ws/v1/cluster/apps").get("apps") or {}).get("app", ()))

    def running_applications(self) -> list[str]:
        """The ids of the applications that have not ended."""
        return [str(each["id"]) for each in self.applications() if each["state"] not in ENDED]

    def kill_application(self, application: str) -> None:
        """End an application and wait for it."""
        request = urllib.request.Request(
            f"http://{MASTER}.{DOMAIN}:8088/ws/v1/cluster/apps/{application}/state?user.name=root",
            json.dumps({"state": "KILLED"}).encode(),
            {"Content-Type": "application/json"},
            method="PUT",
        )
        with contextlib.suppress(urllib.error.HTTPError):
            self.client.visit(_read, request)
        wait_until(lambda: application not in self.running_applications(), f"{application} has ended")

    def master_host(self, application: str) -> Host:
        """The host of an application's master."""
        facts: dict[str, Any] = {}

        def is_known() -> bool:
            nonlocal facts
            facts = self.fetch(f"8088/ws/v1/cluster/apps/{application}").get("app", {})
            return bool(facts.get("amHostHttpAddress"))

        wait_until(is_known, f"the master of {application} runs")
        return self.network[str(facts["amHostHttpAddress"]).partition(".")[0]]

    def containers(self, host: Host, *needles: str) -> list[int]:
        """The processes of containers on a host."""
        return [process.pid for process in host.processes("container_", *needles) if process.pid != host.pid]

    def _live_datanodes(self) -> int:
        beans = self.fetch("9870/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState").get("beans") or [{}]
        info = self.fetch("9870/jmx?qry=Hadoop:service=NameNode,name=NameNodeInfo").get("beans") or [{}]
        return 0 if info[0].get("Safemode", "yes") else int(beans[0].get("NumLiveDataNodes", 0))

    def _webhdfs(self, path: str, method: str = "PUT") -> None:
        address = f"http://{MASTER}.{DOMAIN}:9870/webhdfs/v1{path}&user.name=root"
        with contextlib.suppress(urllib.error.HTTPError):
            self.client.visit(_read, urllib.request.Request(address, method=method))

    def _launch(self, host: Host, name: str, *arguments: str) -> Any:
        classes = (self.conf, self._home / "share/hadoop/webroot", self._home / JARS / "*")
        return host.start(
            [
                self._java.program,
                _mark(name if not arguments else "format"),
                *JVM_OPTIONS,
                f"-Dhadoop.home.dir={self._home}",
                f"-Dhadoop.log.dir={self.network.point}",
                "-cp",
                os.pathsep.join(map(str, classes)),
                DAEMONS[name].main,
                *arguments,
            ],
            log=host.folder / f"{name}.log",
            env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **self.environment()},
        )

    def _site_files(self) -> dict[str, dict[str, object]]:
        here, master = self.network.point, f"{MASTER}.{DOMAIN}"
        core = {"fs.defaultFS": f"hdfs://{master}:8020", "hadoop.tmp.dir": here / "tmp"}
        hdfs = {
            "dfs.replication": 2,
            "dfs.namenode.name.dir": (here / "name").as_uri(),
            "dfs.datanode.data.dir": (here / "blocks").as_uri(),
            "dfs.namenode.http-address": f"{master}:9870",
            "dfs.heartbeat.interval": 1,
            # Ten heartbeats and two of these: a DataNode is dead after EXPIRY_SECONDS.
            "dfs.namenode.heartbeat.recheck-interval": 500 * (EXPIRY_SECONDS - 10),
            "dfs.namenode.safemode.extension": 0,
            "dfs.namenode.fs-limits.min-block-size": 4096,
        }
        yarn = {
            "yarn.resourcemanager.hostname": master,
            "yarn.resourcemanager.nm.liveness-monitor.expiry-interval-ms": 1000 * EXPIRY_SECONDS,
            "yarn.nm.liveness-monitor.expiry-interval-ms": 1000 * EXPIRY_SECONDS,
            "yarn.resourcemanager.nodemanagers.heartbeat-interval-ms": 200,
            "yarn.resourcemanager.recovery.enabled": "true",
            "yarn.resourcemanager.store.class": "org.apache.hadoop.yarn.server.resourcemanager.recovery"
            ".FileSystemRMStateStore",
            "yarn.resourcemanager.fs.state-store.uri": (here / "applications").as_uri(),
            "yarn.nodemanager.local-dirs": here / "disk/local",
            "yarn.nodemanager.log-dirs": here / "disk/logs",
            "yarn.nodemanager.recovery.enabled": "true",
            "yarn.nodemanager.recovery.dir": here / "recovery",
            "yarn.nodemanager.address": "0.0.0.0:8041",  # a fixed port: containers outlive a restart
            "yarn.nodemanager.resource.memory-mb": 3072,
            "yarn.nodemanager.resource.cpu-vcores": 4,
            "yarn.scheduler.minimum-allocation-mb": 256,
            "yarn.scheduler.maximum-allocation-mb": 3072,
            "yarn.scheduler.maximum-allocation-vcores": 4,
            "yarn.nodemanager.vmem-check-enabled": "false",
            "yarn.nodemanager.disk-health-checker.interval-ms": 5000,
            "yarn.nodemanager.disk-health-checker.min-free-space-per-disk-mb": 16,
            "yarn.nodemanager.log-container-debug-info.enabled": "false",
            "yarn.nodemanager.aux-services": "mapreduce_shuffle",
            "yarn.application.classpath": self.conf,
            "yarn.log-aggregation-enable": "true",
            "yarn.log.server.url": f"http://{master}:19888/jobhistory/logs",
        }
        mapred = {
            "mapreduce.framework.name": "yarn",
            "mapreduce.application.classpath": self._home / JARS / "*",
            "mapreduce.jobhistory.address": f"{master}:10020",
            "mapreduce.jobhistory.webapp.address": f"{master}:19888",
            "mapreduce.jobhistory.done-dir": "/mr-history/done",
            "mapreduce.jobhistory.intermediate-done-dir": "/mr-history/tmp",
            "yarn.app.mapreduce.am.staging-dir": "/user",
        }
        files = {"core-site.xml": core, "hdfs-site.xml": hdfs, "yarn-site.xml": yarn, "mapred-site.xml": mapred}
        return {**files, "capacity-scheduler.xml": dict(SCHEDULER)}


def _mark(name: str) -> str:
    return f"-Dnnjobs.daemon={name}"


def _read(request: urllib.request.Request) -> bytes:
    opener: Callable[..., Any] = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
    with opener(request, timeout=ANSWER_SECONDS) as answer:
        data: bytes = answer.read()
    return data


def folders_that_all_see() -> list[Path]:
    """Hadoop itself."""
    return [Path.home() / ".cache"]
