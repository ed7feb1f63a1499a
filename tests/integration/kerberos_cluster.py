"""A Hadoop with Kerberos on two hosts: all daemons and the KDC on one, a client without any keytab of theirs beside it.

Pages want SPNEGO, and what goes over the network is encrypted: HTTPS with a certificate of our own, RPC with privacy,
blocks too. Containers run on the daemons' host, which has neither a ticket nor a key of any user.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import kdc
from failures import wait_until
from host_cluster import READY_SECONDS, SCHEDULER
from hosts import REPOSITORY, Host, Network
from kdc import REALM, SYSTEM_FILE, Kdc
from processes import started

from jobs.minicluster.assemble import JARS, RESOURCES, assemble
from jobs.minicluster.daemons import DAEMONS, JVM_OPTIONS
from jobs.minicluster.java import find_java
from jobs.minicluster.settings import configuration_xml

MASTER, CLIENT = "m0", "cl"
SERVICES = ("nn", "dn", "rm", "nm", "jhs", "HTTP")
USER = "ann"
PASSWORD = "changeit"
SHIM = Path(__file__).with_name("SecureIOUtils.java")


def lacking() -> str | None:
    """Why no such cluster can run here, besides what keeps `hosts` and Hadoop from it."""
    if missing := [name for name in ("javac", "keytool", "openssl") if shutil.which(name) is None]:
        return f"there is no {missing[0]}"
    if importlib.util.find_spec("requests_gssapi") is None:
        return "the extra kerberos is not installed (requirements-kerberos.lock)"
    return kdc.lacking()


class KerberosCluster:
    """The cluster on the hosts of a network. ``changes``: properties that differ, by file (``yarn-site.xml``)."""

    def __init__(self, network: Network, changes: Mapping[str, Mapping[str, object]] | None = None) -> None:
        self.network = network
        self._changes = changes or {}
        self._java = find_java()
        self.home = assemble(self._java, lambda text: None)
        self.conf = network.folder / "conf"
        self.conf.mkdir()
        self._keys = network.folder / "keys"
        self._keys.mkdir()
        self.kdc = Kdc(self.master, network.folder / "kdc")
        self.certificate = network.folder / "ca.pem"
        self._shim = network.folder / "shim"
        self._daemon_keys = Path()
        self.user_keys = Path()

    @property
    def master(self) -> Host:
        return self.network[MASTER]

    @property
    def client(self) -> Host:
        return self.network[CLIENT]

    def environment(self) -> dict[str, str]:
        """The variables with which ``hadoop``, mrjob and nnjobs use the cluster."""
        return {
            "HADOOP_HOME": str(self.home),
            "HADOOP_CONF_DIR": str(self.conf),
            "JAVA_HOME": str(self._java.home),
            "NNJOBS_HDFS_CA": str(self.certificate),
        }

    def start(self) -> None:
        """Start KDC and daemons and wait until they are ready."""
        for host in (self.master, self.client):
            host.run("mount", "--bind", self.kdc.client_file, SYSTEM_FILE)
        self.kdc.start()
        services = [f"{service}/{self.master.domain_name}" for service in SERVICES]
        self._daemon_keys = self.kdc.keytab("daemons", *services)
        self.user_keys = self.kdc.keytab(USER, USER)
        self.kdc.wait_until_ready(self.user_keys, USER)
        self._compile_shim()
        self._make_certificate()
        self._configure()
        self._start_masters()
        for name in ("datanode", "nodemanager"):
            self.start_daemon(name)

        def has_datanode() -> bool:
            return "Live datanodes (1)" in self.as_admin("nn", "dfsadmin", "-report").stdout

        wait_until(has_datanode, "the DataNode reports", READY_SECONDS)
        for command in (
            f"-mkdir -p /tmp/logs /user/{USER} /mr-history/tmp /mr-history/done",
            "-chmod 1777 /tmp /tmp/logs",
            "-chgrp history /tmp/logs",
            f"-chown {USER} /user/{USER}",
            "-chown -R jhs:history /mr-history",
            "-chmod 1777 /mr-history/tmp",
        ):
            done = self.as_admin("nn", "fs", *command.split())
            assert not done.returncode, done.stderr
        self.start_daemon("historyserver")

        def has_node() -> bool:
            return "Total Nodes:1" in self.as_admin("nn", "node", "-list").stdout

        wait_until(has_node, "the NodeManager reports", READY_SECONDS)

    def _start_masters(self) -> None:
        """Start the NameNode, with new files, and the ResourceManager."""
        assert not self._launch("namenode", "-format", "-force", "-nonInteractive").wait(), self.log("namenode")
        for name in ("namenode", "resourcemanager"):
            self.start_daemon(name)

    def kinit(self, principal: str, keytab: Path, cache: Path, *options: str, host: Host | None = None) -> None:
        """Get a ticket, as a person does."""
        command = ["kinit", "-k", "-t", str(keytab), "-c", f"FILE:{cache}", *options, f"{principal}@{REALM}"]
        (host or self.client).run(*command, env=self.kdc.environment())

    def log(self, daemon: str) -> str:
        """The log of a daemon."""
        return (self.network.folder / f"{daemon}.log").read_text(errors="replace")

    def nnjobs(self, *arguments: str, ticket: Path, cwd: Path, seconds: float) -> subprocess.CompletedProcess[str]:
        """Run ``python -m jobs`` on the client's host to its end."""
        return self.python("-m", "jobs", *arguments, ticket=ticket, cwd=cwd, seconds=seconds)

    def python(self, *arguments: str, ticket: Path, cwd: Path, seconds: float) -> subprocess.CompletedProcess[str]:
        """Run Python on the client's host to its end, with a file of tickets."""
        return subprocess.run(
            self._command(cwd, *arguments),
            env=self._variables(ticket),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    @contextlib.contextmanager
    def running(self, *arguments: str, ticket: Path, cwd: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
        """Within it ``python -m jobs`` runs on the client's host; yields it and the file of what it says."""
        log = cwd / "said"
        command = self._command(cwd, "-m", "jobs", *arguments)
        with (
            log.open("wb") as said,
            started(
                command, env=self._variables(ticket), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said
            ) as process,
        ):
            yield process, log

    def _command(self, cwd: Path, *arguments: str) -> list[str]:
        return self.client.command("env", "-C", str(cwd), sys.executable, *arguments)

    def _variables(self, ticket: Path) -> dict[str, str]:
        path = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
        return {**os.environ, **self.environment(), "KRB5CCNAME": f"FILE:{ticket}", "PYTHONPATH": path}

    def stop_daemon(self, name: str) -> None:
        """Kill a daemon, and what runs in its containers."""
        assert self.master.kill(f"-Dnnjobs.daemon={name}")

    def start_daemon(self, name: str) -> None:
        """Start a daemon anew."""
        self._launch(name)

    def as_admin(self, service: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of Hadoop on the daemons' host to its end, as one of their services: ``nn``, ``rm`` ..."""
        cache = self.network.folder / f"ticket-of-{service}"
        if not cache.exists():
            self.kinit(f"{service}/{self.master.domain_name}", self._daemon_keys, cache, host=self.master)
        environment = {"PATH": os.environ["PATH"], **self.environment(), "KRB5CCNAME": f"FILE:{cache}"}
        return subprocess.run(
            self.master.command(self.home / "bin/hadoop", *arguments),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def _launch(self, name: str, *arguments: str, mark: str | None = None) -> subprocess.Popen[bytes]:
        """``mark``: what tells this process, and its log, from others of the same daemon."""
        classes = (self.conf, self._shim, self.home / "share/hadoop/webroot", self.home / JARS / "*")
        return self.master.start(
            [
                self._java.program,
                f"-Dnnjobs.daemon={mark or name}",
                *JVM_OPTIONS,
                f"-Dhadoop.home.dir={self.home}",
                f"-Dhadoop.log.dir={self.network.point}",
                "-cp",
                os.pathsep.join(map(str, classes)),
                DAEMONS[name].main,
                *arguments,
            ],
            log=self.network.folder / f"{mark or name}.log",
            env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **self.environment()},
        )

    def _compile_shim(self) -> None:
        jars = os.pathsep.join(map(str, (self.home / JARS).glob("hadoop-common-*.jar")))
        command = ["javac", "-nowarn", "-d", str(self._shim), "-cp", jars, str(SHIM)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert not done.returncode, done.stderr

    def _make_certificate(self) -> None:
        """A key for HTTPS, in Java's form, and the certificate to trust."""
        name, store = self.master.domain_name, self._keys / "https.p12"
        key, certificate = self._keys / "key.pem", str(self.certificate)
        commands = [
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", f"/CN={name}"],
            ["openssl", "pkcs12", "-export", "-inkey", str(key), "-in", certificate, "-passout", f"pass:{PASSWORD}"],
            ["keytool", "-importcert", "-noprompt", "-alias", "ca", "-file", certificate, "-storepass", PASSWORD],
        ]
        commands[0] += ["-addext", f"subjectAltName=DNS:{name}", "-keyout", str(key), "-out", certificate]
        commands[1] += ["-out", str(store)]
        commands[2] += ["-keystore", str(self._keys / "trusted.p12"), "-storetype", "PKCS12"]
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert not done.returncode, f"{command[:3]}: {done.stderr or done.stdout}"

    def _configure(self) -> None:
        for name, properties in self._site_files().items():
            changed = {**properties, **self._changes.get(name, {})}
            (self.conf / name).write_bytes(configuration_xml(changed))
        (self.conf / "log4j.properties").write_bytes((RESOURCES / "log4j.properties").read_bytes())

    def _site_files(self) -> dict[str, dict[str, object]]:
        here, master, keys = self.network.point, self.master.domain_name, self._daemon_keys
        core: dict[str, object] = {
            "fs.defaultFS": f"hdfs://{master}:8020",
            "hadoop.tmp.dir": here / "tmp",
            "hadoop.security.authentication": "kerberos",
            "hadoop.security.authorization": "true",
            "hadoop.user.group.static.mapping.overrides": "jhs=history;dr.who=;",
            "hadoop.rpc.protection": "privacy",
            "hadoop.http.authentication.type": "kerberos",
            "hadoop.http.authentication.kerberos.principal": f"HTTP/_HOST@{REALM}",
            "hadoop.http.authentication.kerberos.keytab": keys,
            "hadoop.http.authentication.signature.secret.file": self._keys / "secret",
            "hadoop.http.filter.initializers": "org.apache.hadoop.security.AuthenticationFilterInitializer",
            "hadoop.ssl.require.client.cert": "false",
            "hadoop.ssl.hostname.verifier": "DEFAULT",
        }
        (self._keys / "secret").write_text("for cookies")
        hdfs: dict[str, object] = {
            "dfs.replication": 1,
            "dfs.namenode.name.dir": (here / "name").as_uri(),
            "dfs.datanode.data.dir": (here / "blocks").as_uri(),
            "dfs.http.policy": "HTTPS_ONLY",
            "dfs.namenode.https-address": f"{master}:9871",
            "dfs.encrypt.data.transfer": "true",
            "dfs.data.transfer.protection": "privacy",
            "dfs.block.access.token.enable": "true",
            "dfs.namenode.kerberos.principal": f"nn/_HOST@{REALM}",
            "dfs.namenode.keytab.file": keys,
            "dfs.datanode.kerberos.principal": f"dn/_HOST@{REALM}",
            "dfs.datanode.keytab.file": keys,
            "dfs.web.authentication.kerberos.principal": f"HTTP/_HOST@{REALM}",
            "dfs.web.authentication.kerberos.keytab": keys,
            "dfs.datanode.hostname": master,
            "dfs.heartbeat.interval": 1,
            "dfs.namenode.safemode.extension": 0,
            "dfs.namenode.fs-limits.min-block-size": 4096,
            "dfs.client.block.write.locateFollowingBlock.initial.delay.ms": 10,
        }
        yarn: dict[str, object] = {
            "yarn.resourcemanager.hostname": master,
            "yarn.nodemanager.hostname": master,
            "yarn.http.policy": "HTTPS_ONLY",
            "yarn.resourcemanager.principal": f"rm/_HOST@{REALM}",
            "yarn.resourcemanager.keytab": keys,
            "yarn.nodemanager.principal": f"nm/_HOST@{REALM}",
            "yarn.nodemanager.keytab": keys,
            "yarn.resourcemanager.webapp.spnego-principal": f"HTTP/_HOST@{REALM}",
            "yarn.resourcemanager.webapp.spnego-keytab-file": keys,
            "yarn.nodemanager.webapp.spnego-principal": f"HTTP/_HOST@{REALM}",
            "yarn.nodemanager.webapp.spnego-keytab-file": keys,
            "yarn.nodemanager.local-dirs": here / "nm/local",
            "yarn.nodemanager.log-dirs": here / "nm/logs",
            "yarn.nodemanager.resource.memory-mb": 4096,
            "yarn.nodemanager.resource.cpu-vcores": 6,
            "yarn.scheduler.minimum-allocation-mb": 256,
            "yarn.scheduler.maximum-allocation-mb": 4096,
            "yarn.scheduler.maximum-allocation-vcores": 6,
            "yarn.nodemanager.vmem-check-enabled": "false",
            "yarn.nodemanager.disk-health-checker.max-disk-utilization-per-disk-percentage": 100,
            "yarn.nodemanager.aux-services": "mapreduce_shuffle",
            "yarn.application.classpath": f"{self.conf},{self._shim}",
            "yarn.log-aggregation-enable": "true",
            "yarn.log.server.url": f"https://{master}:19890/jobhistory/logs",
            "yarn.resourcemanager.nodemanagers.heartbeat-interval-ms": 200,
            "yarn.nm.liveness-monitor.expiry-interval-ms": 15_000,
            "yarn.resourcemanager.nm.liveness-monitor.expiry-interval-ms": 15_000,
            "yarn.acl.enable": "true",
            "yarn.admin.acl": "rm",
        }
        mapred: dict[str, object] = {
            "mapreduce.framework.name": "yarn",
            "mapreduce.application.classpath": f"{self._shim},{self.home / JARS / '*'}",
            "mapreduce.jobhistory.address": f"{master}:10020",
            "mapreduce.jobhistory.http.policy": "HTTPS_ONLY",
            "mapreduce.jobhistory.webapp.https.address": f"{master}:19890",
            "mapreduce.jobhistory.principal": f"jhs/_HOST@{REALM}",
            "mapreduce.jobhistory.keytab": keys,
            "mapreduce.jobhistory.webapp.spnego-principal": f"HTTP/_HOST@{REALM}",
            "mapreduce.jobhistory.webapp.spnego-keytab-file": keys,
            "mapreduce.jobhistory.done-dir": "/mr-history/done",
            "mapreduce.jobhistory.intermediate-done-dir": "/mr-history/tmp",
            "yarn.app.mapreduce.am.staging-dir": "/user",
        }
        server = {
            "ssl.server.keystore.location": self._keys / "https.p12",
            "ssl.server.keystore.password": PASSWORD,
            "ssl.server.keystore.keypassword": PASSWORD,
            "ssl.server.keystore.type": "pkcs12",
            "ssl.server.truststore.location": self._keys / "trusted.p12",
            "ssl.server.truststore.password": PASSWORD,
            "ssl.server.truststore.type": "pkcs12",
        }
        client = {
            "ssl.client.truststore.location": self._keys / "trusted.p12",
            "ssl.client.truststore.password": PASSWORD,
            "ssl.client.truststore.type": "pkcs12",
        }
        files = {"core-site.xml": core, "hdfs-site.xml": hdfs, "yarn-site.xml": yarn, "mapred-site.xml": mapred}
        files |= {"ssl-server.xml": dict(server), "ssl-client.xml": dict(client)}
        return {**files, "capacity-scheduler.xml": dict(SCHEDULER)}
