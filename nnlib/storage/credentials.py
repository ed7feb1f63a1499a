"""Addresses hold no secrets: they are written into configurations, ledgers, logs and arguments of tasks."""

from __future__ import annotations

import re
from typing import Any

from nnlib.core.errors import UsageError

_CREDENTIALS = re.compile(
    r"""([a-z][a-z0-9+.-]*)://
        (?: [^/?#\s]*@                           # user@host, user:password@host
          | [^/?#\s\[]*:(?!\d*(?:[/?#\s]|$))\S*@  # the same with a / in the password; host:8020/a@b is none
        )""",
    re.VERBOSE | re.IGNORECASE,
)


def refuse_credentials(text: str, **where: Any) -> None:
    """Raise `UsageError` if an address in the text names a user or a password; the error does not repeat it."""
    match = _CREDENTIALS.search(text)
    if match is not None:
        raise UsageError(
            f"an address ({match[1]}://...@...) holds a user name or a password: it would be kept in logs and files",
            hint="take it out of the address; credentials come from the environment or the service's own files "
            "(AWS_PROFILE and ~/.aws/credentials for S3, HADOOP_USER_NAME or kinit for HDFS)",
            **where,
        )
