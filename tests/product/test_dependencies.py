"""The lock files hold everything that setup.cfg asks for, in one version for every Python, each file by its hash."""

from __future__ import annotations

import configparser
import itertools
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from product import ROOT

RUN, TEST, TORCH, KERBEROS, UV = (
    ROOT / f"requirements{name}.lock" for name in ("", "-test", "-torch", "-kerberos", "-uv")
)
LOCKS = (RUN, TEST, TORCH, KERBEROS, UV)
EXTRAS = {
    RUN: {"aws", "digits", "export", "images", "report", "sklearn", "tensorboard", "text"},
    TEST: {"mlflow", "test", "lint"},
    TORCH: {"torch"},
    KERBEROS: {"kerberos"},
}
"""What each lock file adds to the one before, and that of Kerberos to any; see bootstrap/lock.sh."""
ENVIRONMENTS = [
    {"python_version": version, "python_full_version": f"{version}.9", "sys_platform": system, "platform_machine": kind}
    for version, (system, kind) in itertools.product(
        ("3.11", "3.12", "3.13"), (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
    )
]


@dataclass(frozen=True)
class Entry:
    """One package of a lock file, for the environments that its marker names."""

    requirement: Requirement
    hashes: tuple[str, ...]

    @property
    def name(self) -> str:
        return canonicalize_name(self.requirement.name)


def entries(lock: Path) -> list[Entry]:
    text = re.sub(r"^\s*#.*\n", "", lock.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found = []
    for line in text.splitlines():
        stated, *hashes = line.split(" --hash=")
        found.append(Entry(Requirement(stated.strip()), tuple(each.strip() for each in hashes)))
    return found


def wanted() -> dict[str, list[Requirement]]:
    """Requirements by extra; "" for those of nnjobs itself."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    texts = {"": setup["options"]["install_requires"], **setup["options.extras_require"]}
    return {extra: [Requirement(line) for line in text.split("\n") if line.strip()] for extra, text in texts.items()}


def locked(lock: Path, environment: dict[str, str]) -> dict[str, str]:
    """Name -> version of what is installed from a lock file."""
    versions: dict[str, str] = {}
    for entry in entries(lock):
        marker = entry.requirement.marker
        if marker is None or marker.evaluate(environment):
            assert entry.name not in versions, f"{entry.name} in two versions"
            versions[entry.name] = str(entry.requirement.specifier).removeprefix("==")
    return versions


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_package_is_pinned_by_hash(lock: Path) -> None:
    found = entries(lock)
    assert found
    for entry in found:
        assert re.fullmatch(r"==[^*,]+", str(entry.requirement.specifier)), entry.name
        assert entry.requirement.url is None
        assert entry.hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in entry.hashes), entry.name


def test_every_extra_is_in_a_lock() -> None:
    assert set().union(*EXTRAS.values()) == set(wanted()) - {""}


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda each: "-".join(each.values()))
def test_the_locks_hold_what_setup_asks_for(environment: dict[str, str]) -> None:
    extras = {""}
    for lock in (RUN, TEST, TORCH):
        versions = locked(lock, environment)
        extras |= EXTRAS[lock]
        for extra in sorted(extras):
            for requirement in wanted()[extra]:
                if requirement.marker is None or requirement.marker.evaluate(environment):
                    version = versions.get(canonicalize_name(requirement.name))
                    assert version is not None, f"{requirement.name} is not in {lock.name}: run bootstrap/lock.sh"
                    assert requirement.specifier.contains(version), f"{lock.name} has {requirement.name} {version}"
        assert "setuptools" in versions, "what builds nnjobs must be locked, too"


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda each: "-".join(each.values()))
def test_the_locks_agree(environment: dict[str, str]) -> None:
    run, test, torch = (locked(lock, environment) for lock in (RUN, TEST, TORCH))
    assert run.items() <= test.items() <= torch.items()
    assert "torch" not in test and set(locked(UV, environment)) == {"uv"}


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda each: "-".join(each.values()))
def test_the_lock_of_kerberos_fits_the_others(environment: dict[str, str]) -> None:
    ours, torch = locked(KERBEROS, environment), locked(TORCH, environment)
    (requirement,) = wanted()["kerberos"]
    assert requirement.specifier.contains(ours[canonicalize_name(requirement.name)])
    assert all(torch.get(name, version) == version for name, version in ours.items())


def test_nothing_is_installed_but_from_a_lock() -> None:
    """Every ``pip install`` of the set-up scripts checks hashes, or fetches nothing."""
    scripts = [path.read_text() for path in sorted((ROOT / "bootstrap").glob("*.sh"))]
    calls = re.findall(
        r'(?:"\$\{pip\[@\]\}"|pip install(?! --quiet --disable-pip-version-check\)))[^;&|]*', "".join(scripts)
    )
    assert len(calls) >= 4
    for call in calls:
        assert "--require-hashes -r" in call or "--no-deps --no-build-isolation" in call, call
