"""Keeps the Kerberos ticket of this process good while it works: renews it, gets a new one by a keytab, or says in time
that it ends.

Hadoop's own client renews the user's ticket in the same way, by ``kinit -R``. A ticket that a keytab gives lies in a
file of this process alone, which goes with it; the keytab itself is read by ``kinit`` and nothing else.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnlib.core.errors import StorageError, UsageError
from nnlib.storage.hdfs.hadoop_config import properties
from nnlib.storage.hdfs.ticket import Ticket, current_ticket

_log = logging.getLogger("nnjobs.storage")

CHECK_SECONDS = 15.0
"""Longest pause between two looks at the ticket."""
RENEW_SECONDS = 60.0
"""Longest pause between two attempts to renew it."""
PARTS = 10
"""A ticket of a short life is looked at, and renewed, so often during it."""
WARN_SECONDS = 1800.0
"""A ticket that cannot be renewed is spoken of so long before its end."""
KINIT_SECONDS = 60.0
RENEWED_SHARE = 0.5
"""A ticket is renewed when less than this part of its first time is left."""


@dataclass(frozen=True)
class Keytab:
    """A file with the key of a principal."""

    path: Path
    principal: str


def kinit(*arguments: str) -> str | None:
    """Run ``kinit`` (or what ``hadoop.kerberos.kinit.command`` names); return its complaint, None if it succeeded."""
    program = properties().get("hadoop.kerberos.kinit.command") or "kinit"
    try:
        done = subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=KINIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{program} has not ended after {KINIT_SECONDS:.0f} s"
    except OSError as error:
        return f"cannot run {program}: {error.strerror}"
    if done.returncode == 0:
        return None
    lines = (done.stderr or done.stdout).strip().splitlines()
    return lines[-1] if lines else f"{program}: exit code {done.returncode}"


def log_in(keytab: Keytab) -> None:
    """Get a ticket by a keytab, for this process and those that it starts, and keep it good from then on.

    Raises:
        UsageError: there is no such file, or it has no key of the principal.
        StorageError: no ticket could be got.
    """
    if not os.access(keytab.path, os.R_OK):
        raise UsageError("there is no such keytab, or it is not readable", key="runtime.hadoop.keytab")
    if _KEEPER.keytab == keytab:
        return
    folder = Path(tempfile.mkdtemp(prefix="nnjobs-ticket-"))  # its owner's alone
    atexit.register(_remove, folder, os.getpid())
    cache = f"FILE:{folder}/ticket"
    if (complaint := _by_keytab(keytab, cache)) is not None:
        raise StorageError(
            f"no Kerberos ticket for {keytab.principal}: {complaint}",
            hint="see runtime.hadoop.keytab and principal (klist -kt KEYTAB lists whose keys it has)",
        )
    os.environ["KRB5CCNAME"] = cache  # also Hadoop's client reads it
    _KEEPER.keytab = keytab
    keep_ticket()


def keep_ticket() -> None:
    """Keep the ticket of this process good from now on, in a thread."""
    _KEEPER.start()


def _by_keytab(keytab: Keytab, cache: str) -> str | None:
    return kinit("-k", "-t", str(keytab.path), "-c", cache, keytab.principal)


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # a forked child ends, too
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class TicketKeeper:
    """Looks at the ticket again and again. ``keytab``: what gets a new one; without it ``kinit -R`` renews it."""

    keytab: Keytab | None = None
    read: Callable[[], Ticket | None] = current_ticket
    run: Callable[..., str | None] = kinit
    clock: Callable[[], float] = time.monotonic
    _longest: float = 0.0
    _tried: float = -RENEW_SECONDS
    _has_warned: bool = False
    _process: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        """Start the thread, unless this process has it."""
        with self._lock:
            if self._process == os.getpid():
                return
            self._process = os.getpid()
        threading.Thread(target=self._keep, name="kerberos ticket", daemon=True).start()

    def _keep(self) -> None:
        while True:
            self.look()
            time.sleep(max(1.0, min(CHECK_SECONDS, self._longest / PARTS)))

    def look(self) -> None:
        """Look at the ticket once: renew it when it is time, warn when that does not go."""
        ticket = self.read()
        seconds = 0.0 if ticket is None else ticket.seconds
        if seconds > self._longest:
            self._longest, self._has_warned = seconds, False
        if seconds > RENEWED_SHARE * self._longest:
            return
        complaint = self._renewed(ticket)
        if complaint is None or self._has_warned or seconds > WARN_SECONDS:
            return
        self._has_warned = True
        _log.warning("%s", _warning(ticket, complaint, self.keytab is not None))

    def _renewed(self, ticket: Ticket | None) -> str | None:
        """Renew the ticket, unless it is too early to try again; return what keeps it from that."""
        now = self.clock()
        if now - self._tried < min(RENEW_SECONDS, self._longest / PARTS):
            return None
        self._tried = now
        if self.keytab is not None:
            complaint = self.run(*self._keytab_arguments(self.keytab))
        elif ticket is None:
            return "there is none any more"
        else:
            complaint = self.run("-R")
        if complaint is None:
            renewed = self.read()
            self._longest = max(0.0 if renewed is None else renewed.seconds, 1.0)
            if renewed is not None and ticket is not None and renewed.seconds <= ticket.seconds + 1.0:
                return "it has reached the end of its renewable time"
        return complaint

    @staticmethod
    def _keytab_arguments(keytab: Keytab) -> Sequence[str]:
        cache = os.environ["KRB5CCNAME"]
        return "-k", "-t", str(keytab.path), "-c", cache, keytab.principal


def _warning(ticket: Ticket | None, complaint: str, has_keytab: bool) -> str:
    cure = "see runtime.hadoop.keytab" if has_keytab else "kinit in another terminal, and it goes on"
    if ticket is None or ticket.seconds <= 0:
        return f"the Kerberos ticket has expired ({complaint}): {cure}"
    at = time.strftime("%H:%M:%S", time.localtime(time.time() + ticket.seconds))
    return (
        f"the Kerberos ticket of {ticket.principal} ends at {at} and cannot be renewed ({complaint}): {cure}; else "
        "this command ends then, and --resume goes on"
    )


_KEEPER = TicketKeeper()
