"""Principals and users, against the answers of Hadoop 3.4.2's own KerberosName."""

from __future__ import annotations

import pytest

from nnlib.core.errors import UsageError
from nnlib.storage.hdfs.auth_to_local import MECHANISM, RULES, short_name

REALM = "HOSTS.TEST"
PRINCIPALS = (
    "ann",
    "ann@HOSTS.TEST",
    "Ann@OTHER.ORG",
    "nn/m0.hosts.test@HOSTS.TEST",
    "x/y_z_a@OTHER.ORG",
    "bob@OTHER.ORG",
)
ANSWERS = [
    (
        "DEFAULT",
        "hadoop",
        ("ann", "ann", None, "nn", None, None),
    ),
    (
        "RULE:[1:$1@$0](.*@OTHER.ORG)s/@.*// DEFAULT",
        "hadoop",
        ("ann", "ann", "Ann", "nn", None, "bob"),
    ),
    (
        "RULE:[2:$1;$0](nn;.*)s/.*/hdfs/\nRULE:[2:$1]\nDEFAULT",
        "hadoop",
        ("ann", "ann", None, "hdfs", "x", None),
    ),
    (
        "RULE:[1:$1@$0](.*@O.*)s/^(.)(.*)@.*$/$2-$1/ DEFAULT",
        "hadoop",
        ("ann", "ann", "nn-A", "nn", None, "ob-b"),
    ),
    (
        "RULE:[1:$1]/L RULE:[2:$1_$2]s/_/x/g/L",
        "hadoop",
        ("ann", "ann", "ann", "nnxm0.hosts.test", "xxyxzxa", "bob"),
    ),
    (
        "RULE:[1:$1@$0](x.*)s/@.*//",
        "hadoop",
        ("ann", None, None, None, None, None),
    ),
    (
        "RULE:[1:$1@$0]",
        "hadoop",
        ("ann", None, None, None, None, None),
    ),
    (
        "RULE:[1:$1@$0](x.*)s/@.*//",
        "mit",
        ("ann", "ann@HOSTS.TEST", "Ann@OTHER.ORG", "nn/m0.hosts.test@HOSTS.TEST", "x/y_z_a@OTHER.ORG", "bob@OTHER.ORG"),
    ),
    (
        "RULE:[2:$2.$1]s/a/b/",
        "hadoop",
        ("ann", None, None, "m0.hosts.test.nn", "y_z_b.x", None),
    ),
    (
        "RULE:[2:$2.$1]s/a/b/g DEFAULT",
        "hadoop",
        ("ann", "ann", None, "m0.hosts.test.nn", "y_z_b.x", None),
    ),
]
"""Rules, mechanism, and the user of each principal; None where Hadoop finds no rule or no simple name."""


@pytest.mark.parametrize(("rules", "mechanism", "users"), ANSWERS)
def test_users_are_hadoops(rules: str, mechanism: str, users: tuple[str | None, ...]) -> None:
    for principal, user in zip(PRINCIPALS, users, strict=True):
        settings = {RULES: rules, MECHANISM: mechanism}
        if user is None:
            with pytest.raises(UsageError):
                short_name(principal, settings, REALM)
        else:
            assert short_name(principal, settings, REALM) == user


def test_without_rules_the_own_realm_counts() -> None:
    assert short_name("ann@HOSTS.TEST", {}, REALM) == "ann"
    with pytest.raises(UsageError, match="no rule") as caught:
        short_name("ann@OTHER.ORG", {}, REALM)
    assert "core-site.xml" in str(caught.value)


@pytest.mark.parametrize("rules", ["nonsense", "RULE:[1:$7]", "RULE:[1:$1](*)", "RULE:[1:$1](a(b)c)"])
def test_rules_that_are_none_are_named(rules: str) -> None:
    with pytest.raises(UsageError, match=RULES.replace(".", r"\.")):
        short_name("ann@HOSTS.TEST", {RULES: rules}, REALM)


def test_a_principal_that_is_none() -> None:
    with pytest.raises(UsageError, match="not a Kerberos principal"):
        short_name("a/b/c@D", {}, REALM)
