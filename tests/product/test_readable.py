"""What a newcomer relies on: small files, and a docstring on everything that is public."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from product import PRODUCT, module_name, parsed

MOST_LINES = 400

FOREIGN = {
    "MRJob": "mrjob calls and documents these",
    "InlineMRJobRunner": "mrjob calls and documents these",
    "LocalMRJobRunner": "mrjob calls and documents these",
    "HadoopJobRunner": "mrjob calls and documents these",
    "Filesystem": "mrjob calls and documents these",
    "Group": "click's",
    "Thread": "threading's",
    "RawIOBase": "io's",
    "BufferedIOBase": "io's",
}
"""Base classes of other projects -> why overridden methods need no docstring of ours."""


@pytest.mark.parametrize("path", PRODUCT, ids=module_name)
def test_no_file_is_long(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", PRODUCT, ids=module_name)
def test_everything_public_has_a_docstring(path: Path) -> None:
    tree = parsed(path)
    assert ast.get_docstring(tree) or not tree.body, "the module"
    assert [name for name, node in public(tree) if not ast.get_docstring(node) and not makes_docstring(node)] == []


def public(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    """Public functions and classes of a module, and the public methods of those classes that no base class documents.

    A getter documents its setter, and a base class of this product its overrides (methods of the same name).
    """
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef) and not foreign(node):
                for method in node.body:
                    if (
                        isinstance(method, ast.FunctionDef)
                        and not method.name.startswith("_")
                        and method.name not in inherited(node)
                        and not any(
                            isinstance(decorator, ast.Attribute) and decorator.attr == "setter"
                            for decorator in method.decorator_list
                        )
                    ):
                        yield f"{node.name}.{method.name}", method


def makes_docstring(node: ast.FunctionDef | ast.ClassDef) -> bool:
    """Whether a class puts its docstring together from parts."""
    return any(isinstance(line, ast.Assign) and getattr(line.targets[0], "id", None) == "__doc__" for line in node.body)


def base_names(node: ast.ClassDef) -> list[str]:
    """The names of a class's bases, without their modules and type arguments."""
    names = []
    for base in node.bases:
        plain = base.value if isinstance(base, ast.Subscript) else base
        names.append(plain.attr if isinstance(plain, ast.Attribute) else getattr(plain, "id", ""))
    return names


def classes() -> dict[str, ast.ClassDef]:
    """All classes of the product by name."""
    return {node.name: node for path in PRODUCT for node in ast.walk(parsed(path)) if isinstance(node, ast.ClassDef)}


CLASSES = classes()


def foreign(node: ast.ClassDef) -> bool:
    """Whether a class derives from one of another project, which documents what it overrides."""
    return any(name in FOREIGN or (name in CLASSES and foreign(CLASSES[name])) for name in base_names(node))


def inherited(node: ast.ClassDef) -> set[str]:
    """Names of methods that a class of this product above ``node`` has."""
    found: set[str] = set()
    for name in base_names(node):
        if name in CLASSES and CLASSES[name] is not node:
            above = CLASSES[name]
            found |= {method.name for method in above.body if isinstance(method, ast.FunctionDef)} | inherited(above)
    return found
