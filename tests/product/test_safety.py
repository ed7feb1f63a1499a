"""Nothing in the product runs what it reads: shown of its code, and of files that try."""

from __future__ import annotations

import ast
import builtins
import os
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from product import PRODUCT, ROOT, imports, module_name, parsed
from shards import write_run

from jobs.__main__ import main
from nnlib.core.errors import MismatchError
from nnlib.run.model_file import unpack

FORBIDDEN_MODULES = {
    *("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "joblib"),  # run what they load
    *("lxml", "plistlib", "xmlrpc", "pyexpat"),  # expand entities
    *("imp", "code", "codeop", "pty", "commands"),
}
FORBIDDEN = {
    *("builtins.eval", "builtins.exec", "builtins.__import__"),
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *("asyncio.create_subprocess_shell", "tempfile.mktemp", "shutil.unpack_archive"),
    *("torch.load", "torch.hub", "pandas.read_pickle", "numpy.core.multiarray", "pyarrow.deserialize"),
    *("pyarrow.PyExtensionType", "pyarrow.UnknownExtensionType", "yaml.load", "yaml.load_all", "yaml.unsafe_load"),
}
FORBIDDEN_METHODS = {"extractall"}
ONLY_IN = {
    "yaml": {"nnlib.config.document", "nnlib.config.render"},
    # Members of archives are read as streams, never unpacked to disk.
    "zipfile": {
        *("nnlib.data.importing.compression", "nnlib.data.importing.formats.numpy_files"),
        "nnlib.data.importing.image_tree",
    },
    "runpy": {"jobs.runners.local.fork_server"},
    "ctypes": {"jobs.runners.forked_child", "nnlib.collective.endpoint"},
    # An environment's archive is written, never read: of compiled Python it holds what Python itself would load here.
    # One of images is read member by member, as a zip archive is.
    "tarfile": {"jobs.runners.hadoop.pack", "nnlib.data.importing.image_tree"},
    "marshal": {"jobs.runners.hadoop.pack"},
    "builtins.compile": {"jobs.runners.hadoop.pack"},
    "xml": {"nnlib.storage.hdfs.hadoop_config"},  # the administrator's own files
    "safetensors": {
        *("nnlib.run.model_file", "nnlib.export.safetensors_file", "nnlib.export.torch_safetensors_file"),
        "nnlib.torch.first_weights",
    },
    "safetensors.torch": {"nnlib.torch.first_weights"},
    "importlib.import_module": {
        *("jobs.runners.mrjob_compat", "jobs.commands.doctor", "jobs.runners.local.fork_server"),
        *("nnlib.config.kinds", "nnlib.core.named_object", "nnlib.export", "nnlib.storage.hdfs.webhdfs"),
        "nnlib.torch.factories",  # a user's own, once it is trusted
    },
    "importlib.__import__": {"nnlib.torch.user_code"},  # likewise
    "importlib.abc.InspectLoader": {"nnlib.torch.user_code"},
    "safetensors.numpy.load": {"nnlib.run.model_file"},
}
"""Powers that one place holds: modules, and functions by their full names."""
YAML = re.compile(
    r"yaml\.(parse|dump|SafeDumper|SafeLoader|CSafeLoader|(Scalar|Sequence)Node|(Marked)?YAMLError|\w+Event)"
)
STARTERS = {f"subprocess.{name}" for name in ("run", "call", "check_call", "check_output", "Popen")}
READERS = {
    "safetensors.safe_open",
    "safetensors.deserialize",
    "safetensors.numpy.load_file",
    "safetensors.torch.load_file",
}


def findings(tree: ast.Module, module: str) -> Iterator[str]:
    """What in a module is not allowed, with its line."""
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {alias.asname or alias.name.split(".")[0]: alias.name for alias in node.names if alias.asname}
            aliases |= {alias.name.split(".")[0]: alias.name.split(".")[0] for alias in node.names if not alias.asname}
        elif isinstance(node, ast.ImportFrom):
            aliases |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}

    def full(node: ast.expr) -> str:
        if isinstance(node, ast.Name):
            return aliases.get(node.id) or (f"builtins.{node.id}" if node.id in dir(builtins) else "")
        return f"{full(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""

    used = {(name, 0) for name in [*imports(tree), *aliases.values()]}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            used.add((full(node), node.lineno))
        if isinstance(node, ast.Attribute) and node.attr in FORBIDDEN_METHODS:
            yield f"line {node.lineno}: {node.attr}"
        if isinstance(node, ast.Call):
            yield from (f"line {node.lineno}: {what}" for what in _call(node, full(node.func)))
    for name, line in used:
        parents = {name[: end.start()] for end in re.finditer(r"\.|$", name)}
        if name.split(".")[0] in FORBIDDEN_MODULES or parents & (FORBIDDEN | READERS):
            yield f"line {line}: {name}"
        if any(module not in ONLY_IN[each] for each in parents & set(ONLY_IN)):
            yield f"line {line}: {name} in {module}"
        if name.startswith("yaml.") and not YAML.fullmatch(name):
            yield f"line {line}: {name}"


def _call(node: ast.Call, function: str) -> Iterator[str]:
    options = {keyword.arg: keyword.value for keyword in node.keywords}
    for option in ("shell", "allow_pickle", "trust_remote_code"):
        value = options.get(option)
        if value is not None and not (isinstance(value, ast.Constant) and value.value is False):
            yield f"{option}={ast.unparse(value)}"
    if function in ("numpy.load", "numpy.lib.format.read_array") and "allow_pickle" not in options:
        yield f"{function} without allow_pickle=False"  # the default today, said so that it stays
    if function in STARTERS and node.args and isinstance(node.args[0], ast.Constant | ast.JoinedStr):
        yield "a command as one string"
    if function == "yaml.parse" and "Loader" not in options:
        yield "yaml.parse without Loader"


@pytest.mark.parametrize("path", PRODUCT, ids=module_name)
def test_nothing_runs_what_it_reads(path: Path) -> None:
    assert sorted(set(findings(parsed(path), module_name(path)))) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads as parse",
        "import numpy as np\nnp.load(f)",
        "import numpy as np\nnp.load(f, allow_pickle=True)",
        "import numpy as np\nnp.load(f, allow_pickle=option)",
        "from os import system as run\nrun('ls')",
        "import os\nmap(os.popen, names)",
        "import subprocess\nsubprocess.run('ls', check=True)",
        "import subprocess\nsubprocess.run(command, shell=True)",
        "import yaml\nyaml.safe_load(text)",
        "list(map(eval, lines))",
        "import builtins\nbuiltins.exec(text)",
        "from torch import load",
        "from safetensors.numpy import load",
        "from safetensors import safe_open",
        "import importlib\nimportlib.import_module(name)",
        "import zipfile",
        "archive.extractall()",
        "import xml.etree.ElementTree as tree",
    ],
)
def test_the_search_finds(text: str) -> None:
    assert list(findings(ast.parse(text), "nnlib.some"))


def test_only_one_place_reads_models() -> None:
    """safetensors' reading functions appear in `nnlib.run.model_file.unpack` alone."""
    tree = parsed(ROOT / "nnlib/run/model_file.py")
    (unpacking,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "unpack"]
    everywhere = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and "load" in ast.unparse(node)]
    assert [node for node in everywhere if "safetensors" in str(node.module)] == [
        node for node in ast.walk(unpacking) if isinstance(node, ast.ImportFrom) and "load" in ast.unparse(node)
    ]


class Bomb:
    """Makes a directory when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("trained"))


def copied(trained: Path, to: Path) -> Path:
    import shutil

    shutil.copytree(trained / "run", to / "run")
    return to / "run"


@pytest.mark.parametrize("file", ["final/model.safetensors", "spec.json", "config.yaml", "rounds/000000/manifest.json"])
def test_a_pickle_in_place_of_a_file_of_a_run_is_no_program(trained: Path, tmp_path: Path, file: str) -> None:
    run, bomb = copied(trained, tmp_path), tmp_path / "exploded"
    (run / file).write_bytes(pickle.dumps(Bomb(bomb)))
    out = str(tmp_path / "o")
    codes = {
        main(["predict", str(run), str(trained / "data"), "-o", out]),
        main(["export", str(run), "--format", "npz", "-o", out]),
        main(["train", "--resume", "--run-dir", str(run), "--set", "train.epochs=4", "-q"]),
    }
    assert not bomb.exists() and codes & {2, 3} and not codes - {0, 2, 3}
    with pytest.raises(MismatchError):
        unpack(pickle.dumps(Bomb(bomb)), "model.safetensors")


@pytest.mark.parametrize("name", ["x.npz", "x.npy", "x.mat", "x.csv", "x.parquet", "dataset.json"])
def test_a_pickle_in_place_of_data_is_no_program(tmp_path: Path, name: str) -> None:
    bomb, file = tmp_path / "exploded", tmp_path / name
    objects = np.empty((4, 2), dtype=object)
    objects[:] = Bomb(bomb)
    if name.endswith("npz"):
        np.savez(file, X=objects, y=np.arange(4))
    elif name.endswith("npy"):
        np.save(file, objects)
    else:
        file.write_bytes(pickle.dumps(Bomb(bomb)))
    command = (
        ["data", "info", str(tmp_path)] if name == "dataset.json" else ["data", "import", str(file), "--label", "y"]
    )
    assert main([*command, *([] if name == "dataset.json" else ["-o", str(tmp_path / "out")])]) in (2, 3)
    assert not bomb.exists() and not (tmp_path / "out" / "dataset.json").exists()


@pytest.mark.parametrize("value", ["!!python/object/apply:os.mkdir ['{}']", "!!python/name:os.mkdir", "&a [*a]"])
def test_yaml_constructs_nothing(tmp_path: Path, value: str) -> None:
    bomb, file = tmp_path / "exploded", tmp_path / "c.yaml"
    file.write_text(f"name: {value.format(bomb)}\ndata: {{path: x}}\n")
    assert main(["train", str(file)]) == 2
    assert not bomb.exists()
