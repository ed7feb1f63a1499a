"""Imports point one way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from product import PRODUCT, imports, module_name, parsed

LAYERS: tuple[tuple[str, ...], ...] = (
    (
        "nnlib",
        "nnlib.errors",
        "nnlib.seeds",
        "nnlib.layout",
        "nnlib.addresses",
        "nnlib.storage",
        "nnlib.events",
        "nnlib.pulse",
        "nnlib.config",
    ),
    ("nnlib.data", "nnlib.models", "nnlib.optim"),
    (
        "nnlib.averaging",
        "nnlib.wire",
        "nnlib.numerics",
        "nnlib.metrics",
        "nnlib.plan",
        "nnlib.periods",
        "nnlib.training",
        "nnlib.synchronous",
        "nnlib.checkpoint",
        "nnlib.collective",
        "nnlib.ledger",
        "nnlib.lock",
        "nnlib.scratch",
        "nnlib.rundir",
        "nnlib.inference",
        "nnlib.prediction_parts",
    ),
    (
        "nnlib.intervals",
        "nnlib.statistics",
        "nnlib.published",
        "nnlib.choice",
        "nnlib.evaluation",
        "nnlib.evaluation_figures",
        "nnlib.report",
        "nnlib.export",
        "nnlib.simulate",
        "nnlib.tracking",
        "nnlib.sklearn",
    ),
    ("jobs",),
)
"""Lowest first. A module imports from its own layer and those below."""

UPWARD = {
    ("nnlib", "nnlib.inference"),  # nnlib.load(run) is the way in from Python
    ("nnlib.config.load", "nnlib.models"),  # the names that are legal, ...
    ("nnlib.config.load", "nnlib.optim"),  # ... looked up when a configuration is checked
    ("nnlib.sklearn.fitting", "jobs.driver"),  # an estimator's fit is a run like any other
}
"""The exceptions. They stand within functions, so importing the lower module never loads the upper one."""


def layer(module: str) -> int:
    """The layer of the longest name in the table that the module belongs to."""
    found = [
        (len(name), level)
        for level, names in enumerate(LAYERS)
        for name in names
        if module == name or module.startswith(f"{name}.")
    ]
    assert found, f"{module} stands in no layer"
    length, level = max(found)
    assert length > len("nnlib") or module in ("nnlib", "jobs") or module.startswith("jobs."), f"{module} has no layer"
    return level


def own_imports(path: Path) -> Iterator[str]:
    """The imports of this product's own modules."""
    tree = parsed(path)
    yield from (name for name in imports(tree) if name.split(".")[0] in ("nnlib", "jobs"))


@pytest.mark.parametrize("path", PRODUCT, ids=module_name)
def test_imports_point_down(path: Path) -> None:
    module = module_name(path)
    for imported in own_imports(path):
        if (module, imported) not in UPWARD:
            assert layer(imported) <= layer(module), f"{module} (layer {layer(module)}) imports {imported}"


@pytest.mark.parametrize("path", PRODUCT, ids=module_name)
def test_the_library_knows_no_mrjob(path: Path) -> None:
    module = module_name(path)
    found = imports(parsed(path))
    foreign = {name.split(".")[0] for name in found if (module, name) not in UPWARD}
    if module.startswith("nnlib"):
        assert not foreign & {"mrjob", "jobs", "click", "rich"}


def test_modules_import_each_other_in_no_circle() -> None:
    graph = {
        module_name(path): {name for name in own_imports(path) if (module_name(path), name) not in UPWARD}
        for path in PRODUCT
    }
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join((*above, module))
        if module not in done:
            for imported in sorted(graph.get(module, ())):
                visit(imported, (*above, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_upward_imports_exist_and_are_lazy() -> None:
    for module, imported in UPWARD:
        path = next(path for path in PRODUCT if module_name(path) == module)
        tree = parsed(path)
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        assert any(imported in imports(function) for function in functions)
        direct = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
        assert imported not in imports(direct)
