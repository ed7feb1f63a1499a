"""The Kerberos ticket of this process, as ``kinit`` or a keytab got it, and what a request is signed with.

It needs the package requests-gssapi, on the system's Kerberos library: the one that Hadoop's administrators and ``curl
--negotiate`` use, so files of tickets, realms and encryption are the same.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nnlib.core.errors import StorageError, UsageError

if TYPE_CHECKING:
    from requests.auth import AuthBase

INSTALL = 'pip install "nnjobs[kerberos]" (it needs the system\'s Kerberos library; Debian: apt install libkrb5-dev)'
RESUME = "then run the same command with --resume if it had begun"


@dataclass(frozen=True)
class Ticket:
    """Who we are (``ann@EXAMPLE.COM``; "" once it has expired), and for how many seconds the ticket is good."""

    principal: str
    seconds: float


def has_package() -> bool:
    """Return whether the package that speaks Kerberos over HTTP is installed."""
    return importlib.util.find_spec("requests_gssapi") is not None


def require_package() -> None:
    """Raise `UsageError` where it is not installed."""
    if not has_package():
        raise UsageError(
            "this cluster wants Kerberos, and the package for it is not installed", hint=f"{INSTALL}; then kinit"
        )


def negotiation() -> AuthBase:
    """Return what signs one request with the ticket when the service asks for it (SPNEGO); each request needs its own,
    for threads share a connection."""
    package = _spnego()
    auth: AuthBase = package()
    return auth


@functools.cache
def _spnego() -> type[AuthBase]:
    require_package()
    from requests_gssapi import HTTPSPNEGOAuth  # late: only where Kerberos is used

    # It writes tracebacks of what we say in one line.
    logging.getLogger("requests_gssapi").addHandler(logging.NullHandler())
    logging.getLogger("requests_gssapi").propagate = False
    kind: type[AuthBase] = HTTPSPNEGOAuth
    return kind


def current_ticket() -> Ticket | None:
    """Return the ticket of this process; None if there is none. One that has expired has no seconds left."""
    require_package()
    import gssapi

    try:
        credentials = gssapi.Credentials(usage="initiate")
        return Ticket(str(credentials.name), float(credentials.lifetime or 0))
    except gssapi.exceptions.ExpiredCredentialsError:
        return Ticket("", 0.0)
    except gssapi.exceptions.GSSError:
        return None


def default_realm() -> str:
    """Return the realm of this machine's Kerberos settings; "" if they name none."""
    require_package()
    import gssapi

    try:
        name = gssapi.Name("nobody", gssapi.NameType.kerberos_principal).canonicalize(gssapi.MechType.kerberos)
    except gssapi.exceptions.GSSError:
        return ""
    return str(name).rpartition("@")[2]


def ticket_problem(ticket: Ticket | None) -> StorageError | None:
    """Return the error of a ticket that is not there, or has expired; None for a good one."""
    if ticket is None:
        return StorageError(
            "there is no Kerberos ticket, which this cluster wants",
            hint=f"kinit, or set runtime.hadoop.keytab and principal; {RESUME}",
        )
    if ticket.seconds <= 0:
        return StorageError(
            "the Kerberos ticket has expired",
            hint=f"kinit, {RESUME}; runtime.hadoop.keytab and principal get new ones by themselves",
        )
    return None


def require_ticket() -> Ticket:
    """Return the ticket of this process. Raises `StorageError` if there is none, or it has expired."""
    ticket = current_ticket()
    problem = ticket_problem(ticket)
    if problem is not None or ticket is None:
        raise problem or StorageError("there is no Kerberos ticket")
    return ticket
