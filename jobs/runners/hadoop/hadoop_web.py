"""Requests to YARN's pages, signed with our Kerberos ticket where they ask for that (SPNEGO)."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Literal

import requests

from nnlib.storage.hdfs.hadoop_config import certificates, wants_kerberos
from nnlib.storage.hdfs.hadoop_http import HadoopConnection, Login, has_task_token
from nnlib.storage.hdfs.ticket import INSTALL, current_ticket, has_package, ticket_problem
from nnlib.storage.hdfs.webhdfs_errors import tls_reason

_log = logging.getLogger("nnjobs.hadoop")

TIMEOUT_SECONDS = 10.0


def request(
    address: str,
    method: Literal["GET", "PUT"] = "GET",
    *,
    body: dict[str, str] | None = None,
    timeout: float = TIMEOUT_SECONDS,
) -> requests.Response | None:
    """Return the answer of an address, whatever its status; None if nobody answers.

    ``body`` is sent as JSON; ``timeout`` is in seconds. Redirections are followed. No proxy is used: one for the
    internet does not lead to the cluster. The first page that wants another login than we have is logged.
    """
    session = _connection(certificates()).session()
    accept = {"Accept": "application/json, text/plain, */*"}
    try:
        answer = session.request(method, address, json=body, headers=accept, timeout=timeout, auth=_login().auth())
    except (requests.RequestException, ValueError) as error:
        if isinstance(error, requests.exceptions.SSLError):
            _warn_once(
                f"{_place(address)} cannot be trusted: name its certificates in NNJOBS_HDFS_CA ({tls_reason(error)})"
            )
        return None
    if answer.status_code in (401, 403):
        _warn_once(f"{_place(answer.url)} does not accept who we are ({answer.status_code}): {_reason()}")
    return answer


@lru_cache(maxsize=4)
def _connection(certificates: str | None) -> HadoopConnection:
    return HadoopConnection(certificates)


def _login() -> Login:
    return Login(negotiates=wants_kerberos() and has_package() and not has_task_token())


def _place(address: str) -> str:
    return "/".join(address.split("/")[:3])


@lru_cache(maxsize=64)
def _warn_once(text: str) -> None:
    _log.warning("%s", text)


def _reason() -> str:
    if not wants_kerberos():
        return "HADOOP_CONF_DIR does not say that it wants Kerberos, or you may not see this"
    if not has_package():
        return f"{INSTALL}, then kinit"
    problem = ticket_problem(current_ticket())
    return "you may not see this" if problem is None else problem.message
