"""From a Kerberos principal to the user that Hadoop knows: the rules of ``hadoop.security.auth_to_local``.

https://hadoop.apache.org/docs/r3.4.2/hadoop-project-dist/hadoop-common/SecureMode.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nnlib.core.errors import UsageError

RULES = "hadoop.security.auth_to_local"
MECHANISM = "hadoop.security.auth_to_local.mechanism"

_RULE = re.compile(
    r"\s*(?:(?P<default>DEFAULT)|RULE:\[(?P<parts>\d*):(?P<format>[^\]]*)\](?:\((?P<match>[^)]*)\))?"
    r"(?:s/(?P<old>[^/]*)/(?P<new>[^/]*)/(?P<all>g)?)?)/?(?P<lower>L)?"
)
_PRINCIPAL = re.compile(r"([^/@]+)(?:/([^/@]+))?(?:@([^/@]+))?")


@dataclass(frozen=True)
class Principal:
    """``primary/instance@REALM``; the instance and the realm may be missing."""

    primary: str
    instance: str | None
    realm: str | None

    @classmethod
    def parse(cls, text: str) -> Principal:
        """Split a principal's name. Raises `UsageError` for what is none."""
        matched = _PRINCIPAL.fullmatch(text)
        if matched is None:
            raise UsageError(f"not a Kerberos principal: {text!r}")
        return cls(*matched.groups())


def short_name(principal: str, settings: Mapping[str, str], default_realm: str) -> str:
    """Return the user that a principal is for Hadoop.

    ``settings`` are Hadoop's properties; ``default_realm`` is that of this machine. Raises `UsageError` where no rule
    fits, as Hadoop does.
    """
    name = Principal.parse(principal)
    if name.realm is None and name.instance is None:
        return name.primary
    is_hadoops = settings.get(MECHANISM, "hadoop").lower() != "mit"
    for rule in _rules(settings.get(RULES) or "DEFAULT"):
        user = _applied(rule, name, default_realm)
        if user is None:
            continue
        if is_hadoops and re.search("[/@]", user):
            raise UsageError(f"{RULES} makes {user!r} of {principal}: a user has no / and no @")
        return user.lower() if rule["lower"] else user
    if not is_hadoops:
        return principal
    raise UsageError(f"no rule of {RULES} fits the principal {principal}", hint="add one to core-site.xml")


def _rules(text: str) -> Iterator[re.Match[str]]:
    text = text.strip()
    while text:
        rule = _RULE.match(text)
        if rule is None:
            raise UsageError(f"{RULES} in core-site.xml has no rule at {text[:40]!r}")
        yield rule
        text = text[rule.end() :].strip()


def _applied(rule: re.Match[str], name: Principal, default_realm: str) -> str | None:
    """The user by one rule; None where the rule is about others."""
    if rule["default"]:
        return name.primary if name.realm == default_realm else None
    parts = [name.realm or "", name.primary, *([] if name.instance is None else [name.instance])]
    if int(rule["parts"] or 0) != len(parts) - 1:
        return None

    def part(match: re.Match[str]) -> str:
        number = int(match[1] or len(parts))
        if number >= len(parts):
            raise UsageError(f"{RULES}: a principal of {len(parts) - 1} parts has no ${match[1]}")
        return parts[number]

    base = re.sub(r"\$(\d*)", part, rule["format"])
    try:
        if rule["match"] is not None and re.fullmatch(rule["match"], base) is None:
            return None
        if rule["old"] is None:
            return base
        return re.sub(rule["old"], _python_replacement(rule["new"]), base, count=0 if rule["all"] else 1)
    except re.error as error:
        raise UsageError(f"{RULES} has a rule that is not understood here: {error}", rule=rule[0].strip()) from None


def _python_replacement(text: str) -> str:
    """A replacement in Java's form (``$1``) in Python's."""
    return re.sub(r"\$(\d)", r"\\g<\1>", text.replace("\\", "\\\\"))
