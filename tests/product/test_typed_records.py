"""What rounds, trials, workers, events and reports hand to each other are classes, not dictionaries of anything.

Every public signature that still has a ``dict[str, Any]`` stands below with its reason.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from product import PRODUCT, module_name, parsed

WANTED = "dict[str, Any]"
CONVERSIONS = {"to_json", "from_json"}
"""Methods in which a record becomes JSON-able data, or is made of it."""

PRINTED = "the object that the command's --json prints"
FOREIGN = "JSON of another program, of which a few keys are read"
OPTIONS = "keyword arguments of mrjob, which has its own"
DOCUMENT = "keys and values of a configuration document, before a schema has seen them"
JSON = "turns one kind of thing into JSON, or back: the same as to_json and from_json"

REASONS = {
    "jobs.batch.launcher.MapLauncher.run": "records of any map-only job; whoever asks for the job gives them a class",
    "jobs.batch.predict.predict": PRINTED,
    "jobs.commands.devices.describe_devices": PRINTED,
    "jobs.commands.devices.device_lines": PRINTED,
    "jobs.console.output.print_json": PRINTED,
    "jobs.experiments.evaluation.evaluate": PRINTED,
    "jobs.minicluster.readiness.bean": FOREIGN,
    "jobs.minicluster.readiness.fetch": FOREIGN,
    "jobs.runners.hadoop.runner.HadoopRunner.for_job": OPTIONS,
    "jobs.runners.hadoop.staging.Staging.options": OPTIONS,
    "jobs.runners.hadoop.staging.fixed_options": OPTIONS,
    "jobs.runners.hadoop.yarn_rest.application": FOREIGN,
    "jobs.runners.hadoop.yarn_rest.fetch_entries": FOREIGN,
    "jobs.runners.hadoop.yarn_rest.fetch_object": FOREIGN,
    "jobs.runners.inline.InlineRunner.for_request": OPTIONS,
    "jobs.runners.lines.decode_record": JSON,
    "jobs.runners.lines.encode_record": JSON,
    "jobs.runners.local.attempt.Task.where": "the place of an error, in its own words (`NnjobsError.where`)",
    "jobs.runners.local.runner.LocalRunner.for_request": OPTIONS,
    "jobs.runners.mrjob_options.mrjob_options": OPTIONS,
    "jobs.runners.node_check.node_reports": "facts of a node for people and for events.jsonl; two of them are compared",
    "jobs.runners.streaming_reporter.status": "what a task does now, in its own words (`nnlib.core.liveness`)",
    "nnlib.config.earlier.lost_keys": DOCUMENT,
    "nnlib.config.earlier.missing_keys": DOCUMENT,
    "nnlib.config.earlier.stable_values": DOCUMENT,
    "nnlib.config.identity.mathematics": DOCUMENT,
    "nnlib.config.identity.mathematics_read": DOCUMENT,
    "nnlib.config.options.checked_json": DOCUMENT,
    "nnlib.config.schema.stored_config": DOCUMENT,
    "nnlib.config.section.since": DOCUMENT,
    "nnlib.config.sweep.applied": DOCUMENT,
    "nnlib.config.sweep.combinations": DOCUMENT,
    "nnlib.config.tagged.tagged_section": DOCUMENT,
    "nnlib.core.errors.NnjobsError.to_record": JSON,
    "nnlib.core.errors.from_record": JSON,
    "nnlib.data.dataset_check.describe": PRINTED,
    "nnlib.export.card.make_card": "the card's own JSON file",
    "nnlib.export.export": PRINTED,
    "nnlib.export.exported_model.ExportedModel.description": "what an exported file says of itself, as its metadata",
    "nnlib.export.exported_model.ExportedModel.description_of": "what an exported file says of itself, as its metadata",
    "nnlib.export.exported_model.surroundings": "keyword arguments of the classes of exported models",
    "nnlib.export.torch_network.TorchNetwork.description": "what an exported file says of itself, as its metadata",
    "nnlib.export.network.Network.description": "what an exported file says of itself, as its metadata",
    "nnlib.inference.prediction_file.predict_to_file": PRINTED,
    "nnlib.inference.prediction_file.predict_to_parquet": PRINTED,
    "nnlib.inference.prediction_file.score_facts": PRINTED,
    "nnlib.report.write_report": PRINTED,
    "nnlib.run.model_file.parse_json": JSON,
    "nnlib.run.spec.arrays_to_json": JSON,
    "nnlib.training.scores.score_from_json": JSON,
    "nnlib.sklearn.module_estimator.ModuleEstimator.get_params": "scikit-learn's own signature",
}


def functions(tree: ast.AST, name: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """The public functions and methods of a module, or of a class, by their full names."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from functions(node, f"{name}.{node.name}")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name == "__init__" or not node.name.startswith("_"):
                yield f"{name}.{node.name}", node
        elif isinstance(node, ast.If | ast.Try | ast.With):
            yield from functions(node, name)


def holds_anything(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a parameter or the result of a function is, or contains, a dictionary of anything."""
    given = function.args
    parameters = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    annotations = [each.annotation for each in parameters if each is not None] + [function.returns]
    return any(WANTED in ast.unparse(each) for each in annotations if each is not None)


def found(path: Path) -> set[str]:
    return {
        name
        for name, function in functions(parsed(path), module_name(path))
        if function.name not in CONVERSIONS and holds_anything(function)
    }


FOUND = {name for path in PRODUCT for name in found(path)}


def test_every_signature_that_holds_anything_has_its_reason() -> None:
    unexplained = sorted(FOUND - set(REASONS))
    assert unexplained == [], "give it a frozen dataclass with to_json and from_json, or a reason above"


def test_every_reason_is_still_needed() -> None:
    assert sorted(set(REASONS) - FOUND) == [], "delete its line above"


@pytest.mark.parametrize(
    ("signature", "holds"),
    [
        ("def f(x: dict[str, Any]) -> None: ...", True),
        ("def f(*, x: list[dict[str, Any]] | None = None) -> None: ...", True),
        ("def f(*x: dict[str, Any]) -> None: ...", True),
        ("def f(**x: dict[str, Any]) -> None: ...", True),
        ("def f(x) -> Callable[[dict[str, Any]], None]: ...", True),
        ("async def f() -> 'dict[str, Any]': ...", True),
        ("def f(x: dict[str, int], y: Mapping[str, Any]) -> Any: ...", False),
        ("def f():\n    x: dict[str, Any] = {}", False),
    ],
)
def test_a_signature_is_read_as_a_person_reads_it(signature: str, holds: bool) -> None:
    ((name, function),) = functions(ast.parse(signature), "m")
    assert name == "m.f" and holds_anything(function) == holds


def test_what_is_private_is_not_looked_at() -> None:
    tree = ast.parse(
        "class _A:\n def f(self): ...\nclass B:\n def _f(self): ...\n def __init__(self): ...\ndef _g(): ..."
    )
    assert [name for name, _ in functions(tree, "m")] == ["m.B.__init__"]
