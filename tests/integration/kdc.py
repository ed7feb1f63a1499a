"""A real Kerberos: MIT's KDC on a host of the test network (Debian: apt install krb5-kdc krb5-user)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from failures import wait_until
from hosts import DOMAIN, Host

REALM = "HOSTS.TEST"
PROGRAMS = ("krb5kdc", "kdb5_util", "kadmin.local", "kinit")
SYSTEM_FILE = Path("/etc/krb5.conf")
PORT = 88
SEARCHED = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

CLIENT_FILE = """[libdefaults]
 default_realm = {realm}
 dns_lookup_kdc = false
 dns_lookup_realm = false
 dns_canonicalize_hostname = false
 rdns = false
 ticket_lifetime = 1h
 renew_lifetime = 1d
 udp_preference_limit = 1
[realms]
 {realm} = {{
  kdc = {host}:{port}
 }}
[domain_realm]
 .{domain} = {realm}
"""
KDC_FILE = """[kdcdefaults]
 kdc_listen = {address}:{port}
 kdc_tcp_listen = {address}:{port}
[realms]
 {realm} = {{
  database_name = {folder}/principal
  key_stash_file = {folder}/stash
  max_life = 1h
  max_renewable_life = 1d
 }}
"""


def lacking() -> str | None:
    """Why there can be no KDC here; None if there can be one."""
    if missing := [name for name in PROGRAMS if shutil.which(name, path=SEARCHED) is None]:
        return f"there is no {missing[0]} (Debian: apt install krb5-kdc krb5-admin-server krb5-user)"
    return None if SYSTEM_FILE.exists() else f"there is no {SYSTEM_FILE} to put another one over"


class Kdc:
    """The KDC of `REALM` on a host. ``folder``: where its files lie, also keytabs."""

    def __init__(self, host: Host, folder: Path) -> None:
        self._host, self.folder = host, folder
        folder.mkdir()
        self.client_file = folder / "krb5.conf"
        self.client_file.write_text(
            CLIENT_FILE.format(realm=REALM, host=host.domain_name, domain=DOMAIN, port=PORT), encoding="utf-8"
        )
        self._file = folder / "kdc.conf"
        self._file.write_text(
            KDC_FILE.format(realm=REALM, address=host.address, folder=folder, port=PORT), encoding="utf-8"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def environment(self) -> dict[str, str]:
        """The variables with which its programs find their files."""
        return {"PATH": SEARCHED, "KRB5_CONFIG": str(self.client_file), "KRB5_KDC_PROFILE": str(self._file)}

    def start(self) -> None:
        """Make the realm's database, if there is none, and start."""
        if not (self.folder / "principal").exists():
            self._host.run("kdb5_util", "create", "-s", "-P", "secret", "-r", REALM, env=self.environment())
        self._process = self._host.start(
            ["krb5kdc", "-n", "-r", REALM], log=self.folder / "kdc.log", env=self.environment()
        )

    def stop(self) -> None:
        """End the KDC: nobody gets or renews a ticket then."""
        assert self._host.kill("krb5kdc", "-n")

    def keytab(self, name: str, *principals: str) -> Path:
        """Make principals; return a file with their keys."""
        path = self.folder / f"{name}.keytab"
        for principal in principals:
            self._admin(f"addprinc -randkey -maxrenewlife 1d {principal}@{REALM}")
            self._admin(f"ktadd -k {path} {principal}@{REALM}")
        return path

    def wait_until_ready(self, keytab: Path, principal: str) -> None:
        """Wait until it gives tickets."""
        command = ["kinit", "-k", "-t", str(keytab), "-c", f"FILE:{self.folder}/trial", principal]

        def answers() -> bool:
            done = subprocess.run(
                self._host.command(*command), env=self.environment(), capture_output=True, check=False
            )
            return done.returncode == 0

        wait_until(answers, "the KDC answers", 30.0)

    def _admin(self, query: str) -> None:
        self._host.run("kadmin.local", "-r", REALM, "-q", query, env=self.environment())
