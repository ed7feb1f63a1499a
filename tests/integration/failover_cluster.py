"""A Hadoop with Kerberos with two NameNodes and two ResourceManagers, one of which takes over from the other.

Edits and the state of applications lie in a folder that both see; larger clusters have JournalNodes and ZooKeeper for
that, and let those decide who is active.
"""

from __future__ import annotations

import subprocess

from failures import wait_until
from host_cluster import READY_SECONDS
from kerberos_cluster import KerberosCluster

PAIR = "pair"
"""The nameservice."""
IDS = {"namenode": ("nn0", "nn1"), "resourcemanager": ("rm0", "rm1")}
KEYS = {"namenode": "dfs.ha.namenode.id", "resourcemanager": "yarn.resourcemanager.ha.id"}
ADMIN = {
    "namenode": ("nn", "org.apache.hadoop.hdfs.tools.DFSHAAdmin"),
    "resourcemanager": ("rm", "org.apache.hadoop.yarn.client.cli.RMAdminCLI"),
}
MANAGER_PORTS = {"address": 8032, "scheduler.address": 8030, "resource-tracker.address": 8031, "admin.address": 8033}
"""Of the first ResourceManager; those of the second are 100 more, as are those of its pages."""


class FailoverCluster(KerberosCluster):
    """The cluster: of each pair the first is active until `fail_over`."""

    def fail_over(self, name: str) -> None:
        """Kill the active NameNode or ResourceManager, and let the other one take over."""
        first, second = IDS[name]
        assert self.master.kill(f"-Dnnjobs.daemon={first}")
        self._activate(name, second)

    def fall_back(self, name: str) -> None:
        """Make the first one active again after `fail_over`."""
        first, second = IDS[name]
        self._launch_one(name, first)
        self._admin(name, "-transitionToStandby", second)
        self._activate(name, first)

    def _start_masters(self) -> None:
        first, second = IDS["namenode"]
        for folder in ("edits", "applications"):
            self.master.run("mkdir", "-p", self.network.point / folder)
        assert not self._launch_one("namenode", first, "-format", "-force", "-nonInteractive").wait(), self.log(first)
        self._launch_one("namenode", first)
        self._activate("namenode", first)
        made = self._launch_one("namenode", second, "-bootstrapStandby", "-force", "-nonInteractive")
        assert not made.wait(), self.log(second)
        self._launch_one("namenode", second)
        for manager in IDS["resourcemanager"]:
            self._launch_one("resourcemanager", manager)
        self._activate("resourcemanager", IDS["resourcemanager"][0])

    def _launch_one(self, name: str, id: str, *arguments: str) -> subprocess.Popen[bytes]:
        return self._launch(name, f"-D{KEYS[name]}={id}", *arguments, mark=id)

    def _activate(self, name: str, id: str) -> None:
        def is_active() -> bool:
            return "active" in self._admin(name, "-getServiceState", id)

        def becomes_active() -> bool:
            self._admin(name, "-transitionToActive", "--forceactive", id)
            return is_active()

        wait_until(becomes_active, f"{id} is active", READY_SECONDS)

    def _admin(self, name: str, *arguments: str) -> str:
        return self.as_admin(ADMIN[name][0], ADMIN[name][1], *arguments).stdout

    def _site_files(self) -> dict[str, dict[str, object]]:
        files = super()._site_files()
        here, master = self.network.point, self.master.domain_name
        files["core-site.xml"]["fs.defaultFS"] = f"hdfs://{PAIR}"
        hdfs = files["hdfs-site.xml"]
        for key in ("dfs.namenode.name.dir", "dfs.namenode.https-address"):
            del hdfs[key]
        hdfs |= {
            "dfs.nameservices": PAIR,
            f"dfs.ha.namenodes.{PAIR}": ",".join(IDS["namenode"]),
            f"dfs.client.failover.proxy.provider.{PAIR}": "org.apache.hadoop.hdfs.server.namenode.ha."
            "ConfiguredFailoverProxyProvider",
            "dfs.namenode.shared.edits.dir": (here / "edits").as_uri(),
            "dfs.ha.fencing.methods": "shell(/bin/true)",
            "dfs.ha.tail-edits.period": 1,
        }
        for number, id in enumerate(IDS["namenode"]):
            hdfs |= {
                f"dfs.namenode.rpc-address.{PAIR}.{id}": f"{master}:{8020 + number}",
                f"dfs.namenode.https-address.{PAIR}.{id}": f"{master}:{9871 + number}",
                f"dfs.namenode.name.dir.{PAIR}.{id}": (here / f"name-{id}").as_uri(),
            }
        yarn = files["yarn-site.xml"]
        del yarn["yarn.resourcemanager.hostname"]
        store = "org.apache.hadoop.yarn.server.resourcemanager.recovery.FileSystemRMStateStore"
        yarn |= {
            "yarn.resourcemanager.ha.enabled": "true",
            "yarn.resourcemanager.ha.automatic-failover.enabled": "false",
            "yarn.resourcemanager.ha.rm-ids": ",".join(IDS["resourcemanager"]),
            "yarn.resourcemanager.cluster-id": PAIR,
            "yarn.resourcemanager.recovery.enabled": "true",
            "yarn.resourcemanager.store.class": store,
            "yarn.resourcemanager.fs.state-store.uri": (here / "applications").as_uri(),
            "yarn.client.failover-sleep-base-ms": 100,
            "yarn.client.failover-sleep-max-ms": 2000,
        }
        for number, id in enumerate(IDS["resourcemanager"]):
            yarn |= {f"yarn.resourcemanager.hostname.{id}": master}
            yarn |= {
                f"yarn.resourcemanager.{key}.{id}": f"{master}:{port + 100 * number}"
                for key, port in MANAGER_PORTS.items()
            }
            yarn |= {f"yarn.resourcemanager.webapp.https.address.{id}": f"{master}:{8090 + 100 * number}"}
        return files
