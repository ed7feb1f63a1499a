"""Ends what killed drivers have left on the cluster: their applications, which work for nobody, and staging folders.

A folder's name says which process made it (`nnlib.core.scratch`) and for which run; applications carry it as a tag. A
driver that died on this machine is recognized by its process; one that died anywhere by its run, once another driver
holds that run's lock.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
import subprocess
from collections.abc import Callable, Sequence

from jobs.runners.hadoop.kill import kill_application
from jobs.runners.hadoop.yarn_rest import program
from nnlib.core.events import Note
from nnlib.core.scratch import folder_prefix, is_abandoned
from nnlib.core.waiting import waiting_for
from nnlib.storage import Storage, has_scheme

ALIVE = "NEW,NEW_SAVING,SUBMITTED,ACCEPTED,RUNNING"
YARN_SECONDS = 60.0
NO_RUN = "0" * 8
_NAME = re.compile(r"nnjobs-(?:.*-)?([0-9a-f]{8})-[0-9a-f]{12}")


def folder_name(run: str | None) -> str:
    """Return a new name for this process's staging folder.

    It is also a valid tag of a YARN application: lower case, at most 100 characters. ``run`` is the address of the run
    whose lock the process holds, if it holds one.
    """
    return f"{folder_prefix()}{run_mark(run)}-{secrets.token_hex(6)}"


def sweep(base: Storage, folder: str, run: str | None, notify: Callable[[Note], None]) -> None:
    """End the applications and delete the staging folders of dead drivers, in ``folder`` of ``base``.

    These are drivers that died on this machine, and earlier drivers of ``run``, whose lock this process holds.
    """
    for name in base.names(folder):
        matched = _NAME.fullmatch(name)
        if is_abandoned(name) or (run is not None and matched is not None and matched[1] == run_mark(run)):
            ended, left = _end_applications(name, notify)
            if left:  # the folder stays: its name is the tag by which the next command finds the application
                names = ", ".join(left)
                _warn(notify, f"cannot end what a killed driver left running: {names} (yarn application -kill)")
                continue
            _warn(notify, f"deleting what a killed driver left in {base.root}/{folder}{_and_ended(ended)}")
            base.delete(f"{folder}/{name}")


def _warn(notify: Callable[[Note], None], text: str) -> None:
    notify(Note(text, "warning"))


def _and_ended(applications: list[str]) -> str:
    return f", and ended its {', '.join(applications)}" if applications else ""


def run_mark(run: str | None) -> str:
    """Return 8 hex digits that stand for a run in names of folders and tags of applications."""
    if run is None:
        return NO_RUN
    address = run if has_scheme(run) else f"{platform.node()}:{run}"  # a path means another run on another machine
    return hashlib.sha256(address.encode()).hexdigest()[:8]


def _end_applications(tag: str, notify: Callable[[Note], None]) -> tuple[list[str], list[str]]:
    """End the applications with a tag; return those that were ended, and those that could not be.

    The program ``yarn`` lists them: it knows every resource manager and how to log in there.
    """
    try:
        listed = _yarn("-list", "-appTags", tag, "-appStates", ALIVE)
        names = re.findall(r"^(application_\d+_\d+)\b", listed, re.MULTILINE)
        ended = [name for name in names if kill_application(name, None, program("yarn"), os.environ)]
        return ended, [name for name in names if name not in ended]
    except (OSError, subprocess.SubprocessError) as error:
        _warn(notify, f"cannot see whether a killed driver's application still runs: {error}")
        return [], []


def _yarn(*arguments: str) -> str:
    with waiting_for("looking for what a killed driver left on the cluster (yarn application -list)"):
        return _output_of(arguments)


def _output_of(arguments: Sequence[str]) -> str:
    done = subprocess.run(
        [program("yarn"), "application", *arguments],
        env=os.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=YARN_SECONDS,
        check=True,
    )
    return done.stdout
