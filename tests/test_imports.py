"""Imports point one way, and nothing in the product runs what it reads."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PRODUCT = sorted([*ROOT.glob("nnlib/**/*.py"), *ROOT.glob("jobs/**/*.py")])

LAYERS: tuple[tuple[str, ...], ...] = (
    (
        "nnlib",
        "nnlib.errors",
        "nnlib.seeds",
        "nnlib.layout",
        "nnlib.addresses",
        "nnlib.storage",
        "nnlib.events",
        "nnlib.config",
    ),
    ("nnlib.data", "nnlib.models", "nnlib.optim"),
    (
        "nnlib.averaging",
        "nnlib.wire",
        "nnlib.numerics",
        "nnlib.metrics",
        "nnlib.plan",
        "nnlib.training",
        "nnlib.checkpoint",
        "nnlib.ledger",
        "nnlib.lock",
        "nnlib.rundir",
        "nnlib.inference",
        "nnlib.intervals",
        "nnlib.export",
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


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {module_name(path) for path in PRODUCT}


def imports(tree: ast.AST) -> Iterator[str]:
    """Modules that a tree imports by their full names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "relative imports hide the direction"
            for alias in node.names:
                member = f"{node.module}.{alias.name}"
                yield member if member in NAMES else node.module


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
    tree = ast.parse(path.read_text("utf-8"))
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
    found = imports(ast.parse(path.read_text("utf-8")))
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
        tree = ast.parse(path.read_text("utf-8"))
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        assert any(imported in imports(function) for function in functions)
        direct = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
        assert imported not in imports(direct)


FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load"}


@pytest.mark.parametrize("path", PRODUCT, ids=module_name)
def test_nothing_runs_what_it_reads(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    assert not {name.split(".")[0] for name in imports(tree)} & FORBIDDEN_MODULES
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        assert ast.unparse(node.func) not in FORBIDDEN_CALLS, f"line {node.lineno}"
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert options.get("shell", "False") == "False", f"line {node.lineno}: shell"
        assert options.get("allow_pickle", "False") == "False", f"line {node.lineno}: allow_pickle"
        if ast.unparse(node.func) in ("np.load", "numpy.load"):  # the default is False, but say it
            assert "allow_pickle" in options, f"line {node.lineno}: np.load"
