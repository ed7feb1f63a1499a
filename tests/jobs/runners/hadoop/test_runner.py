"""What the hadoop runner asks of a cluster and makes of its answers. No Hadoop needed: its programs are played here."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from played_hadoop import APPLICATION, Yarn, after, play, said

from jobs.mapreduce import round_job
from jobs.mapreduce.demand import task_resources, worth_uber
from jobs.mapreduce.request import RoundRequest
from jobs.runners.hadoop import staging, task_environment
from jobs.runners.hadoop.job_properties import job_properties
from jobs.runners.hadoop.pack import hash_of
from jobs.runners.hadoop.runner import HadoopRunner
from jobs.runners.hadoop.session import HadoopSite, job_name
from jobs.runners.hadoop.staging import base_address
from jobs.runners.hadoop.task_environment import Environment, escaped
from jobs.runners.lines import decode_record, encode_record
from jobs.runners.node_check import NODE_KEY, check_nodes, node_line, node_reports
from jobs.runners.registry import run_job
from jobs.runners.streaming_reporter import Reporter, status
from nnlib.config.schema import Config
from nnlib.core.errors import ConfigError, JobError
from nnlib.core.liveness import PULSE, beat, say
from nnlib.data.dataset import Dataset
from nnlib.data.synthetic import SynthOptions, synthesize
from nnlib.run.planner import make_spec
from nnlib.run.spec import JobSpec, WorkerPlan
from nnlib.storage import storage


@pytest.fixture
def made(tmp_path: Path) -> tuple[JobSpec, list[WorkerPlan]]:
    data = tmp_path / "data"
    synthesize(str(data), SynthOptions(kind="blobs", rows=400, features=12, classes=3, shards=4))
    config = Config.model_validate(
        {"name": "tiny", "workers": 4, "data": {"path": f"file://{data}"}, "model": {"hidden": [8]}}
    )
    return make_spec(config, Dataset.open(f"file://{data}"))


@pytest.fixture
def spec(made: tuple[JobSpec, list[WorkerPlan]]) -> JobSpec:
    return made[0]


def configured(spec: JobSpec, **hadoop: Any) -> JobSpec:
    runtime = spec.config.runtime
    runtime = runtime.model_copy(update={"hadoop": runtime.hadoop.model_copy(update=hadoop)})
    return replace(spec, config=spec.config.model_copy(update={"runtime": runtime}))


def request(site: HadoopSite | None = None, **other: Any) -> RoundRequest:
    facts: dict[str, Any] = {
        "phase": "train",
        "round": 2,
        "active": [0],
        "spec": "spec.json",
        "plan": [],
        "model": "hdfs://host:1/a run, mine/rounds/000002/model.safetensors",
        "state": None,
        "folder": Path(),
        "reducers": 3,
        "blas_threads": 1,
        "epochs": range(10, 15),
        "rounds": 20,
        "site": site,
    }
    return RoundRequest(**facts | other)


# Resources.


def properties(spec: JobSpec, *, uber: bool = False) -> dict[str, str]:
    runtime = spec.config.runtime
    return job_properties(runtime, 4, task_resources(spec), name="n", reducers=2, uber=uber, lines_per_map=1)


def test_a_small_model_takes_the_least_container(spec: JobSpec) -> None:
    resources = task_resources(spec)
    assert (resources.memory_mb, resources.vcores) == (512, 1)
    assert 64 <= resources.heap_mb <= 128


def test_memory_grows_with_model_batch_and_rows(spec: JobSpec) -> None:
    def with_keys(**sections: dict[str, Any]) -> int:
        plain = spec.config.model_dump(mode="json")
        config = Config.model_validate({**plain, **{name: plain[name] | keys for name, keys in sections.items()}})
        grown = replace(spec, config=config, dataset=replace(spec.dataset, shards=spec.dataset.shards * 20_000))
        return task_resources(grown).memory_mb

    small = with_keys(runtime={"memory_mb": 300})
    assert with_keys(runtime={"memory_mb": 800}) == small + 1000
    assert with_keys(runtime={"memory_mb": 300}, model={"hidden": [4000, 4000]}) > small + 8 * 60
    assert with_keys(runtime={"memory_mb": 300}, train={"batch_size": 1_000_000}) > small + 400


def test_what_the_configuration_says_wins(spec: JobSpec) -> None:
    wanted = configured(spec, memory_mb=3000, vcores=2, heap_mb=500, queue="research", speculative=False)
    found = properties(wanted)
    assert found["mapreduce.map.memory.mb"] == found["mapreduce.reduce.memory.mb"] == "3000"
    assert found["mapreduce.map.cpu.vcores"] == "2"
    assert found["mapreduce.map.java.opts"].startswith("-Xmx500m -XX:TieredStopAtLevel=1")
    assert found["mapreduce.job.queuename"] == "research"
    assert found["mapreduce.map.speculative"] == "false"
    assert properties(configured(spec, jobconf={"mapreduce.map.memory.mb": "7"}))["mapreduce.map.memory.mb"] == "7"
    assert "mapreduce.job.queuename" not in properties(spec)


def test_retries_and_timeout_are_hadoops(spec: JobSpec) -> None:
    assert properties(spec)["mapreduce.task.timeout"] == "600000"
    runtime = spec.config.runtime.model_copy(update={"task_timeout_seconds": 12.5, "retries": 0})
    found = properties(replace(spec, config=spec.config.model_copy(update={"runtime": runtime})))
    assert found["mapreduce.task.timeout"] == "12500"
    assert found["mapreduce.map.maxattempts"] == found["mapreduce.reduce.maxattempts"] == "1"


def test_the_master_that_takes_tasks_in_has_room_for_them(spec: JobSpec) -> None:
    alone, uber = properties(spec), properties(spec, uber=True)
    key = "yarn.app.mapreduce.am.resource.mb"
    assert int(uber[key]) >= int(uber["mapreduce.map.memory.mb"])  # else Hadoop takes no task in
    assert int(uber[key]) > int(alone[key])
    assert (uber["mapreduce.job.ubertask.enable"], alone["mapreduce.job.ubertask.enable"]) == ("true", "false")


def test_uber_where_the_work_is_less_than_a_container_costs(spec: JobSpec) -> None:
    assert worth_uber(spec, trials=1, epochs=5)
    assert not worth_uber(spec, trials=1, epochs=100_000_000)
    rows, size = sum(shard.rows for shard in spec.dataset.shards), spec.model(spec.trials[0]).layout.size
    digits = 10 * 5000 * 41_110  # ten splits of a net of 100 hidden units: a second's work
    assert worth_uber(spec, trials=digits // (rows * size), epochs=1)
    assert not worth_uber(spec, trials=4 * digits // (rows * size), epochs=1)
    many = replace(spec, config=spec.config.model_copy(update={"workers": 10}))
    assert not worth_uber(many, trials=1, epochs=1)


# The command line.


@pytest.fixture
def site(
    made: tuple[JobSpec, list[WorkerPlan]], tmp_path: Path, hadoop_home: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HadoopSite]:
    """A site on local storage, its environment given."""
    packed = Environment(("nnjobs-env/bin/python",), ("hdfs://h/e.tar.gz#nnjobs-env",), {"A": "1"})
    monkeypatch.setattr(staging, "environment", lambda *_: packed)
    spec = configured(made[0], scratch=f"file://{tmp_path}/scratch", mrjob_conf=str(tmp_path / "mrjob.conf"))
    place = HadoopSite(spec, made[1], lambda _: None, lambda **_: None)
    yield place
    place.close()
    assert not list((tmp_path / "scratch" / "runs").iterdir())


def arguments(site: HadoopSite, home: Path, **other: Any) -> list[str]:
    """What ``hadoop`` was called with for a job (whose output is then missed)."""
    with pytest.raises(JobError, match="_SUCCESS"):
        list(run_job("hadoop", request(site, **other)))
    return said(home, "hadoop")


def test_the_plan_goes_up_once_with_one_line_a_worker(site: HadoopSite, tmp_path: Path) -> None:
    (folder,) = (tmp_path / "scratch" / "runs").iterdir()
    assert folder.name.startswith("nnjobs-")
    lines = (folder / "plan").read_text(encoding="utf-8").splitlines()
    assert [WorkerPlan.from_line(line).worker for line in lines] == [0, 1, 2, 3]
    assert JobSpec.from_json(json.loads((folder / "spec.json").read_bytes())).workers == 4


def test_one_program_is_started_for_a_job(site: HadoopSite, hadoop_home: Path) -> None:
    """Nothing asks for Hadoop's version or looks at its files through it."""
    words = arguments(site, hadoop_home)
    assert words.count("jar") == 1
    assert words[0] == "jar"
    assert words[1].endswith("hadoop-streaming-9.9.9.jar")
    assert said(hadoop_home, "yarn") == []


def test_a_job_in_containers(site: HadoopSite, hadoop_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "uber", lambda _: False)
    words = arguments(site, hadoop_home)
    conf = dict(value.split("=", 1) for value in after(words, "-D"))
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


def test_a_job_in_the_masters_container_is_one_map_and_one_reduce(site: HadoopSite, hadoop_home: Path) -> None:
    conf = dict(value.split("=", 1) for value in after(arguments(site, hadoop_home), "-D"))
    assert conf["mapreduce.job.ubertask.enable"] == "true"
    assert conf["mapreduce.job.reduces"] == "1"
    assert conf["mapreduce.input.lineinputformat.linespermap"] == "4"


def test_the_model_of_a_run_on_this_machine_goes_up(site: HadoopSite, hadoop_home: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"weights")
    with HadoopRunner.for_request(request(site, model=str(model)), common()) as job:
        (uri,) = [each for each in job._file_arg_hash_paths() if each.endswith("#model.safetensors")]
        copy = Path(uri.partition("#")[0].removeprefix("file://"))
        assert copy.read_bytes() == b"weights"
    with HadoopRunner.for_request(request(site, model=str(model)), common()):
        assert not copy.exists()  # that of the job before


def common() -> dict[str, Any]:
    return {
        "mr_job_script": round_job.__file__,
        "conf_paths": [],
        "extra_args": [],
        "input_paths": [],
        "steps": [{"type": "streaming", "mapper": {"type": "script"}, "reducer": {"type": "script"}}],
        "sort_values": True,
        "check_input_paths": False,
        "read_logs": False,
    }


def test_mrjobs_file_wins_over_what_is_derived_and_the_experiment_over_both(
    site: HadoopSite, hadoop_home: Path, tmp_path: Path
) -> None:
    conf = "runners: {hadoop: {jobconf: {mapreduce.map.memory.mb: 901, mapreduce.job.queuename: theirs}}}"
    (tmp_path / "mrjob.conf").write_text(conf, encoding="utf-8")
    site.settings = site.settings.model_copy(update={"jobconf": {"mapreduce.job.queuename": "mine"}})
    found = dict(value.split("=", 1) for value in after(arguments(site, hadoop_home), "-D"))
    assert found["mapreduce.map.memory.mb"] == "901"
    assert found["mapreduce.job.queuename"] == "mine"


def test_a_job_that_fails_in_the_masters_container_runs_again_in_containers(
    site: HadoopSite, hadoop_home: Path
) -> None:
    notes: list[str] = []
    site.note = notes.append
    play(hadoop_home, "hadoop", 'case "$*" in *ubertask.enable=true*) echo lost >&2; exit 1;; esac')
    arguments(site, hadoop_home)
    assert said(hadoop_home, "hadoop").count("jar") == 2
    assert "trying again in containers" in notes[0]


def test_what_would_fail_again_is_not_tried_again(site: HadoopSite, hadoop_home: Path) -> None:
    play(hadoop_home, "hadoop", "echo \"ModuleNotFoundError: No module named 'numpy'\" >&2; exit 1")
    with pytest.raises(JobError, match="lacks the module numpy") as failed:
        list(run_job("hadoop", request(site)))
    assert said(hadoop_home, "hadoop").count("jar") == 1
    assert failed.value.exit_code == 4


@pytest.mark.parametrize(("state", "killed"), [("RUNNING", True), ("FAILED", False), (None, False)])
def test_an_application_whose_client_died_does_not_go_on(
    state: str | None, killed: bool, site: HadoopSite, hadoop_home: Path, yarn: tuple[str, type[Yarn]]
) -> None:
    host, handler = yarn
    place = f"/ws/v1/cluster/apps/{APPLICATION}"
    handler.answers = {f"{place}/state": {"state": "KILLED"}} | ({place: {"app": {"state": state}}} if state else {})
    script = f"echo 'Submitted application {APPLICATION}' >&2; echo 'url to track the job: http://{host}/x' >&2\n"
    play(hadoop_home, "hadoop", f"{script}exit 137")
    play(hadoop_home, "yarn", "true")
    site.settings = site.settings.model_copy(update={"uber": "on"})
    with pytest.raises(JobError):
        list(run_job("hadoop", request(site)))
    puts = [path.partition("?")[0] for method, path, _ in handler.heard if method == "PUT"]
    assert puts == ([f"{place}/state"] if killed else [])


def test_without_hadoop_the_error_says_what_to_set(site: HadoopSite, tmp_path: Path) -> None:
    (tmp_path / "mrjob.conf").write_text("runners: {hadoop: {hadoop_bin: /no/such/hadoop}}", encoding="utf-8")
    with pytest.raises(JobError, match="cannot start /no/such/hadoop") as failed:
        list(run_job("hadoop", request(site)))
    assert "HADOOP_HOME" in str(failed.value.hint)


def test_output_is_read_when_it_is_whole_and_then_deleted(
    site: HadoopSite, hadoop_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = 'while [ "$1" != -output ]; do shift; done; out=${2#file://}; mkdir -p "$out"; touch "$out/_SUCCESS"\n'
    script += "printf 'k1\\tv1\\nk2\\tv2\\n' > \"$out/part-00000\"; printf 'k3\\tv3\\n' > \"$out/part-00001\""
    play(hadoop_home, "hadoop", script)
    lines = run_job("hadoop", request(site))
    assert sorted(lines) == [(b"k1", b"v1"), (b"k2", b"v2"), (b"k3", b"v3")]
    (folder,) = (tmp_path / "scratch" / "runs").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["plan", "spec.json"]


@pytest.mark.parametrize(("final", "whole"), [("SUCCEEDED", True), ("SUCCEEDED", False), ("FAILED", True)])
def test_a_job_that_succeeded_is_done_whatever_became_of_its_client(
    final: str, whole: bool, site: HadoopSite, hadoop_home: Path, yarn: tuple[str, type[Yarn]]
) -> None:
    """Its output must be whole, too."""
    host, handler = yarn
    handler.answers = {f"/ws/v1/cluster/apps/{APPLICATION}": {"app": {"state": "FINISHED", "finalStatus": final}}}
    script = 'while [ "$1" != -output ]; do shift; done; out=${2#file://}; mkdir -p "$out"\n'
    script += "printf 'k1\\tv1\\n' > \"$out/part-00000\"\n"
    script += 'touch "$out/_SUCCESS"\n' if whole else ""
    script += f"echo 'Submitted application {APPLICATION}' >&2; echo 'url to track the job: http://{host}/x' >&2\n"
    play(hadoop_home, "hadoop", f"{script}echo 'ERROR streaming.StreamJob: Unknown Job' >&2; exit 5")
    site.settings = site.settings.model_copy(update={"uber": "on"})
    notes: list[str] = []
    site.note = notes.append
    if final == "SUCCEEDED" and whole:
        assert list(run_job("hadoop", request(site))) == [(b"k1", b"v1")]
        assert "its client was not told" in notes[0]
    else:
        with pytest.raises(JobError, match="Unknown Job"):
            list(run_job("hadoop", request(site)))


def test_a_dataset_on_this_machine_is_refused(made: tuple[JobSpec, list[WorkerPlan]]) -> None:
    data = made[0].config.data.model_copy(update={"path": "datasets/here"})
    spec = replace(made[0], config=made[0].config.model_copy(update={"data": data}))
    with pytest.raises(ConfigError, match="cannot read a dataset on this machine"):
        HadoopSite(spec, made[1], lambda _: None, lambda **_: None)


def test_where_things_lie_and_what_they_are_called(spec: JobSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HADOOP_USER_NAME", "ada")
    settings = spec.config.runtime.hadoop
    assert base_address(settings, "file:///data/x") == "hdfs:///user/ada/.nnjobs"
    assert base_address(settings, "hdfs://nn:8020/data/x") == "hdfs://nn:8020/user/ada/.nnjobs"
    assert base_address(settings.model_copy(update={"scratch": "hdfs:///tmp/x"}), "") == "hdfs:///tmp/x"
    assert job_name(spec, request(phase="score")) == "nnjobs tiny score"
    assert job_name(spec, request(rounds=None)) == "nnjobs tiny round 3/?"
    assert escaped("hdfs://h:1/a b/c,d#e") == "hdfs://h:1/a%20b/c%2Cd%23e"


# The nodes' Python.


def test_the_nodes_own_python_needs_no_archive(spec: JobSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNJOBS_HDFS_HTTP", "http://nn:9870")
    runtime = configured(spec, python_bin="/opt/py/bin/python -s").config.runtime
    found = task_environment.environment(runtime, storage("hdfs://nn:8020/x"), lambda _: None)
    assert found.python == ("/opt/py/bin/python", "-s")
    assert found.archives == ()
    assert found.variables["NNJOBS_HDFS_HTTP"] == "http://nn:9870"
    assert found.variables["OPENBLAS_NUM_THREADS"] == "1"
    both = configured(spec, python_bin="python3", archive="x.tar.gz").config.runtime
    with pytest.raises(ConfigError, match="exclude each other"):
        task_environment.environment(both, storage("hdfs://nn:8020/x"), lambda _: None)


def test_an_archive_goes_up_under_its_hash_and_only_once(spec: JobSpec, tmp_path: Path) -> None:

    archive = tmp_path / "env.tar.gz"
    archive.write_bytes(b"packed")
    base = storage(f"file://{tmp_path}/base")
    notes: list[str] = []
    runtime = configured(spec, archive=str(archive)).config.runtime
    first, second = (task_environment._given(str(runtime.hadoop.archive), base, notes.append) for _ in range(2))
    assert first == second
    assert [name.removesuffix(".tar.gz") for name in base.names("environments")] == [hash_of(archive)]
    assert len(notes) == 1
    with pytest.raises(ConfigError, match="no such archive"):
        task_environment._given(str(tmp_path / "other"), base, notes.append)


# Tasks.


class _Job:
    """What the reporter uses of mrjob's job."""

    def __init__(self) -> None:
        self.stderr = io.BytesIO()
        self.statuses: list[str] = []
        self.counters: list[tuple[str, str, int]] = []
        self.told = threading.Event()

    def set_status(self, text: str) -> None:
        self.statuses.append(text)
        self.told.set()

    def increment_counter(self, group: str, name: str, amount: int) -> None:
        self.counters.append((group, name, amount))


def test_signs_of_life_come_only_while_the_task_gets_on() -> None:
    job: Any = _Job()
    with Reporter(job, every_seconds=0.01) as reporter:
        say(phase="train", round=3, epoch=7, loss=0.12345)
        assert job.told.wait(30)
        job.told.clear()
        first = len(job.statuses)
        assert not reporter._done.wait(0.2)
        assert len(job.statuses) == first  # it hangs: nothing more is said
        beat()
        assert job.told.wait(30)
    assert "round 3 epoch 7 loss 0.1235" in job.statuses[0] or "loss 0.1234" in job.statuses[0]
    assert PULSE.beats


def test_a_status_in_words() -> None:
    assert status({"phase": "train", "round": 3, "epoch": 7, "loss": 0.123}) == "train: round 3 epoch 7 loss 0.123"
    assert status({}) == "reading"


def test_tasks_count_their_work(made: tuple[JobSpec, list[WorkerPlan]]) -> None:
    spec, plans = made
    job: Any = _Job()
    record = {"examples": 70, "losses": [1.0, 0.5], "evaluations": 0, "seconds": {"read": 0.5, "train": 0.25}}
    lines = [(b"00000000.00000000.metrics", encode_record(0, record))]
    assert list(Reporter(job).mapped(spec, plans[0], lines)) == lines
    counters = {name: amount for _, name, amount in job.counters}
    assert counters["examples"] == 140
    assert counters["batches"] == 2 * 3
    assert counters["milliseconds read"] == 500
    assert counters["bytes"] == sum(map(len, lines[0])) + 2
    assert {group for group, _, _ in job.counters} == {"nnjobs"}
    assert job.stderr.getvalue().startswith(b"nnjobs: worker 0 on ")


def test_reducers_pass_on_what_tasks_say_of_their_nodes() -> None:
    job: Any = _Job()
    lines = list(Reporter(job).reduced(NODE_KEY, [b"a", b"b"], lambda: iter(())))
    assert lines == [(NODE_KEY, b"a"), (NODE_KEY, b"b")]


def test_nodes_are_told_apart_and_must_agree() -> None:
    key, value = node_line(3)
    assert key == NODE_KEY
    (node,) = node_reports([value, value])
    worker, facts = decode_record(value)
    assert (worker, facts) == (3, node)
    check_nodes([node, {**node, "host": "other"}], strict=True)
    other = {**node, "host": "other", "numpy": "0.1"}
    check_nodes([node, other], strict=False)
    with pytest.raises(JobError, match=r"differ in numpy: 0\.1 on other"):
        check_nodes([node, other], strict=True)


def test_preflight_of_a_task_needs_no_spec(tmp_path: Path) -> None:
    plan = WorkerPlan(1, (0,)).to_line()
    command = [sys.executable, "-m", "jobs.mapreduce.round_job", "--mapper", "--phase", "preflight", "--check-node"]
    done = subprocess.run([*command, "--report", "--spec", "none"], input=plan, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("!node\t")
