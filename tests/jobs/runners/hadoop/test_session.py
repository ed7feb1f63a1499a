"""What the hadoop runner asks of a cluster and makes of its answers. No Hadoop needed: its programs are played here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from played_hadoop import APPLICATION, Yarn, after, play, said
from small_job import request, small_spec, with_hadoop

from jobs.collective.job_folder import JobFiles
from jobs.collective.request import collective_request
from jobs.mapreduce.launcher import RoundLauncher
from jobs.runners.hadoop import staging
from jobs.runners.hadoop.session import HadoopSession
from jobs.runners.hadoop.staging import base_address
from jobs.runners.hadoop.task_environment import Environment, escaped
from jobs.runners.lines import Line
from jobs.runners.request import JobRequest
from jobs.runners.session import SessionOptions
from nnlib.core.errors import ConfigError, JobError
from nnlib.core.events import Note
from nnlib.run.spec import JobSpec, WorkerPlan
from nnlib.storage import storage


class Opened:
    """A session on local storage, its environment given, and what it notes."""

    def __init__(self, spec: JobSpec, folder: Path) -> None:
        self.spec = with_hadoop(spec, scratch=f"file://{folder}/scratch", mrjob_conf=str(folder / "mrjob.conf"))
        self.notes: list[Note] = []
        self.session = self._open()

    def _open(self) -> HadoopSession:
        runtime, address = self.spec.config.runtime, self.spec.dataset.address
        return HadoopSession(SessionOptions(runtime=runtime, near=address, modules=(), notify=self.notes.append))

    def configure(self, **hadoop: Any) -> None:
        """Open the session anew, with these keys of ``runtime.hadoop``."""
        self.session.close()
        self.spec = with_hadoop(self.spec, **hadoop)
        self.session = self._open()

    def run(self, job: JobRequest | None = None) -> list[Line]:
        return list(self.session.run(job or request(self.spec)))

    def notes_of(self, level: str) -> list[str]:
        return [note.text for note in self.notes if note.level == level]


@pytest.fixture
def opened(tmp_path: Path, hadoop_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    packed = Environment(("nnjobs-env/bin/python",), ("hdfs://h/e.tar.gz#nnjobs-env",), {"A": "1"})
    monkeypatch.setattr(staging, "environment", lambda *_: packed)
    opened = Opened(small_spec(tmp_path), tmp_path)
    yield opened
    opened.session.close()
    assert storage(f"file://{tmp_path}/scratch").names("runs") == []


def arguments(opened: Opened, home: Path, job: JobRequest | None = None) -> list[str]:
    """What ``hadoop`` was called with for a job (whose output is then missed)."""
    with pytest.raises(JobError, match="_SUCCESS"):
        opened.run(job)
    return said(home, "hadoop")


def properties(words: list[str]) -> dict[str, str]:
    return dict(value.split("=", 1) for value in after(words, "-D"))


def test_the_plan_goes_up_once_with_one_line_a_worker(opened: Opened, hadoop_home: Path, tmp_path: Path) -> None:
    inputs = [after(arguments(opened, hadoop_home), "-input") for _ in range(2)]
    (folder,) = (tmp_path / "scratch" / "runs").iterdir()
    assert folder.name.startswith("nnjobs-")
    assert inputs[1] == 2 * [f"file://{folder}/plan-1"]
    lines = (folder / "plan-1").read_text(encoding="utf-8").splitlines()
    assert [WorkerPlan.from_line(line).worker for line in lines] == [0, 1, 2, 3]
    other = arguments(opened, hadoop_home, replace(request(opened.spec), lines=["another"]))
    assert after(other, "-input")[-1] == f"file://{folder}/plan-2"
    assert (folder / "plan-2").read_text(encoding="utf-8") == "another\n"


def test_one_program_is_started_for_a_job(opened: Opened, hadoop_home: Path) -> None:
    """Nothing asks for Hadoop's version or looks at its files through it."""
    words = arguments(opened, hadoop_home)
    assert words.count("jar") == 1
    assert words[0] == "jar"
    assert words[1].endswith("hadoop-streaming-9.9.9.jar")
    assert said(hadoop_home, "yarn") == []


def test_a_job_in_containers(opened: Opened, hadoop_home: Path) -> None:
    opened.configure(uber="off")
    words = arguments(opened, hadoop_home)
    conf = properties(words)
    assert conf["mapreduce.job.name"] == "nnjobs tiny round 3/20"
    assert conf["mapreduce.job.reduces"] == "3"
    assert conf["mapreduce.input.lineinputformat.linespermap"] == "1"
    assert conf["stream.num.map.output.key.fields"] == "2"  # key and worker: values come sorted
    assert after(words, "-partitioner") == ["org.apache.hadoop.mapred.lib.KeyFieldBasedPartitioner"]
    files, archives = conf["mapreduce.job.cache.files"].split(","), conf["mapreduce.job.cache.archives"]
    assert "hdfs://host:1/a%20run%2C%20mine/rounds/000002/model.safetensors#model.safetensors" in files
    assert len(files) == 2
    assert all("round_job" not in file for file in files)  # the code is in the environment
    assert archives == "hdfs://h/e.tar.gz#nnjobs-env"
    (mapper,) = after(words, "-mapper")
    assert mapper.startswith(
        "nnjobs-env/bin/python -m jobs.mapreduce.round_job --step-num=0 --mapper --phase train --round 2"
    )
    assert "--model model.safetensors" in mapper
    assert mapper.endswith("--report --check-node")
    assert after(words, "-cmdenv") == ["A=1"]


def test_a_job_in_the_masters_container_is_one_map_and_one_reduce(opened: Opened, hadoop_home: Path) -> None:
    conf = properties(arguments(opened, hadoop_home))
    assert conf["mapreduce.job.ubertask.enable"] == "true"
    assert conf["mapreduce.job.reduces"] == "1"
    assert conf["mapreduce.input.lineinputformat.linespermap"] == "4"


def test_the_model_of_a_run_on_this_machine_goes_up(opened: Opened, hadoop_home: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"weights")

    def copy_of_job(number: int) -> Path:
        files = properties(arguments(opened, hadoop_home, request(opened.spec, model=str(model))))[
            "mapreduce.job.cache.files"
        ]
        (uri,) = [each for each in files.split(",") if each.endswith("#model.safetensors")]
        assert f"/job-{number:06d}/" in uri
        return Path(uri.partition("#")[0].removeprefix("file://"))

    first = copy_of_job(1)
    assert first.read_bytes() == b"weights"
    assert copy_of_job(2).read_bytes() == b"weights"
    assert not first.exists()  # that of the job before


def test_mrjobs_file_wins_over_what_is_derived_and_the_experiment_over_both(
    opened: Opened, hadoop_home: Path, tmp_path: Path
) -> None:
    conf = "runners: {hadoop: {jobconf: {mapreduce.map.memory.mb: 901, mapreduce.job.queuename: theirs}}}"
    (tmp_path / "mrjob.conf").write_text(conf, encoding="utf-8")
    opened.configure(jobconf={"mapreduce.job.queuename": "mine"})
    found = properties(arguments(opened, hadoop_home))
    assert found["mapreduce.map.memory.mb"] == "901"
    assert found["mapreduce.job.queuename"] == "mine"


def test_a_job_that_fails_in_the_masters_container_runs_again_in_containers(opened: Opened, hadoop_home: Path) -> None:
    play(hadoop_home, "hadoop", 'case "$*" in *ubertask.enable=true*) echo lost >&2; exit 1;; esac')
    arguments(opened, hadoop_home)
    assert said(hadoop_home, "hadoop").count("jar") == 2
    assert "trying again in containers" in opened.notes_of("warning")[0]


def test_what_would_fail_again_is_not_tried_again(opened: Opened, hadoop_home: Path) -> None:
    play(hadoop_home, "hadoop", "echo \"ModuleNotFoundError: No module named 'numpy'\" >&2; exit 1")
    with pytest.raises(JobError, match="lacks the module numpy") as failed:
        opened.run()
    assert said(hadoop_home, "hadoop").count("jar") == 1
    assert failed.value.exit_code == 4


@pytest.mark.parametrize(("state", "killed"), [("RUNNING", True), ("FAILED", False), (None, False)])
def test_an_application_whose_client_died_does_not_go_on(
    state: str | None, killed: bool, opened: Opened, hadoop_home: Path, yarn: tuple[str, type[Yarn]]
) -> None:
    host, handler = yarn
    place = f"/ws/v1/cluster/apps/{APPLICATION}"
    handler.answers = {f"{place}/state": {"state": "KILLED"}} | ({place: {"app": {"state": state}}} if state else {})
    script = f"echo 'Submitted application {APPLICATION}' >&2; echo 'url to track the job: http://{host}/x' >&2\n"
    play(hadoop_home, "hadoop", f"{script}exit 137")
    play(hadoop_home, "yarn", "true")
    opened.configure(uber="on")
    with pytest.raises(JobError):
        opened.run()
    puts = [path.partition("?")[0] for method, path, _ in handler.heard if method == "PUT"]
    assert puts == ([f"{place}/state"] if killed else [])


def test_without_hadoop_the_error_says_what_to_set(opened: Opened, tmp_path: Path) -> None:
    (tmp_path / "mrjob.conf").write_text("runners: {hadoop: {hadoop_bin: /no/such/hadoop}}", encoding="utf-8")
    with pytest.raises(JobError, match="cannot start /no/such/hadoop") as failed:
        opened.run()
    assert "HADOOP_HOME" in str(failed.value.hint)


def test_output_is_read_when_it_is_whole_and_then_deleted(
    opened: Opened, hadoop_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = 'while [ "$1" != -output ]; do shift; done; out=${2#file://}; mkdir -p "$out"; touch "$out/_SUCCESS"\n'
    script += "printf 'k1\\tv1\\nk2\\tv2\\n' > \"$out/part-00000\"; printf 'k3\\tv3\\n' > \"$out/part-00001\""
    play(hadoop_home, "hadoop", script)
    lines = opened.run()
    assert sorted(lines) == [(b"k1", b"v1"), (b"k2", b"v2"), (b"k3", b"v3")]
    (folder,) = (tmp_path / "scratch" / "runs").iterdir()
    assert [path.name for path in folder.iterdir()] == ["plan-1"]


@pytest.mark.parametrize(("final", "whole"), [("SUCCEEDED", True), ("SUCCEEDED", False), ("FAILED", True)])
def test_a_job_that_succeeded_is_done_whatever_became_of_its_client(
    final: str, whole: bool, opened: Opened, hadoop_home: Path, yarn: tuple[str, type[Yarn]]
) -> None:
    """Its output must be whole, too."""
    host, handler = yarn
    handler.answers = {f"/ws/v1/cluster/apps/{APPLICATION}": {"app": {"state": "FINISHED", "finalStatus": final}}}
    script = 'while [ "$1" != -output ]; do shift; done; out=${2#file://}; mkdir -p "$out"\n'
    script += "printf 'k1\\tv1\\n' > \"$out/part-00000\"\n"
    script += 'touch "$out/_SUCCESS"\n' if whole else ""
    script += f"echo 'Submitted application {APPLICATION}' >&2; echo 'url to track the job: http://{host}/x' >&2\n"
    play(hadoop_home, "hadoop", f"{script}echo 'ERROR streaming.StreamJob: Unknown Job' >&2; exit 5")
    opened.configure(uber="on")
    if final == "SUCCEEDED" and whole:
        assert opened.run() == [(b"k1", b"v1")]
        assert "though its client failed" in opened.notes_of("warning")[0]
    else:
        with pytest.raises(JobError, match="Unknown Job"):
            opened.run()


def test_a_dataset_on_this_machine_is_refused(tmp_path: Path) -> None:
    spec = small_spec(tmp_path)
    data = spec.config.data.model_copy(update={"path": "datasets/here"})
    runtime = spec.config.runtime.model_copy(update={"runner": "hadoop"})
    config = spec.config.model_copy(update={"data": data, "runtime": runtime})
    with pytest.raises(ConfigError, match="cannot read a dataset on this machine"):
        RoundLauncher(replace(spec, config=config), [], lambda _: None)


def test_where_things_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HADOOP_USER_NAME", "ada")
    settings = small_spec(tmp_path).config.runtime.hadoop
    assert base_address(settings, "file:///data/x") == "hdfs:///user/ada/.nnjobs"
    assert base_address(settings, "hdfs://nn:8020/data/x") == "hdfs://nn:8020/user/ada/.nnjobs"
    assert base_address(settings.model_copy(update={"scratch": "hdfs:///tmp/x"}), "") == "hdfs:///tmp/x"
    assert escaped("hdfs://h:1/a b/c,d#e") == "hdfs://h:1/a%20b/c%2Cd%23e"


# What people are told of containers.


def collective(spec: JobSpec) -> JobRequest:
    return collective_request(request(spec, "collective"), JobFiles("/run", "collective/x", "lock"))


def test_how_workers_are_put_into_containers_is_shown_when_it_changes(opened: Opened, hadoop_home: Path) -> None:
    for _ in range(2):
        arguments(opened, hadoop_home)
    assert opened.notes_of("info") == [
        "4 workers in the container of the job's master, one after the other (uber mode)"
    ]
    opened.notes.clear()
    arguments(opened, hadoop_home, request(opened.spec, epochs=10**9))
    assert opened.notes_of("info") == ["4 workers in containers of their own"]
    assert opened.notes_of("warning") == []


@pytest.mark.parametrize(
    ("shared", "text"),
    [
        (1, "4 workers in containers of their own"),
        (2, "4 workers in 2 containers of 2"),
        (3, "4 workers in 2 containers of up to 3"),
        (4, "4 workers in one container"),
    ],
)
def test_a_collective_job_shows_how_many_workers_share_a_container(
    shared: int, text: str, opened: Opened, hadoop_home: Path
) -> None:
    opened.configure(workers_per_task=shared)
    words = arguments(opened, hadoop_home, collective(opened.spec))
    assert opened.notes_of("info") == [text]
    conf = properties(words)
    assert conf["mapreduce.input.lineinputformat.linespermap"] == str(shared)
    assert conf["mapreduce.job.reduces"] == "0"
    assert conf["mapreduce.map.speculative"] == "false"
    assert "-m jobs.collective.collective_job" in after(words, "-mapper")[0]


def test_a_job_of_its_own_asks_what_the_nodes_are_like_and_needs_no_model(opened: Opened, hadoop_home: Path) -> None:
    opened.configure(preflight="job")
    words = arguments(opened, hadoop_home)
    assert words.count("jar") == 1  # its output is missed, so the job itself is not submitted
    (mapper,) = after(words, "-mapper")
    assert mapper.endswith("--report --check-node") and "--phase preflight" in mapper and "--model" not in mapper
    conf = properties(words)
    assert conf["mapreduce.job.name"] == "nnjobs tiny preflight"
    assert (conf["mapreduce.job.reduces"], conf["mapreduce.job.ubertask.enable"]) == ("0", "false")


def test_many_workers_do_not_fit_into_the_masters_container(opened: Opened) -> None:
    job = request(opened.spec)
    assert opened.session._fits_into_master(job)
    assert not opened.session._fits_into_master(replace(job, lines=10 * ["plan"]))
    assert not opened.session._fits_into_master(replace(job, is_small=False))
    assert not opened.session._fits_into_master(collective(opened.spec))
