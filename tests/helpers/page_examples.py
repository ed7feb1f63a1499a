"""The examples of documentation pages, run as a reader would run them, in the order they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from product import ROOT

_BLOCK = re.compile(r"<!-- test: (?P<kind>.+?) -->\n```\w+\n(?P<text>.+?)```", re.DOTALL)


def run_examples(page: str, folder: Path) -> int:
    """Run the blocks of a page below the comment ``<!-- test: KIND -->`` in a folder; return how many commands ran.

    KIND is one of these:

    - ``file NAME``: the block is the content of that file.
    - ``shell``: the block is for bash. Every command must succeed.
    - ``python``: the block is a program. If its last line ends with a comment in brackets, it must print that.
    - ``output``: the block is all that the last ``shell`` block wrote to standard output.

    Raises `AssertionError` for a command that fails or writes something else.
    """
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    ran, output = 0, ""
    for block in _BLOCK.finditer((ROOT / page).read_text("utf-8")):
        kind, text = block["kind"], block["text"]
        if kind.startswith("file "):
            (folder / kind.removeprefix("file ")).write_text(text, "utf-8")
            continue
        if kind == "output":
            assert output == text, f"{page}: {output}"
            continue
        command = [sys.executable, "-c", text] if kind == "python" else ["bash", "-euo", "pipefail", "-c", text]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{page}: {text}\n{done.stderr}"
        output = done.stdout
        if kind == "python":
            wanted = re.search(r"# ([\[(].+[\])])$", text.strip())
            assert wanted is None or output.strip() == wanted[1], f"{page}: {output}"
        ran += 1 if kind == "python" else sum(line.startswith("nnjobs ") for line in text.splitlines())
    return ran
