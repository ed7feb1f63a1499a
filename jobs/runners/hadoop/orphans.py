"""What a killed driver left on the cluster, for the next command to end: its application, which goes on for nobody, and
its scratch folder.

A folder's name says whose it is (`nnlib.core.scratch`) and of which run; applications carry it as a tag. So a driver
that died here is known by its process, and one that died anywhere by its run, once somebody else holds that run's lock.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
import subprocess
from collections.abc import Callable

from jobs.runners.hadoop.kill import kill_application
from jobs.runners.hadoop.yarn_rest import program
from nnlib.core.events import Note
from nnlib.core.scratch import folder_prefix, is_abandoned
from nnlib.storage import Storage, has_scheme

ALIVE = "NEW,NEW_SAVING,SUBMITTED,ACCEPTED,RUNNING"
YARN_SECONDS = 60.0
NO_RUN = "0" * 8
_NAME = re.compile(r"nnjobs-(?:.*-)?([0-9a-f]{8})-[0-9a-f]{12}")


def folder_name(run: str | None) -> str:
    """A new name for this process's scratch folder, also good as a tag of YARN's: lower case, at most 100 characters.
    ``run`` is the address of the run that it works for, if it holds a run's lock."""
    return f"{folder_prefix()}{_run_mark(run)}-{secrets.token_hex(6)}"


def sweep(base: Storage, folder: str, run: str | None, notify: Callable[[Note], None]) -> None:
    """End the applications and delete the scratch folders, in ``folder`` of ``base``, of drivers that are dead."""
    for name in base.names(folder):
        found = _NAME.fullmatch(name)
        if is_abandoned(name) or (run is not None and found is not None and found[1] == _run_mark(run)):
            ended, left = _end_applications(name, notify)
            if left:  # its folder's name is the tag by which the next command finds it
                names = ", ".join(left)
                _warn(notify, f"cannot end what a killed driver left running: {names} (yarn application -kill)")
                continue
            _warn(notify, f"deleting what a killed driver left in {base.root}/{folder}{_and_ended(ended)}")
            base.delete(f"{folder}/{name}")


def _warn(notify: Callable[[Note], None], text: str) -> None:
    notify(Note(text, "warning"))


def _and_ended(applications: list[str]) -> str:
    return f", and ended its {', '.join(applications)}" if applications else ""


def _run_mark(run: str | None) -> str:
    if run is None:
        return NO_RUN
    place = run if has_scheme(run) else f"{platform.node()}:{run}"  # a path means another run on another machine
    return hashlib.sha256(place.encode()).hexdigest()[:8]


def _end_applications(tag: str, notify: Callable[[Note], None]) -> tuple[list[str], list[str]]:
    """End what runs under a tag: what was ended, and what could not be. By the program ``yarn``, which knows every
    resource manager and how to log in there."""
    try:
        listed = _yarn("-list", "-appTags", tag, "-appStates", ALIVE)
        found = re.findall(r"^(application_\d+_\d+)\b", listed, re.MULTILINE)
        ended = [name for name in found if kill_application(name, None, program("yarn"), os.environ)]
        return ended, [name for name in found if name not in ended]
    except (OSError, subprocess.SubprocessError) as error:
        _warn(notify, f"cannot see whether a killed driver's application still runs: {error}")
        return [], []


def _yarn(*arguments: str) -> str:
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
