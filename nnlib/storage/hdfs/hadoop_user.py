"""The user that the cluster knows us by."""

from __future__ import annotations

import getpass
import os

from nnlib.storage.hdfs.auth_to_local import short_name
from nnlib.storage.hdfs.hadoop_config import properties, wants_kerberos
from nnlib.storage.hdfs.ticket import default_realm, require_ticket
from nnlib.storage.hdfs.tokens import task_tokens


def hadoop_user() -> str:
    """Return the user by which the cluster knows us: with Kerberos that of the job's tokens or of the ticket, by the
    rules of ``hadoop.security.auth_to_local``; without it ``HADOOP_USER_NAME``, else the user of the system.

    Raises `StorageError` where Kerberos is wanted and there is no good ticket, `UsageError` where no rule fits.
    """
    if not wants_kerberos():
        return os.environ.get("HADOOP_USER_NAME") or getpass.getuser()
    if task_tokens():
        return getpass.getuser()  # YARN sets USER and LOGNAME to whose job it is, no matter who runs its containers
    return short_name(require_ticket().principal, properties(), default_realm())
