"""Trained models as files that other programs read, each with a model card.

A new format is one file with ``encode`` and ``usage`` (see `nnlib.export.npz_file`) and one line in `EXPORTERS`; for
torch modules, another file and one line in `TORCH_EXPORTERS`.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol, cast

from nnlib.core.errors import StorageError, UsageError
from nnlib.storage import Storage, file_at
from nnlib.storage.outputs import refuse_overlap

if TYPE_CHECKING:
    from nnlib.export.exported_model import ExportedModel
    from nnlib.inference.trained_model import TrainedModel

EXPORTERS = {
    "onnx": "nnlib.export.onnx_file",
    "npz": "nnlib.export.npz_file",
    "safetensors": "nnlib.export.safetensors_file",
}
"""Format -> its module for perceptrons, imported when it is wanted: onnx is an optional package and slow to load."""

TORCH_EXPORTERS = {
    "onnx": "nnlib.export.torch_onnx_file",
    "npz": "nnlib.export.torch_npz_file",
    "safetensors": "nnlib.export.torch_safetensors_file",
}
"""The same for torch modules."""


class Exporter(Protocol):
    """What the module of a format has."""

    def encode(self, network: Any) -> bytes:
        """The file's bytes. ``network``: a `nnlib.export.network.Network` or, of torch modules, a `TorchNetwork`."""
        ...

    def usage(self, network: Any, name: str) -> str:
        """Lines of Python that use the file ``name``, for the card."""
        ...


def exporter(format_: str, *, of_torch: bool = False) -> Exporter:
    """The module of a format, for perceptrons or for torch modules. Raises `UsageError` for one that is unknown, or
    whose package is not installed."""
    known = TORCH_EXPORTERS if of_torch else EXPORTERS
    if format_ not in known:
        raise UsageError(
            f"there is no format {format_!r}{' for torch modules' if of_torch else ''}",
            hint=f"one of {', '.join(known)}",
        )
    try:
        return cast(Exporter, importlib.import_module(known[format_]))
    except ModuleNotFoundError as error:
        raise UsageError(
            f"files of format {format_} need the package {error.name}", hint="pip install 'nnjobs[export]'"
        ) from error


def network_of(model: TrainedModel) -> ExportedModel:
    """Return a trained model as files hold it. Raises `UsageError` for a kind of model that no file holds."""
    if not model.has_module:
        from nnlib.export.network import Network

        return Network.of(model)
    from nnlib.export.torch_network import TorchNetwork  # imports torch

    return TorchNetwork.of(model)


def export(run: str, format_: str, output: str | None = None, *, trial: int = 0) -> dict[str, Any]:
    """Write a trial's model of a run as one file, with a ``.card.json`` and a ``.card.md``.

    ``output`` is the file's address; default: the run's name with the format as suffix, in the current directory.
    Returns format, trial, output, cards, bytes and sha256. The three files appear when all are written: nothing is
    left of an export that fails. What is no regular file (a FIFO, ``/dev/stdout``) gets the model and no card. Raises
    `UsageError` for an unknown format, run or trial, for an output in the run, and where a card, or the file without
    ``output``, would replace a file of another program.
    """
    from nnlib.export.card import make_card, to_markdown  # numpy and pyarrow: the table above must not need them
    from nnlib.inference.trained_model import TrainedModel
    from nnlib.run.directory import RunDirectory

    if format_ not in TORCH_EXPORTERS:
        exporter(format_)  # an unknown format is refused before a model is read
    model = TrainedModel.load(run, trial=trial)
    kind = exporter(format_, of_torch=model.has_module)
    directory = RunDirectory.open(run)
    if output is None:
        number = f"-trial{trial}" if len(model.spec.trials) > 1 else ""
        output = f"{directory.address.rstrip('/').rpartition('/')[2]}{number}.{format_}"
        _refuse_foreign_model(output)
    refuse_overlap(output, (run,))
    target, name = file_at(output)

    network = network_of(model)
    data = kind.encode(network)
    file = {"name": name, "format": format_, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    card = make_card(model, directory, network, file)
    files = {
        f"{name}.card.md": to_markdown(card, kind.usage(network, name)).encode(),
        f"{name}.card.json": (json.dumps(card, ensure_ascii=False, allow_nan=False, indent=2) + "\n").encode(),
        name: data,
    }
    if target.is_stream(name):
        files = {name: data}
    else:
        _refuse_foreign_card(target, name)
    _write_together(target, files)
    cards = [f"{target.root}/{each}" for each in files if each != name]
    return {"output": f"{target.root}/{name}", "cards": cards, "trial": trial, **file}


def _refuse_foreign_model(output: str) -> None:
    """Refuse a file that the user did not name, if it is there and no export of ours: ours have a card."""
    target, name = file_at(output)
    if target.exists(name) and not _has_card(target, name):
        raise UsageError(
            "there is such a file, and it has no model card: it may not be one of ours",
            hint="name the file to write with -o",
            file=f"{target.root}/{name}",
        )


def _refuse_foreign_card(target: Storage, name: str) -> None:
    """Refuse to replace files that have the names of a card, but are none."""
    found = next((each for each in (f"{name}.card.json", f"{name}.card.md") if target.exists(each)), None)
    if found is not None and not _has_card(target, name):
        raise UsageError(
            "this file would be replaced by the model card, and is not one of ours",
            hint="move it away, or choose another -o",
            file=f"{target.root}/{found}",
        )


def _has_card(target: Storage, name: str) -> bool:
    """Return whether there is a card of an exported file."""
    try:
        card = json.loads(target.read(f"{name}.card.json"))
    except (StorageError, ValueError, RecursionError):
        return False
    return isinstance(card, dict) and {"format_version", "file", "model", "ledger"} <= card.keys()


def _write_together(target: Storage, files: Mapping[str, bytes]) -> None:
    """Write all files or, where one fails, none that was not there before."""
    new = [name for name in files if not target.exists(name)]
    try:
        with ExitStack() as stack:  # no file takes its name before the bytes of all are written
            streams = [(stack.enter_context(target.writing(name)), data) for name, data in files.items()]
            for stream, data in streams:
                stream.write(data)
                stream.flush()
    except BaseException:
        for name in new:
            target.delete(name)
        raise
