"""The report: its numbers are the run's, its bytes do not change, and a browser shows it without asking anyone."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from product import ROOT

from jobs.__main__ import main
from jobs.runners.local import session as local_session
from jobs.runners.local.attempt import Task
from jobs.runners.local.task_pool import TaskPool
from nnlib.core.errors import JobError, UsageError
from nnlib.data.split.rule import TEST
from nnlib.data.worker_data import WorkerData
from nnlib.inference.trained_model import TrainedModel
from nnlib.run.directory import EVENTS, RunDirectory
from nnlib.run.journal import read_events

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from markupsafe import Markup

from nnlib.evaluation.statistics import compare, most_confused
from nnlib.report import page, write_report
from nnlib.report.collect import PHASES, Times, compare_series, differing_keys, read_series
from nnlib.report.content import Content, Material, Section
from nnlib.report.example_rows import PICTURES, misread_rows

NAMES = ("<script>alert(1)</script>", '"quoted" & $x$', "_below")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def imported(folder: Path, labels: list[str], x: Any, *options: str) -> str:
    """A dataset made from a CSV file."""
    lines = [",".join([*(f"x{k}" for k in range(x.shape[1])), "y"])]
    for label, row in zip(labels, x.tolist(), strict=True):
        quoted = label.replace('"', '""')
        lines.append(",".join([*map(str, row), f'"{quoted}"']))
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    out = str(folder / "data")
    assert main(["data", "import", str(folder / "rows.csv"), "-o", out, "--label", "y", "--shards", "4", *options]) == 0
    return out


def trained(folder: Path, name: str, data: str, **changes: Any) -> str:
    folder.mkdir(exist_ok=True)
    config: dict[str, Any] = {
        "name": name,
        "workers": 2,
        "run_dir": str(folder / name),
        "data": {"path": data},
        "model": {"hidden": [5]},
        "train": {"epochs": 6, "epochs_per_round": 2, "batch_size": 8},
        "split": {"seeds": [0, 1, 2]},
    }
    for section, values in changes.items():
        config[section] = {**config.get(section, {}), **values} if isinstance(values, dict) else values
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    assert main(["train", str(folder / f"{name}.yaml")]) == 0
    return str(folder / name)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Runs over pictures of 4 x 3, in classes whose names are no harmless text; one of them by one worker."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 240)
    x = (rng.random((240, 12)) + 0.3 * (np.arange(12) % 3 == y[:, None])).round(3)
    data = imported(folder, [NAMES[label] for label in y], x, "--shape", "4x3")
    return {
        "data": data,
        "two": trained(folder, "two", data),
        "one": trained(folder, "one", data, workers=1, split={"seeds": [1, 2, 3]}),
        "sweep": trained(folder, "sweep", data, sweep={"train.lr": [0.05, 0.01]}, train={"epochs": 4}),
    }


@pytest.fixture(scope="module")
def regression(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("values")
    rng = np.random.default_rng(1)
    x = rng.standard_normal((200, 4)).round(3)
    y = x @ np.array([1.0, -2.0, 0.5, 0.0]) + rng.standard_normal(200) * 0.1
    data = imported(folder, [f"{value:.4f}" for value in y], x)
    return trained(folder, "values", data, split={"seeds": [0, 1]}, train={"lr": 0.01})


class Page(HTMLParser):
    """What a page holds: its tags with their attributes, and its text by element."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self._cell: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self._cell = []

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._cell is not None:
            self.rows[-1].append("".join(self._cell).strip())
            self._cell = None

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell.append(data)

    def having(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def written(addresses: list[str], folder: Path) -> str:
    result = write_report(addresses, str(folder))
    assert result["output"] == str(folder / "report.html")
    return (folder / "report.html").read_text()


def test_its_numbers_are_the_runs(runs: dict[str, str], tmp_path: Path) -> None:
    text = written([runs["two"]], tmp_path)
    final = RunDirectory.open(runs["two"]).final()
    assert final is not None
    accuracies = [entry.test.value("accuracy") or 0.0 for entry in final.trials]
    rows = Page(text).rows
    summary = next(row for row in rows if row[:1] == ["accuracy"])
    assert summary[1:3] == ["3", f"{100 * float(np.mean(accuracies)):.2f} %"]
    assert summary[3] == f"{100 * float(np.std(accuracies, ddof=1)):.2f} %"
    for index, accuracy in enumerate(accuracies):
        line = next(row for row in rows if len(row) > 7 and row[0] == str(index))
        assert line[1] == str(index) and line[4] == f"{100 * accuracy:.2f} %"
    confusion = np.sum([entry.test.to_json()["confusion"] for entry in final.trials], axis=0)
    classes = read_series([runs["two"]])[0].run.spec.dataset.classes
    for index, name in enumerate(classes):
        line = next(row for row in rows if len(row) == 6 and row[0] == name)
        assert line[2] == f"{100 * confusion[index, index] / confusion[index].sum():.2f} %"
        assert line[4:] == [str(confusion[index].sum()), str(confusion[:, index].sum())]
    assert final.model_sha256 in text
    assert html.escape(f"nnjobs verify {runs['two']}") in text
    assert "hidden: [5]" in text


@pytest.mark.parametrize("which", [["two"], ["two", "one"], ["sweep"]])
def test_regenerated_is_stored(runs: dict[str, str], tmp_path: Path, which: list[str]) -> None:
    addresses = [runs[name] for name in which]
    written(addresses, tmp_path / "a")
    code = f"from nnlib.report import write_report; write_report({addresses!r}, {str(tmp_path / 'b')!r})"
    subprocess.run([sys.executable, "-c", code], check=True)
    first, second = (
        {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
        for folder in (tmp_path / "a", tmp_path / "b")
    )
    assert first == second and len(first) > 10


def test_the_page_asks_no_one_and_can_be_heard(runs: dict[str, str], regression: str, tmp_path: Path) -> None:
    for addresses in ([runs["two"]], [runs["two"], runs["one"]], [runs["sweep"]], [regression]):
        text = written(addresses, tmp_path)
        shown = Page(text)
        assert not shown.having("script") and "<script" not in text
        for _, attributes in shown.tags:
            for name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
                assert (attributes.get(name) or "#").startswith(("#", "data:"))
            assert "@import" not in (attributes.get("style") or "") and not any(
                key.startswith("on") for key in attributes
            )
        assert not re.search(r"url\((?!#)", text) and "http://" not in text and "https://" not in text
        ids = [attributes["id"] for _, attributes in shown.tags if "id" in attributes]
        assert len(ids) == len(set(ids)), "an id stands twice"
        for _, attributes in shown.tags:
            for name in ("aria-labelledby", "href"):
                for target in (attributes.get(name) or "").split():
                    if name == "aria-labelledby" or target.startswith("#"):
                        assert target.removeprefix("#") in ids
        levels = [int(tag[1]) for tag, _ in shown.tags if re.fullmatch(r"h[1-6]", tag)]
        assert levels[0] == 1 and levels.count(1) == 1
        assert len(shown.having("caption")) == len(shown.having("table"))
        assert all(image.get("alt") for image in shown.having("img"))
        drawings = shown.having("svg")
        assert drawings and all(svg.get("role") == "img" and svg.get("aria-labelledby") for svg in drawings)
        assert shown.having("html")[0]["lang"] == "en"


def headings(text: str) -> list[str]:
    """The titles of the sections, in order."""
    return re.findall(r'<h2 id="[^"]*">(.*?)</h2>', text)


def test_sections_of_several_runs_are_folded_and_listed(runs: dict[str, str], tmp_path: Path) -> None:
    one, several, swept = (
        written([runs[name] for name in names], tmp_path / "-".join(names))
        for names in (["two"], ["two", "one"], ["sweep"])
    )
    for text in (one, several, swept):
        contents = re.findall(r'<nav class="contents".*?</nav>', text, re.DOTALL)[0]
        links = re.findall(r'<a href="#([^"]*)">(.*?)</a>', contents)
        assert [title for _, title in links] == headings(text)
        assert [anchor for anchor, _ in links] == re.findall(r'<section id="([^"]*)"', text)
    assert headings(one)[0] == "Scores" and "Comparison" not in headings(one)
    assert headings(several)[:2] == headings(swept)[:2] == ["Comparison", "Scores"]
    opened, folded = ("<details open>", '<details class="run" open>'), '<details class="run">'
    assert all(each in one for each in opened) and folded not in one
    assert opened[1] not in several
    # Errors, provenance and configuration of each run; of the sweep, whose run is one, errors of each combination.
    assert several.count(folded) == 6 and swept.count(folded) == 2
    for text in (several, swept):
        assert text.index(folded) > text.index('<section id="errors"') > text.index('<section id="work"')


def test_a_new_section_is_a_function_and_a_line(
    runs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(material: Material) -> Content | None:
        if material.is_comparison:
            return None
        rows = Markup("<p>{} of {}</p>").format(material.runs[0].name, "<all> weather")
        return Content(rows, {"weather.txt": b"fair"})

    monkeypatch.setitem(page.SECTIONS, "weather", Section("Weather", make))
    text = written([runs["two"]], tmp_path / "a")
    assert headings(text)[-1] == "Weather" and '<a href="#weather">Weather</a>' in text
    assert "<p>two of &lt;all&gt; weather</p>" in text
    assert (tmp_path / "a/figures/weather.txt").read_bytes() == b"fair"
    assert "Weather" not in headings(written([runs["two"], runs["one"]], tmp_path / "b"))


def test_a_run_has_one_name(runs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The terminal of its training and the report name it alike; runs whose folders are named alike are told apart."""
    for folder in ("a", "b"):
        trained(tmp_path / folder, "same", runs["data"])
    assert capsys.readouterr().err.count("\nsame: 3 trials, 2 workers") == 2
    first, second = str(tmp_path / "a/same"), str(tmp_path / "b/same")
    assert [each.label for each in read_series([first])] == ["same"]
    assert "<h1>same</h1>" in written([first], tmp_path / "one")
    assert [each.label for each in read_series([first, second])] == ["a/same", "b/same"]
    with pytest.raises(UsageError, match="given twice"):
        read_series([first, f"{first}/"])


def test_names_stay_text(runs: dict[str, str], tmp_path: Path) -> None:
    text = written([runs["two"]], tmp_path)
    cells = [cell for row in Page(text).rows for cell in row]
    assert all(name in cells for name in NAMES)
    assert "alert(1)</script>" not in text


def test_pictures_are_of_misread_rows(runs: dict[str, str]) -> None:
    series = read_series([runs["two"]])[0]
    spec, trial = series.run.spec, series.trials[0]
    pairs = most_confused(series.pooled().confusion or [])
    found = misread_rows(series, pairs)
    assert found
    model = TrainedModel.load(runs["two"])
    held_out: dict[int, tuple[Any, int]] = {}
    with WorkerData(spec.dataset, (), range(4), memory_bytes=1 << 20) as data:
        for batch in data.trial(trial.rule, None, np.float32).score_batches(TEST):
            held_out |= {int(r): (x.copy(), int(t)) for r, x, t in zip(batch.row, batch.x, batch.y, strict=True)}
    wrong = {}
    low = min(float(x.min()) for x, _ in held_out.values())
    high = max(float(x.max()) for x, _ in held_out.values())
    for row, (x, target) in held_out.items():
        outputs = model.predict_proba(x[None])[0]
        if int(outputs.argmax()) != target:
            wrong[row] = (target, int(outputs.argmax()), float(outputs.max()))
    for each in found:
        assert each.picture.shape == (4, 3)
        assert wrong[each.row][:2] == (each.true, each.predicted)
        assert each.confidence == pytest.approx(wrong[each.row][2], rel=1e-5)
        grey = np.round((held_out[each.row][0].astype(np.float64) - low) / (high - low) * 255)
        assert np.abs(grey.reshape(4, 3) - each.picture).max() <= 1
    for pair in pairs:
        sure = sorted((w[2] for w in wrong.values() if w[:2] == (pair.true, pair.predicted)), reverse=True)[:PICTURES]
        shown = [each.confidence for each in found if (each.true, each.predicted) == (pair.true, pair.predicted)]
        assert shown == pytest.approx(sure, rel=1e-5)


def test_runs_are_paired_over_common_splits(runs: dict[str, str], tmp_path: Path) -> None:
    series = read_series([runs["two"], runs["one"]])
    (pair,) = compare_series(series)
    finals = [RunDirectory.open(runs[name]).final() for name in ("two", "one")]
    scores = [{entry.split: entry.test.value("accuracy") for entry in final.trials} for final in finals if final]
    expected = compare([scores[0][1], scores[0][2]], [scores[1][1], scores[1][2]], 72 / 168)
    assert pair.comparison == expected and pair.comparison.n == 2
    assert [key for key, _ in differing_keys(series)] == ["split.seeds", "workers"]
    text = written([runs["two"], runs["one"]], tmp_path)
    assert pair.words in text and "<code>workers</code>" in text


def test_runs_on_other_rows_are_not_paired(runs: dict[str, str], tmp_path: Path) -> None:
    other = trained(tmp_path, "other", runs["data"], split={"seeds": [0, 1, 2], "train": 0.6})
    (pair,) = compare_series(read_series([runs["two"], other]))
    assert (pair.comparison.n, pair.words) == (0, "no common split was scored")


def test_a_sweep_is_compared_with_itself(runs: dict[str, str]) -> None:
    series = read_series([runs["sweep"]])
    assert [each.label for each in series] == ["lr 0.05", "lr 0.01"]
    assert [each.trials[0].overrides for each in series] == [{"train.lr": 0.05}, {"train.lr": 0.01}]
    assert differing_keys(series) == [("train.lr", [0.05, 0.01])]
    assert compare_series(series)[0].comparison.n == 3


def test_curves_are_those_of_the_metrics(runs: dict[str, str]) -> None:
    series = read_series([runs["two"]])[0]
    assert series.epochs == [0, 2, 4, 6]
    lines = (Path(runs["two"]) / "metrics.jsonl").read_text().splitlines()
    for line in map(json.loads, lines):
        curve = series.curves["accuracy"][line["trial"]]
        assert curve[series.epochs.index(line["epoch"])] == line["test"]["accuracy"]


def test_times_add_up(runs: dict[str, str]) -> None:
    times = Times.of(read_events(RunDirectory.open(runs["two"])))
    assert times is not None and times.rounds == [1, 2, 3] and times.runners == ["inline"]
    assert set(times.phases) == set(PHASES)
    assert sum(times.phases.values()) == pytest.approx(times.seconds, rel=1e-3)
    parameters = 12 * 5 + 5 + 5 * 3 + 3
    assert times.bytes == [2 * 3 * 4 * parameters] * 3  # workers x trials x float32
    assert (times.uploaded, times.start_bytes) == ([0, 0, 0], 0)  # nothing left this machine


class LosingPool(TaskPool):
    """Gives up worker 1's task of round 2, and worker 0's of the last scores."""

    def run(self, task: Task) -> None:
        if (task.kind, task.job, task.number) in (("worker", "train 1", 1), ("worker", "score 3", 0)):
            raise JobError("gave up", worker=task.number)
        super().run(task)


def test_losses_are_told(runs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_session, "TaskPool", LosingPool)
    quorum = {"sync": {"min_workers": 1}, "runtime": {"runner": "local"}}
    run = Path(trained(tmp_path, "lossy", runs["data"], **quorum))
    rows = [trial.test_rows for trial in RunDirectory.open(str(run)).spec().trials]
    told = [
        {"event": "lost", "worker": 3, "generation": 1, "why": "its task ended"},
        {"event": "attempt", "job": "train 1", "task": "worker 2", "attempt": 1, "failure": "ended with <code> 9"},
        {"event": "job", "job": "train 2", "failed": ["attempt_1_0001_m_000002_0"]},
    ]
    told += [{"event": "attempt", "job": "train 2", "task": "worker 0", "attempt": 1, "failure": "again"}] * 50
    events = (run / EVENTS).read_text().splitlines()
    events[2:2] = map(json.dumps, told)  # behind the start and round 1
    (run / EVENTS).write_text("\n".join(events) + "\n")
    page = written([str(run)], tmp_path / "out")
    cells = Page(page).rows
    unscored = [sum(own[worker] for own in rows) for worker in range(2)]
    assert ["2", "1", "the models of round 1", f"{unscored[1]} of {sum(unscored)}"] in cells
    assert ["last scores", "0", "the models of round 3", f"{unscored[0]} of {sum(unscored)}"] in cells
    assert ["after round 1", "worker 3", "its task ended; replaced"] in cells
    assert ["round 2", "worker 2", "attempt 1 ended with <code> 9"] in cells
    assert ["round 3", "attempt_1_0001_m_000002_0", "failed"] in cells
    assert "3 more are in events.jsonl" in page
    assert "lossy trained round 2 without all workers" in page
    assert f"the scores of 3 trials of lossy lack {unscored[0]} of {sum(unscored)} test rows" in page
    assert "Losses" not in written([runs["two"]], tmp_path / "whole")


def test_uploads_are_drawn(runs: dict[str, str], tmp_path: Path) -> None:
    run = tmp_path / "remote"
    shutil.copytree(runs["two"], run)
    events = [json.loads(line) for line in (run / EVENTS).read_text().splitlines()]
    for event in events:
        if event["event"] in ("start", "round"):
            event["uploaded_bytes"] = 5000 if event["event"] == "start" else 1000 * event["round"]
    (run / EVENTS).write_text("".join(f"{json.dumps(event)}\n" for event in events))
    page = written([str(run)], tmp_path / "out")
    assert "Bytes uploaded a round" in page and "1 kB in the first round, 6 kB in all" in page
    assert next(row for row in Page(page).rows if row[:1] == ["remote"] and len(row) > 8)[-1] == "11 kB"
    assert "Bytes uploaded a round" not in written([runs["two"]], tmp_path / "local")


def test_accuracy_is_shown_against_bytes(runs: dict[str, str], tmp_path: Path) -> None:
    """Two workers, three rounds: 83 parameters in 4 bytes each, or in one and 4 for the block's scale."""
    rounded = trained(tmp_path, "rounded", runs["data"], sync={"precision": "int8"})
    page = written([runs["two"], rounded, runs["sweep"]], tmp_path / "out")
    table = Page(page).rows
    table = table[table.index(["series", "mean", "lowest", "highest", "sent", "of the most"]) :]
    for row, (run, sent) in zip(table[1:], [(rounded, 2 * 3 * 87), (runs["two"], 2 * 3 * 332)], strict=False):
        (series,) = read_series([run])
        assert series.sent == sent
        final = RunDirectory.open(run).final()
        assert final is not None
        scores = [entry.test.value("accuracy") or 0.0 for entry in final.trials]
        shown = [f"{100 * value:.2f} %" for value in (np.mean(scores), min(scores), max(scores), sent / 1992)]
        assert row == [series.label, *shown[:3], "522 bytes" if sent == 522 else "1.99 kB", shown[3]]
    assert table[2][0] == "two" and "sweep" not in table[3][0]  # a sweep's bytes are those of all its combinations
    assert "Test accuracy against bytes sent" in page and "with 522 bytes" in page
    assert (tmp_path / "out" / "figures" / "score-by-bytes.svg").exists()
    assert "against bytes sent" not in written([runs["two"], runs["sweep"]], tmp_path / "one")


def test_a_run_without_times_or_data_still_has_a_report(runs: dict[str, str], tmp_path: Path) -> None:
    run = tmp_path / "moved"
    shutil.copytree(runs["two"], run)
    (run / EVENTS).unlink()
    spec = json.loads((run / "spec.json").read_text())
    spec["dataset"]["address"] = str(tmp_path / "gone")
    (run / "spec.json").write_text(json.dumps(spec))
    # In a process of its own: this one may hold the rows still.
    subprocess.run([sys.executable, "-m", "jobs", "report", str(run)], check=True, cwd=ROOT)
    text = (run / "report.html").read_text()
    assert "could not be read" in text and "Seconds of all rounds" not in text
    assert "Confusion matrix" in text  # counts need no rows


def test_an_unfinished_run_says_so(runs: dict[str, str], tmp_path: Path) -> None:
    run = tmp_path / "unfinished"
    shutil.copytree(runs["two"], run)
    shutil.rmtree(run / "final")
    shutil.rmtree(run / "rounds" / "000003")
    text = written([str(run)], tmp_path / "out")
    assert "is not finished: 2 of 3 rounds" in text
    assert read_series([str(run)])[0].results[0].round == 1  # round 2's model would be scored by the next job


def test_a_stopped_trial_keeps_its_last_score(runs: dict[str, str], tmp_path: Path) -> None:
    stop = {"epochs": 40, "stop": {"patience": 1, "min_delta": 0.02}}
    run = trained(tmp_path, "stopped", runs["data"], train=stop, split={"validation": 0.2})
    series = read_series([run])[0]
    assert not np.isnan(series.curves["accuracy"]).any()
    assert any(entry.status == "stopped" for entry in series.results)
    assert "stopped: no better validation loss" in written([run], tmp_path / "out")


def test_regression(regression: str, tmp_path: Path) -> None:
    text = written([regression], tmp_path)
    rows = Page(text).rows
    assert [row[0] for row in rows if row and row[0] in ("R²", "mean squared error", "mean absolute error")]
    assert "Predicted against true values" in text and "Confusion" not in text
    assert (tmp_path / "figures" / "scatter.png").read_bytes().startswith(b"\x89PNG")


def test_command(runs: dict[str, str], regression: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", runs["two"], "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out.splitlines()[-1])
    assert result["output"] == f"{runs['two']}/report.html" and "report.html" in captured.err
    for figure in result["figures"]:
        data = Path(figure).read_bytes()
        assert data.startswith(b"\x89PNG" if figure.endswith(".png") else b"<?xml")
    assert main(["report", runs["two"], "-o", str(tmp_path / "my.html")]) == 0
    assert (tmp_path / "my.html").is_file() and (tmp_path / "figures").is_dir()
    for wrong in (
        ["report"],
        ["report", str(tmp_path)],
        ["report", runs["two"], runs["two"]],
        ["report", runs["two"], regression],
    ):
        assert main(wrong) == 2
    assert "make one report for each" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_what_is_not_installed_is_named(package: str, runs: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("nnlib.report.")]:
        parent, _, name = module.rpartition(".")
        monkeypatch.delattr(sys.modules[parent], name)
    for module in [name for name in sys.modules if name.startswith("nnlib.report.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=f"package {package}") as caught:
        write_report([runs["two"]])
    assert caught.value.hint == 'pip install "nnjobs[report]"'


def test_it_tells_what_was_chosen_on_the_way(runs: dict[str, str], tmp_path: Path) -> None:
    """The rounds' lengths of a run that chose them, and the combination of a sweep (none, without validation rows)."""
    train, sync = {"epochs_per_round": "auto", "epochs": 12}, {"round_cost": 2.5}
    auto = trained(tmp_path, "auto", runs["data"], train=train, sync=sync, split={"seeds": [0]})
    (series,) = read_series([auto])
    ledger = [
        json.loads((round_ / "ledger.json").read_bytes()) for round_ in sorted(Path(auto, "rounds").iterdir())[1:]
    ]
    assert series.run.lengths == [end - start for start, end in (line["epochs"] for line in ledger)]
    assert sum(series.run.lengths) == 12 and series.run.rounds_planned is None
    text = written([auto], tmp_path / "report")
    assert "Epochs in each round" in text and "auto 2.5 epochs" in text
    assert (tmp_path / "report/figures/lengths.svg").exists()

    validated = trained(
        tmp_path, "swept", runs["data"], split={"seeds": [0], "train": 0.6, "validation": 0.2},
        sweep={"train.lr": [1e-7, 0.05]}, train={"epochs": 4},
    )  # fmt: skip
    assert "chosen by the validation rows: train.lr 0.05" in written([validated], tmp_path / "report")
    assert "no combination of the sweep is chosen" in written([runs["sweep"]], tmp_path / "report")


MEASURE = """<script>
const problems = [];
addEventListener("error", event => problems.push(String(event.message || event.target.outerHTML)), true);
addEventListener("securitypolicyviolation", event => problems.push(event.blockedURI));
addEventListener("load", () => { const closed = [...document.querySelectorAll("details.run:not([open]) svg")]
  .filter(each => each.checkVisibility()).length;
 document.querySelectorAll("details").forEach(each => each.open = true); parent.postMessage(JSON.stringify({
  closed, contents: getComputedStyle(document.querySelector("nav.contents")).position,
  sizes: [...document.querySelectorAll("svg, img")].map(each => [each.getBoundingClientRect().width,
    each.tagName == "IMG" ? each.naturalWidth : each.getBBox().width]),
  requests: performance.getEntriesByType("resource").map(each => each.name),
  overflow: document.documentElement.scrollWidth - innerWidth,
  dark: getComputedStyle(document.body).backgroundColor, problems}), "*"); });
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: the report is not looked at in a browser")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it(runs: dict[str, str], tmp_path: Path, width: int) -> None:
    """At phone and desktop width: every figure has a size, nothing overflows, no error, no request."""
    text = written([runs["two"], runs["one"]], tmp_path)
    allowed = text.replace("default-src 'none';", "default-src 'none'; script-src 'unsafe-inline';").replace(
        "<head>", f"<head>{MEASURE}", 1
    )
    (tmp_path / "measured.html").write_text(allowed)
    (tmp_path / "frame.html").write_text(
        f'<iframe src="measured.html" style="width:{width}px;height:900px;border:0"></iframe><pre id="result"></pre>'
        '<script>addEventListener("message", e => document.getElementById("result").textContent = e.data)</script>'
    )
    # Nobody can be asked: every name resolves to nothing, and each request would be in the log.
    command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--virtual-time-budget=5000"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", (tmp_path / "frame.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found and found[1], done.stderr[-2000:]
    measured = json.loads(html.unescape(found[1]))
    assert len(measured["sizes"]) > 8
    assert measured["closed"] == 0, "figures of single runs are folded"
    assert measured["contents"] == "sticky"
    assert all(shown > 20 and drawn > 0 for shown, drawn in measured["sizes"])
    assert all(request.startswith("data:") for request in measured["requests"])
    assert measured["problems"] == [] and measured["overflow"] <= 0
    assert "CONSOLE" not in done.stderr
