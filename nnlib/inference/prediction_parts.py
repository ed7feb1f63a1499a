"""Predictions of a dataset as a folder: a Parquet file for each shard, then a summary.

Parts are written by different tasks, again by retried ones, and some by an earlier command that was interrupted. So the
metadata of a part name what it was made from and how its rows scored: its reader knows whether it fits. A part is
written under another name and renamed, so a part that exists is whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import pyarrow.parquet as pq

from nnlib import FORMAT_VERSION
from nnlib.config.earlier import stable_values
from nnlib.core.errors import MismatchError
from nnlib.data.arrow import READ_ERRORS
from nnlib.data.dataset import Dataset
from nnlib.data.shard_cache import shard_cache
from nnlib.inference.label_matching import Remarks
from nnlib.inference.parquet_predictions import ParquetPredictions
from nnlib.inference.prediction_file import PredictionWriter
from nnlib.inference.prediction_rows import DatasetMatching, shard_rows
from nnlib.inference.prediction_settings import USUAL, PredictionSettings
from nnlib.inference.trained_model import TrainedModel
from nnlib.run.ledger import canonical, digest
from nnlib.run.model_file import model_digest, named_arrays, pack, read_model, unpack
from nnlib.run.spec import JobSpec
from nnlib.storage import Storage, storage
from nnlib.storage.output_folder import FolderContent
from nnlib.training.scores import Score, score_from_json

SUMMARY = "predictions.json"
"""Written last: with it the predictions are complete."""

ORIGIN = "nnjobs"
"""The key of a part's facts in its file's metadata."""


def part_name(shard: int) -> str:
    """Name the file of a shard's part."""
    return f"part-{shard:05d}.parquet"


@dataclass(frozen=True)
class PartRecord:
    """What a part says of itself: the numerics that made it, its rows, the score of those whose label the model knows,
    and what there is to remark of the others."""

    numerics: str
    rows: int
    score: Score
    remarks: Remarks = field(default_factory=Remarks)


@dataclass(frozen=True)
class Prediction:
    """A trained model, the dataset it is applied to, the address of the folder for the parts, and what is wanted."""

    model: TrainedModel
    dataset: Dataset
    output: str
    settings: PredictionSettings = USUAL

    @property
    def storage(self) -> Storage:
        """The folder for the parts."""
        return storage(self.output)

    @cached_property
    def matching(self) -> DatasetMatching:
        """What the dataset's features and labels are to the model."""
        return DatasetMatching.of(self.model, self.dataset)

    @cached_property
    def identity(self) -> str:
        """The hash of all that decides the predictions, but for the shard and the numerics."""
        model, trained_on = self.model, self.model.spec.dataset
        stored = model.trial.to_json()
        facts = {
            "weights": model_digest([model.state]),
            "model": stable_values(model.spec.settings(model.trial))["model"],
            "scaler": stored["scaler"],
            **({} if model.spec.frozen is None else {"frozen": model.spec.frozen.to_json()}),
            **({"target": stored["target"]} if "target" in stored else {}),
            "x": [trained_on.x_dtype, trained_on.x_scale, trained_on.x_offset],
            "classes": list(trained_on.classes),
            "dataset": self.dataset.fingerprint,
        }
        if order := self.matching.features.order:
            facts["order"] = order
        if wanted := self.settings.to_json():  # none: the identity is that of an earlier version
            facts["settings"] = wanted
        return digest(canonical(facts))

    def write_part(self, shard: int) -> None:
        """Write a shard's part. Raises `DivergedError` where the model's outputs are not finite."""
        cache = shard_cache(self.model.spec.config.runtime)
        with self.storage.writing(part_name(shard)) as stream:
            file = ParquetPredictions(stream)
            with PredictionWriter(self.model, file, self.settings, all_rows=self.dataset.rows) as writer:
                for rows in shard_rows(self.dataset, shard, self.matching, cache, self.settings.keep):
                    writer.add(rows)
                facts = {
                    "format_version": FORMAT_VERSION,
                    "prediction": self.identity,
                    "shard": self.dataset.shards[shard].sha256,
                    "numerics": writer.numerics,
                    "rows": writer.rows,
                    "score": writer.score.to_json(),
                    **writer.remarks.to_json(),
                }
                file.add_metadata(ORIGIN, canonical(facts).decode().rstrip())

    def read_part(self, shard: int) -> PartRecord | None:
        """Read the record of a shard's part from its metadata; None if there is no part.

        Raises `MismatchError` for a file that is not this part: of another model or dataset, or of another tool.
        """
        name, folder = part_name(shard), self.storage
        if not folder.exists(name):
            return None
        try:
            with folder.open(name) as stream:
                metadata = pq.read_metadata(stream)
            facts = json.loads((metadata.metadata or {}).get(ORIGIN.encode(), b"{}"))
        except (*READ_ERRORS, ValueError):
            facts = {}
        expected = {"prediction": self.identity, "shard": self.dataset.shards[shard].sha256}
        if not expected.items() <= facts.items() or facts.get("rows") != metadata.num_rows:
            raise MismatchError(
                "these are no predictions of this model for this dataset",
                hint="choose another -o",
                file=f"{folder.root}/{name}",
            )
        trained_on = self.model.spec.dataset
        score = score_from_json(facts["score"], trained_on.task, len(trained_on.classes))
        return PartRecord(facts["numerics"], facts["rows"], score, Remarks.from_json(facts))

    @property
    def content(self) -> FolderContent:
        """What is written into the folder."""
        return FolderContent.of(SUMMARY, parts=len(self.dataset.shards))

    def own_content(self) -> FolderContent:
        """Return what may be replaced in the folder: all of `content`, as parts are read before they are used.

        Raises `MismatchError` for a summary of other predictions, or of another tool.
        """
        if self.storage.exists(SUMMARY):
            try:
                found = json.loads(self.storage.read(SUMMARY))
            except (ValueError, RecursionError):
                found = None
            if not isinstance(found, dict) or found.get("prediction") != self.identity:
                raise MismatchError(
                    "these are no predictions of this model for this dataset",
                    hint="choose another -o",
                    file=f"{self.storage.root}/{SUMMARY}",
                )
        return self.content

    def to_files(self) -> tuple[bytes, bytes]:
        """Write what tasks read: all but the model's numbers, as JSON, and the numbers. `from_files` is the inverse.
        Frozen parameters are in a file of their own: `JobSpec.frozen_bytes`."""
        trial, spec = self.model.trial, self.model.spec
        facts = {
            "format_version": FORMAT_VERSION,
            "run": spec.to_json(),
            "trial": trial.index,
            "dataset": {"address": self.dataset.address, "manifest": self.dataset.to_json()},
            "output": self.output,
            "settings": self.settings.to_json(),
        }
        return canonical(facts), pack(named_arrays(trial.index, self.model.state, spec.model(trial).layout))

    @classmethod
    def from_files(
        cls, facts: bytes, weights: bytes, file: str, frozen: Callable[[], bytes] | None = None
    ) -> Prediction:
        """Read what `to_files` wrote. ``file`` names the weights in errors; ``frozen`` reads the frozen parameters."""
        data = json.loads(facts)
        spec = replace(JobSpec.from_json(data["run"]), frozen_file=frozen)
        trial = spec.trials[data["trial"]]
        state = read_model(trial.index, unpack(weights, file), spec.model(trial).layout, file)
        state.vector.flags.writeable = False
        dataset = Dataset.from_json(data["dataset"]["address"], data["dataset"]["manifest"])
        model = TrainedModel(spec, trial, state.vector, state.buffers)
        return cls(model, dataset, data["output"], PredictionSettings.from_json(data["settings"]))
