"""What is written down is its owner's alone, and holds no secret."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from shards import write_run

from jobs.__main__ import main
from jobs.runners.local import fork_server, task_pool
from jobs.runners.local import session as local_session
from nnlib.config.load import parse_config
from nnlib.core.errors import UsageError
from nnlib.storage import LocalStorage, storage


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("trained"))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def test_a_run_is_its_owners_alone(trained: Path, tmp_path: Path, open_umask: None) -> None:
    (tmp_path / "made before").mkdir()
    for name in ("runs/new", "made before"):
        run = tmp_path / name
        assert main(["train", str(trained / "c.yaml"), "--run-dir", str(run), "-q", "-r", "local"]) == 0
        inside = sorted(run.rglob("*"))
        assert {path.name for path in inside} >= {"config.yaml", "spec.json", "log", "events.jsonl", "lock"}
        for path in inside:
            assert mode(path) == (0o700 if path.is_dir() else 0o600), path
    assert mode(tmp_path / "runs/new") == 0o700
    assert mode(tmp_path / "runs") == mode(tmp_path / "made before") == 0o777  # not ours to close


def test_other_files_have_the_modes_the_user_chose(tmp_path: Path, open_umask: None) -> None:
    LocalStorage(tmp_path / "a").write("b/c", b"")
    assert [mode(tmp_path / name) for name in ("a", "a/b", "a/b/c")] == [0o777, 0o777, 0o666]
    os.umask(0o027)
    LocalStorage(tmp_path / "d").create("e", b"")
    assert [mode(tmp_path / name) for name in ("d", "d/e")] == [0o750, 0o640]
    storage(str(tmp_path / "f"), private=True).write("g/h", b"")
    assert [mode(tmp_path / name) for name in ("f", "f/g", "f/g/h")] == [0o700, 0o700, 0o600]


SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAQ7EXAMPLE4KEYID9",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    "AWS_SESSION_TOKEN": "FwoGZXIvYXdzEXAMPLETOKEN",
    "HTTPS_PROXY": "http://somebody:pr0xyPassw0rdExample@127.0.0.1:9",
}
NEEDLES = [
    spelling
    for secret in [*SECRETS.values(), "pr0xyPassw0rdExample"]
    for spelling in (secret.encode(), base64.b64encode(secret.encode()), secret.encode().hex().encode())
]


def leaks(*places: Path | str | bytes) -> list[str]:
    """Where a secret stands: files below directories (their names too), texts."""
    found = []
    for place in places:
        if not isinstance(place, Path):
            data = place.encode() if isinstance(place, str) else place
            found += [f"text: {needle!r}" for needle in NEEDLES if needle in data]
            continue
        for path in [place, *place.rglob("*")]:
            data = str(path).encode() + (path.read_bytes() if path.is_file() else b"")
            found += [f"{path}: {needle!r}" for needle in NEEDLES if needle in data]
    return found


def test_the_search_for_secrets_finds(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"key=" + NEEDLES[0])
    assert leaks(tmp_path) and leaks(f"{SECRETS['HTTPS_PROXY']}") and not leaks("AKIA", tmp_path.parent / "nothing")


@pytest.mark.parametrize("forked", [True, False], ids=["task server", "processes"])
def test_no_secret_of_the_environment_is_written_or_passed_on(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], forked: bool
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    arguments: list[str] = []
    seen: list[str] = []

    def recording(method: Any) -> Any:
        def start(self: Any, command: Sequence[str], *rest: Any, **options: Any) -> Any:
            arguments.append(json.dumps([os.fspath(part) for part in command]))
            return method(self, command, *rest, **options)

        return start

    run_task = task_pool.TaskPool.run

    def watched(self: Any, *rest: Any, **options: Any) -> Any:
        result = run_task(self, *rest, **options)
        seen.extend(leaks(tmp_path / "tmp"))
        arguments.extend(f"{path}" for path in (tmp_path / "tmp").iterdir() if mode(path) != 0o700)
        return result

    monkeypatch.setattr(subprocess.Popen, "__init__", recording(subprocess.Popen.__init__))
    monkeypatch.setattr(fork_server.TaskServer, "start", recording(fork_server.TaskServer.start))
    monkeypatch.setattr(task_pool.TaskPool, "run", watched)
    if not forked:
        monkeypatch.setattr(local_session, "process_starter", lambda *_: subprocess.Popen)
    run = tmp_path / "run"
    started = ["train", str(trained / "c.yaml"), "-r", "local", "--run-dir", str(run), "--json"]
    assert main(started) == 0
    assert main(["export", str(run), "--format", "npz", "-o", str(tmp_path / "m.npz")]) == 0
    assert main(["predict", str(run), str(trained / "data"), "-o", str(tmp_path / "p.parquet")]) == 0
    assert main(["verify", str(run), "--all"]) == 0
    assert main(["doctor"]) in (0, 1)
    (run / "rounds/000001/model.safetensors").write_bytes(b"damaged")
    assert main(["--debug", "train", "--resume", "--run-dir", str(run), "--set", "train.epochs=10"]) != 0
    captured = capfd.readouterr()
    assert sum("round_job.py" in line for line in arguments) >= 4, "the tasks' arguments were not recorded"
    assert leaks(*arguments, captured.out, captured.err, tmp_path) + seen == []
    assert not [line for line in arguments if line.startswith("/")], "a temporary folder that others may read"


ADDRESSES = [
    "s3://AKIAQ7EXAMPLE4KEYID9:wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY@bucket/data",
    "s3://AKIAQ7EXAMPLE4KEYID9:wJalrXUtnFEMI%2FK7MDENG%2BbPxRfiCYEXAMPLEKEY@bucket",
    "hdfs://somebody:pr0xyPassw0rdExample@namenode:8020/data",
    "https://pr0xyPassw0rdExample@host/data.csv",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_with_a_password_is_refused_everywhere(
    trained: Path,
    address: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    run, data, config = (str(trained / name) for name in ("run", "data", "c.yaml"))
    for command in (
        ["train", config, "--run-dir", address],
        ["train", config, "--from", address],
        ["train", config, "--set", f"data.path={address}"],
        ["train", config, "--set", f"data.path={address}", "--dry-run"],
        ["data", "import", address, "-o", "x"],
        ["data", "import", "iris", "-o", address],
        ["data", "info", address],
        ["predict", run, address, "-o", "x"],
        ["predict", address, data, "-o", "x"],
        ["export", run, "--format", "npz", "-o", f"{address}/m.npz"],
    ):
        assert main(command) == 2, command
        captured = capsys.readouterr()
        assert "holds a user name or a password" in captured.err
        assert leaks(captured.out, captured.err) == [] and address not in captured.err
    for key in ("data: {path: '%s'}", "run_dir: '%s'\ndata: {path: x}"):
        with pytest.raises(UsageError, match="user name or a password") as caught:
            parse_config(key % address, "c.yaml")
        assert caught.value.where["key"] in ("data.path", "run_dir") and leaks(str(caught.value)) == []
    with pytest.raises(UsageError, match="user name or a password"):
        storage(address)
    assert list(tmp_path.iterdir()) == []


def test_a_signed_address_is_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        storage("https://host/x.parquet?X-Amz-Signature=0123abcd")
    assert "0123abcd" not in str(caught.value)
