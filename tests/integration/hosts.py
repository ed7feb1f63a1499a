"""Hosts played on this machine: each has a network, a name, processes, a /tmp and a small disk, and can be hurt.

A host is a process in namespaces of its own (`host_init`). The kernel ends all processes of a host with that process,
and that process with the one that made it; namespaces vanish with their last process. So nothing can be left behind,
even by a test run that is killed. Hosts are joined by a bridge that lives on a host of its own, the switch.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from failures import wait_until

from jobs.minicluster.processes import ProcessInfo, user_processes

T = TypeVar("T")
REPOSITORY = Path(__file__).parents[2]
NAMESPACES = ("net", "mnt", "uts", "pid")
DOMAIN = "hosts.test"
DISK_MB = 384
TURN_SECONDS = 0.2
PROGRAMS = ("ip", "unshare", "nsenter", "setpriv")
"""Of iproute2 and util-linux."""


def lacking() -> str | None:
    """Why this machine can play no hosts; None if it can."""
    if sys.platform != "linux":
        return "hosts are made of Linux's namespaces"
    if os.geteuid():
        return "only root may make network namespaces"
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"there is no {missing[0]} (Debian: apt install iproute2 util-linux)"
    trial = ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "ip", "link", "add", "name", "trial"]
    trial += ["type", "bridge"]
    done = subprocess.run(trial, capture_output=True, text=True, check=False)
    return f"this system makes no namespaces: {done.stderr.strip()}" if done.returncode else None


class Host:
    """A host that runs, or one that has been switched off. ``folder``: what of its files lies where on this machine."""

    def __init__(self, network: Network, name: str, address: str, disk_mb: int) -> None:
        self._network, self.name, self.address, self._disk_mb = network, name, address, disk_mb
        self.folder = network.folder / name
        (self.folder / "disk").mkdir(parents=True)
        self._init: subprocess.Popen[str] | None = None
        self._visitor: ThreadPoolExecutor | None = None
        self._cpu_group: Path | None = None
        self._is_fast: threading.Event | None = None
        self._is_protected = False

    @property
    def domain_name(self) -> str:
        return f"{self.name}.{DOMAIN}"

    @property
    def disk(self) -> Path:
        """Where processes of the host find its small disk."""
        return self._network.point / "disk"

    def switch_on(self) -> None:
        """Start the host, without any process; its files are those it had, but the small disk is new."""
        kept = {self._network.folder, REPOSITORY, Path(sys.prefix), Path(sys.base_prefix), *self._network.kept}
        outer = [path for path in kept if not any(path != other and path.is_relative_to(other) for other in kept)]
        init = [sys.executable, "-S", str(Path(__file__).with_name("host_init.py")), self.domain_name]
        init += map(str, (self._network.names, self.folder, self._network.point, self._disk_mb, *outer))
        # The kernel kills setpriv's program with its parent, and unshare's child with unshare.
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", *(f"--{kind}" for kind in ("net", "mount", "uts"))]
        command += ["--pid", "--fork", "--kill-child", "--mount-proc", *init]
        self._init = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        assert self._init.stdout is not None
        assert self._init.stdout.readline() == "ready\n", f"host {self.name} did not start"
        self.run("ip", "link", "set", "lo", "up")

    def switch_off(self) -> None:
        """End all processes of the host at once, as a power cut does."""
        if self._visitor is not None:
            self._visitor.shutdown()
            self._visitor = None
        if self._init is not None:
            self._init.kill()
            self._init.wait()
            assert self._init.stdout is not None
            self._init.stdout.close()
            self._init, self._is_protected = None, False

    @property
    def is_on(self) -> bool:
        return self._init is not None

    @property
    def pid(self) -> int:
        """The process 1 of the host, by its number on this machine."""
        assert self._init is not None, f"{self.name} is switched off"
        children = Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children").read_text().split()
        return int(children[0])

    def command(self, *command: str | Path) -> list[str]:
        """The command that runs another one on the host."""
        return ["nsenter", "-t", str(self.pid), "-n", "-m", "-u", "-p", *map(str, command)]

    def run(self, *command: str | Path, check: bool = True, **options: Any) -> str:
        """Run a command on the host to its end; return what it writes to standard output."""
        done = subprocess.run(
            self.command(*command), capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, **options
        )
        assert not check or not done.returncode, f"{command} on {self.name}: {done.stderr}"
        output: str = done.stdout
        return output

    def start(self, command: Sequence[str | Path], *, log: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start a program on the host; what it writes is appended to ``log``."""
        with log.open("ab") as stream:
            return subprocess.Popen(
                self.command(*command),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=dict(env),
            )

    def visit(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function of this process as if it ran on the host: in its network, with its files and its name.

        One thread does so, as do the threads that it starts. Processes that it starts are on the host, too.
        """
        if self._visitor is None:
            self._visitor = ThreadPoolExecutor(1, f"on {self.name}", _enter, (self.pid,))
        return self._visitor.submit(function, *arguments).result()

    def processes(self, *needles: str) -> list[ProcessInfo]:
        """The processes of the host whose command lines hold these texts, with their numbers on this machine."""
        namespace = _namespace(self.pid)
        return [
            process
            for process in user_processes()
            if all(needle in process.command for needle in needles) and _namespace(process.pid) == namespace
        ]

    def process(self, inner: int) -> int:
        """A process's number on this machine, by its number on the host; 0 if there is none."""
        for process in self.processes():
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{process.pid}/status").read_text()
                numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()
                if int(numbers[-1]) == inner:
                    return process.pid
        return 0

    def kill(self, *needles: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to the processes whose command lines hold these texts; return how many there were."""
        found = [process.pid for process in self.processes(*needles) if process.pid != self.pid]
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return len(found)

    # Faults.

    def unplug(self) -> None:
        """Cut the host's link: its processes go on, and reach only each other."""
        self._network.switch.run("ip", "link", "set", self.name, "down")

    def plug_in(self) -> None:
        """Restore the link."""
        self._network.switch.run("ip", "link", "set", self.name, "up")

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Within it, all processes of the host stand still (SIGSTOP); its kernel still takes connections."""
        self.kill(number=signal.SIGSTOP)
        try:
            yield
        finally:
            if self.is_on:
                self.kill(number=signal.SIGCONT)

    def slow_down(self, share: float = 0.1) -> None:
        """Give all processes of the host together only a ``share`` of one core, until `speed_up`.

        The kernel's control groups do so; where there are none, the processes stand still most of the time.
        """
        self._cpu_group = _make_cpu_group(self.name, share)
        if self._cpu_group is not None:
            _move(self.processes(), self._cpu_group)
            return
        over = self._is_fast = threading.Event()

        def alternate() -> None:
            while not over.wait(share * TURN_SECONDS):
                with self.frozen():
                    time.sleep((1.0 - share) * TURN_SECONDS)

        threading.Thread(target=alternate, daemon=True).start()

    def speed_up(self) -> None:
        """End what `slow_down` did."""
        if self._is_fast is not None:
            self._is_fast.set()
        if self._cpu_group is not None:
            _move(self.processes(), self._cpu_group.parent)
            group = self._cpu_group
            wait_until(lambda: _removed(group), f"{group} is empty", 10.0)
        self._is_fast = self._cpu_group = None

    def fill_disk(self) -> None:
        """Leave no room on the small disk."""
        self.run("dd", "if=/dev/zero", f"of={self.disk}/filler", "bs=1M", check=False)

    def empty_disk(self) -> None:
        """Give the room back that `fill_disk` took."""
        self.run("rm", "-f", f"{self.disk}/filler")

    def protect_disk(self) -> None:
        """Make the small disk read-only, as the kernel does with a broken one; files that are open can still be
        written."""
        self.run("mount", "--bind", self.disk, self.disk)
        self.run("mount", "-o", "remount,bind,ro", self.disk)
        self._is_protected = True

    def release_disk(self) -> None:
        """End what `protect_disk` did."""
        if self._is_protected:
            self.run("umount", "--lazy", self.disk)
            self._is_protected = False


class Network:
    """Hosts that reach each other by name, and the switch between them. A context manager: it ends all of them.

    ``folder`` holds their files, ``names`` is their /etc/hosts, and ``point`` is the path under which every host sees
    its own files. ``kept``: folders that all hosts see, also below /tmp.
    """

    def __init__(
        self, folder: Path, names: Sequence[str], *, disk_mb: int = DISK_MB, kept: Sequence[Path] = ()
    ) -> None:
        self.folder, self.kept = folder, tuple(kept)
        self.point = folder / "here"
        self.point.mkdir()
        self.names = folder / "hosts"
        self.switch = Host(self, "switch", "", 0)
        self.hosts = {name: Host(self, name, f"10.77.0.{10 + number}", disk_mb) for number, name in enumerate(names)}
        lines = ["127.0.0.1 localhost"]
        lines += [f"{host.address} {host.domain_name} {host.name}" for host in self.hosts.values()]
        self.names.write_text("\n".join(lines) + "\n")

    def __enter__(self) -> Network:
        self.switch.switch_on()
        self.switch.run("ip", "link", "add", "bridge", "type", "bridge")
        self.switch.run("ip", "link", "set", "bridge", "up")
        for host in self.hosts.values():
            self.connect(host)
        return self

    def __exit__(self, *exception: object) -> None:
        for host in (*self.hosts.values(), self.switch):
            host.switch_off()

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def connect(self, host: Host) -> None:
        """Switch a host on and plug it into the switch."""
        host.switch_on()
        self._link(host)

    @contextlib.contextmanager
    def slow_links(self, seconds: float, loss: float = 0.0) -> Iterator[None]:
        """Within it, what hosts send comes so much later, or is lost with a probability (`relay`)."""
        links = [f"{host.name}:{host.pid}:{host.address}" for host in self.hosts.values() if host.is_on]
        command = [sys.executable, "-S", str(Path(__file__).with_name("relay.py"))]
        command += [str(seconds), str(loss), str(self.switch.pid), *links]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as relay:
            try:
                assert relay.stdout is not None
                assert relay.stdout.readline() == "ready\n", "the relay did not start"
                yield
            finally:
                relay.kill()
                relay.wait()
                for host in self.hosts.values():
                    if host.is_on:
                        self._link(host)

    def _link(self, host: Host) -> None:
        here = ("type", "veth", "peer", "name", host.name, "netns", str(self.switch.pid))
        # Made from outside: each side's namespace is named by a process in it.
        subprocess.run(["ip", "link", "add", "eth0", "netns", str(host.pid), *here], check=True)
        host.run("ip", "addr", "add", f"{host.address}/24", "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "up")
        self.switch.run("ip", "link", "set", host.name, "master", "bridge")
        host.plug_in()


def _enter(pid: int) -> None:
    """Move this thread to the host of a process."""
    libc = ctypes.CDLL(None, use_errno=True)
    clone_fs = 0x200  # a thread that shares its folders with others may not go to other mounts
    if libc.unshare(clone_fs):
        raise OSError(ctypes.get_errno(), "unshare")
    descriptors = [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY) for kind in ("net", "uts", "mnt")]
    for descriptor in descriptors:
        if libc.setns(descriptor, 0):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(descriptor)


def _namespace(pid: int) -> str | None:
    """What tells the processes of one host from others; None if there is no such process any more."""
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return None


CPU_GROUPS = (Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup"))
"""Where version 1 of the kernel's control groups limits processor time, and version 2."""


def _make_cpu_group(name: str, share: float) -> Path | None:
    """A control group whose processes together get a ``share`` of one core; None where the system has none for us."""
    quota, period = round(share * 100_000), 100_000
    for root in CPU_GROUPS:
        for left in root.glob(f"nnjobs-*-{name}"):
            with contextlib.suppress(OSError):
                left.rmdir()  # of a test run that was killed: it is empty since its hosts ended
        group = root / f"nnjobs-{os.getpid()}-{name}"
        with contextlib.suppress(OSError):
            group.mkdir()
            if (group / "cpu.max").exists():
                (group / "cpu.max").write_text(f"{quota} {period}")
                return group
            if (group / "cpu.cfs_quota_us").exists():
                (group / "cpu.cfs_quota_us").write_text(str(quota))
                return group
            group.rmdir()
    return None


def _move(processes: Sequence[ProcessInfo], group: Path) -> None:
    for process in processes:
        with contextlib.suppress(OSError):
            (group / "cgroup.procs").write_text(str(process.pid))


def _removed(group: Path) -> bool:
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()
