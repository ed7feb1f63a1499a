"""A user's files are imported under private names, and what is wrong with them is said in one line."""

from __future__ import annotations

import inspect
import sys
import traceback

import pytest

pytest.importorskip("torch")

from nnlib.core.errors import ConfigError
from nnlib.torch.user_code import import_file

MANY = {
    "nets.py": "import blocks\nfrom blocks import two\nfrom . import late\nfrom .late import four as again\n"
    "def three():\n    from late import four\n    return two() + 1, four(), again(), late.four()\n",
    "blocks.py": "from dataclasses import dataclass\n@dataclass\nclass Pair:\n    a: int\ndef two():\n    return 2\n",
    "late.py": "def four():\n    return 4\n",
}


def test_files_import_each_other_and_nothing_is_left_on_the_path() -> None:
    path, names = list(sys.path), set(sys.modules)
    nets = import_file(MANY, "nets")
    assert nets.three() == (3, 4, 4, 4)
    assert sys.path == path and not {"nets", "blocks", "late"} & set(sys.modules)
    assert all(name.startswith("_nnjobs_") for name in set(sys.modules) - names)
    assert import_file(dict(reversed(MANY.items())), "nets") is nets
    assert nets.blocks.Pair(3) == nets.blocks.Pair(3)
    assert "def three" in inspect.getsource(nets.three)


def test_two_runs_with_files_of_one_name_do_not_meet() -> None:
    other = MANY | {"blocks.py": "def two():\n    return 20\n"}
    first, second = import_file(MANY, "nets"), import_file(other, "nets")
    assert (first.three()[0], second.three()[0], import_file(MANY, "nets").three()[0]) == (3, 21, 3)


def test_a_file_hides_an_installed_module_from_these_files_alone() -> None:
    nets = import_file({"nets.py": "import json\nname = json.name\n", "json.py": "name = 'own'\n"}, "nets")
    import json

    assert nets.name == "own" and json.loads("1") == 1


@pytest.mark.parametrize(
    ("sources", "says"),
    [
        ({"nets.py": "import einopsy\n"}, r"imports einopsy, which is neither .* installed here \(nets\.py:1\)"),
        ({"nets.py": "x = 1\ny = x / 0\n"}, r"raised ZeroDivisionError .*division by zero \(nets\.py:2\)"),
        ({"nets.py": "import sys\nsys.exit(3)\n"}, r"raised SystemExit when it was imported: 3 \(nets\.py:2\)"),
        ({"nets.py": "import b\n", "b.py": "\n\nint('x')\n"}, r"file b\.py: raised ValueError .*\(b\.py:3\)"),
        ({"nets.py": "import b.c\n", "b.py": ""}, r"imports b\.c, which is neither"),
    ],
)
def test_a_file_that_cannot_be_imported(sources: dict[str, str], says: str) -> None:
    for _ in range(2):  # nothing of the first try is left
        with pytest.raises(ConfigError, match=says):
            import_file(sources, "nets")


def test_tracebacks_have_the_lines_of_the_file() -> None:
    nets = import_file({"nets.py": "def fail():\n    raise ValueError('here')\n"}, "nets")
    with pytest.raises(ValueError, match="here") as caught:
        nets.fail()
    assert "raise ValueError('here')" in "".join(traceback.format_exception(caught.value))
