"""The model card: what a model is, what it was made from and how good it is, as JSON and as Markdown.

It names no host, user or address, so it can be published with the model.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nnlib import FORMAT_VERSION
from nnlib.config.document import read_document
from nnlib.config.identity import mathematics_read
from nnlib.config.render import versions
from nnlib.core.errors import ConfigError
from nnlib.core.metrics import cut_interval, metrics_of
from nnlib.evaluation.statistics import LEVEL, over_splits, wilson
from nnlib.export.exported_model import ExportedModel
from nnlib.inference.trained_model import TrainedModel
from nnlib.run.directory import CONFIG, RunDirectory
from nnlib.run.final_result import FinalTrial
from nnlib.run.round_store import LedgerRoot
from nnlib.run.spec import JobSpec, Trial

MAX_NAMES = 50
"""Columns and classes that the Markdown lists; the JSON has them all."""


def make_card(
    model: TrainedModel, directory: RunDirectory, network: ExportedModel, file: Mapping[str, Any]
) -> dict[str, Any]:
    """The card of an exported file, as JSON-able data; ``licence`` is null, for the owner to fill in."""
    spec, trial, dataset = model.spec, model.trial, model.spec.dataset
    settings = spec.settings(trial)
    final = directory.final()
    return {
        "format_version": FORMAT_VERSION,
        "name": spec.config.name,
        "licence": None,
        "file": dict(file),
        "model": network.description() | {"parameters": spec.model(trial).layout.size},
        "data": {
            "name": dataset.name,
            "task": dataset.task,
            "fingerprint": dataset.fingerprint,
            "rows": dataset.rows,
            "shape": list(dataset.shape),
            "classes": dict(zip(dataset.classes, dataset.class_counts, strict=True)),
            "encoding": dataset.encoding.to_json(),
            "scaling": settings.data.scale,
            "target_scaling": settings.data.target_scaling(dataset.task),
        },
        "training": {
            "trial": trial.index,
            "label": trial.label(),
            "split": trial.split,
            "fold": trial.fold,
            "train_rows": spec.train_rows(trial),
            "seed": spec.config.seed,
            "split_seeds": list(spec.config.split.seeds),
            "config": mathematics_read(settings) | {"train.epochs": settings.train.epochs},
            "config_hash": spec.config_hash,
        },
        "metrics": None if final is None else _metrics(spec, trial, final.trials),
        "ledger": LedgerRoot.of(directory.rounds(spec)).to_json(),
        "versions": {"trained": trained_versions(directory), "exported": versions([spec.settings(trial).model])},
    }


def _metrics(spec: JobSpec, trial: Trial, entries: Sequence[FinalTrial]) -> dict[str, Any]:
    """This trial's scores, and their means over the trials of its settings, with intervals where there are several."""
    entry = entries[trial.index]
    alike = [each for each in spec.trials if each.overrides == trial.overrides]
    peers = [entries[each.index] for each in alike]
    test = {"rows": entry.test.rows, **entry.test.values(), **entry.test.to_json()}
    if test.get("accuracy") is not None:
        hits = round(test["accuracy"] * test["rows"])
        test["accuracy_interval"] = list(wilson(hits, test["rows"]))
    test_ratio = sum(entry.test.rows for entry in peers) / sum(spec.train_rows(each) for each in alike)
    summary = {}
    for name in metrics_of(spec.dataset.task):
        values = [entry.test.value(name) for entry in peers]
        if known := [value for value in values if value is not None]:
            summary[name] = _summary(name, known, test_ratio)
    return {
        "level": LEVEL,
        "status": entry.status,
        "round": entry.round,
        "test": test,
        "validation": {"rows": entry.validation.rows, **entry.validation.values(), **entry.validation.to_json()},
        "trials": summary,
        "diverged": sum(entry.status == "diverged" for entry in peers),
    }


def _summary(name: str, values: Sequence[float], test_ratio: float) -> dict[str, Any]:
    result: dict[str, Any] = {"trials": len(values), "mean": statistics.fmean(values), "sd": None, "interval": None}
    if len(values) > 1:
        interval = cut_interval(name, over_splits(values, test_ratio))
        result |= {"sd": statistics.stdev(values), "interval": list(interval)}
    return result


def trained_versions(directory: RunDirectory) -> dict[str, str]:
    """Read the versions that the run's configuration names."""
    source = f"{directory.address}/{CONFIG}"
    value = read_document(directory.storage.read(CONFIG).decode("utf-8", "replace"), source).value
    versions_then = value.get("versions") if isinstance(value, dict) else None
    if not isinstance(versions_then, dict):
        raise ConfigError("has no versions: not the config.yaml of a run", file=source)
    return {str(name): str(version) for name, version in versions_then.items()}


def to_markdown(card: Mapping[str, Any], usage: str) -> str:
    """The card as a page; ``usage`` is Python that uses the file."""
    model, data, training, file = card["model"], card["data"], card["training"], card["file"]
    parts = [
        f"# {_text(card['name'])}",
        f"{_architecture(model, data['task'])}, in the file {_text(file['name'])}.",
        "Licence: (to be filled in by the owner)",
        "## Use",
        f"Input: {_text(model['input'])}. Computation: `{model['computation']}`.",
        f"```python\n{usage}\n```",
        "## Scores",
        *_scores(card["metrics"]),
        "## Data",
        _table(
            ("", ""),
            [
                ("dataset", data["name"]),
                ("rows", f"{data['rows']:,}"),
                ("feature scaling", data["scaling"]),
                ("target scaling", data["target_scaling"]),
                ("stored as", model["stored"]["dtype"]),
                ("fingerprint", data["fingerprint"]),
            ],
        ),
        *_schema(data),
        "## Training",
        f"Trial {training['trial']} ({_text(training['label'])}), {training['train_rows']:,} training rows.",
        _table(("key", "value"), training["config"].items()),
        "## Provenance",
        _table(("", ""), _provenance(card)),
    ]
    return "\n\n".join(parts) + "\n"


def _architecture(model: Mapping[str, Any], task: str) -> str:
    """A model in a few words."""
    if "widths" in model:
        return f"A perceptron for {task}, {' - '.join(map(str, model['widths']))}"
    arguments = ", ".join(f"{name}={value!r}" for name, value in model["arguments"].items())
    counts = ", ".join(f"{number:,} {kind}" for kind, number in model["counts"].items() if number)
    rows = ", ".join(map(str, model["shape"]))
    return (
        f"The torch module {_text(model['factory'])}({_text(arguments)}) for {task}, of rows of shape ({rows}) and "
        f"{model['outputs']} outputs; numbers: {counts}"
    )


def _scores(metrics: Mapping[str, Any] | None) -> list[str]:
    if metrics is None:
        return ["The run is not finished: this model has not been scored."]
    level = f"{metrics['level']:.0%}"
    test = metrics["test"]
    rows: list[tuple[Any, ...]] = []
    for name, value in test.items():
        if name != "rows" and isinstance(value, float):
            rows.append((name, _number(value), _range(test.get(f"{name}_interval"))))
    parts = [f"This model, on {test['rows']:,} test rows:", _table(("score", "value", f"{level} interval"), rows)]
    several = [
        (name, entry["trials"], _number(entry["mean"]), _number(entry["sd"]), _range(entry["interval"]))
        for name, entry in metrics["trials"].items()
        if entry["trials"] > 1
    ]
    if several:
        parts += [
            "The same training on several splits (intervals corrected for the rows that splits share, after "
            "Nadeau and Bengio, 2003):",
            _table(("score", "trials", "mean", "sd", f"{level} interval of the mean"), several),
        ]
    if metrics["diverged"]:
        parts.append(f"{metrics['diverged']} of these trials diverged; they are scored at their last good model.")
    return parts


def _schema(data: Mapping[str, Any]) -> list[str]:
    columns = data["encoding"]["columns"]
    shown = [
        (
            column["name"],
            column["kind"],
            column["width"],
            "an error" if not column["fill"] else "filled",
            ", ".join(column["categories"][:MAX_NAMES]),
        )
        for column in columns[:MAX_NAMES]
    ]
    parts = [_table(("column", "kind", "features", "missing values", "categories"), shown)]
    if len(columns) > MAX_NAMES:
        parts.append(f"... and {len(columns) - MAX_NAMES} more columns.")
    classes = list(data["classes"].items())
    if classes:
        parts.append(_table(("class", "rows"), classes[:MAX_NAMES]))
    if len(classes) > MAX_NAMES:
        parts.append(f"... and {len(classes) - MAX_NAMES} more classes.")
    return parts


def _provenance(card: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    yield f"SHA-256 of {card['file']['name']}", card["file"]["sha256"]
    yield f"ledger, up to round {card['ledger']['round']}", card["ledger"]["sha256"]
    yield "configuration", card["training"]["config_hash"]
    for name, sha256 in card["model"].get("sha256", {}).items():
        yield f"SHA-256 of {name}, which the model was made by", sha256
    yield "seed", card["training"]["seed"]
    yield "split seeds", ", ".join(map(str, card["training"]["split_seeds"]))
    for name, version in card["versions"]["trained"].items():
        yield f"{name}, when trained", version
    yield "nnjobs, when exported", card["versions"]["exported"]["nnjobs"]


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_text(cell) for cell in line) + " |" for line in lines)


def _text(value: Any) -> str:
    """A value within Markdown: names come from data, and must stay names."""
    text = "".join(character if character.isprintable() else " " for character in str(value))
    for character in "\\|`*_<>[]":
        text = text.replace(character, f"\\{character}")
    return text


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _range(interval: Sequence[float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:.4g} to {interval[1]:.4g}"
