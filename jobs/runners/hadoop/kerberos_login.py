"""Logs in to a cluster with Kerberos by the keytab that a configuration names."""

from __future__ import annotations

from pathlib import Path

from nnlib.config.schema import Runtime
from nnlib.storage.hdfs.hadoop_config import wants_kerberos
from nnlib.storage.hdfs.ticket import has_package, require_package, require_ticket
from nnlib.storage.hdfs.ticket_keeper import Keytab, log_in
from nnlib.storage.hdfs.tokens import task_tokens


def use_keytab(runtime: Runtime) -> None:
    """Get a ticket by ``runtime.hadoop.keytab``, for this process and those that it starts, and keep it good.

    Nothing is done without a keytab, for a cluster without Kerberos, and in a job's task, which has tokens. Raises as
    `nnlib.storage.hdfs.ticket_keeper.log_in` does.
    """
    settings = runtime.hadoop
    if settings.keytab is None or settings.principal is None or not wants_kerberos() or task_tokens():
        return
    require_package()
    log_in(Keytab(Path(settings.keytab).expanduser().absolute(), settings.principal))


def require_login() -> None:
    """Raise `StorageError` where Hadoop's client would need a Kerberos ticket and there is none that is good: it would
    try for minutes."""
    if wants_kerberos() and has_package() and not task_tokens():
        require_ticket()
