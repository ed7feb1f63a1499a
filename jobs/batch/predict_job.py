"""The prediction job, as an mrjob job: each map task predicts the shards of its line of the plan, a part for each.

The predictions go to the output folder; the job's output lists the parts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from jobs.batch.map_job import MapJob
from jobs.runners.lines import Line, encode_record
from nnlib.core.liveness import report_activity
from nnlib.core.numerics import use_threads
from nnlib.inference.prediction_parts import Prediction
from nnlib.run.spec import WorkerPlan
from nnlib.storage import file_at

_predictions: dict[bytes, Prediction] = {}
"""The last one read in this process: inline, all tasks read the same one."""


class PredictJob(MapJob):
    """Makes the parts of some shards; a part that an earlier attempt has made is left as it is."""

    def add_task_args(self) -> None:
        super().add_task_args()
        self.add_file_arg("--model")
        self.add_file_arg("--frozen", default=None)

    def work(self, line: str) -> Iterator[Line]:
        prediction = self._prediction()
        for shard in WorkerPlan.from_line(line).shards:
            report_activity(phase="predict", shard=shard)
            began = time.perf_counter()
            if prediction.read_part(shard) is None:
                prediction.write_part(shard)
                self.count("rows", prediction.dataset.shards[shard].rows)
                self.count("milliseconds predict", round(1000 * (time.perf_counter() - began)))
            yield b"%08d" % shard, encode_record(shard, {})

    def _prediction(self) -> Prediction:
        facts = Path(self.options.spec).read_bytes()
        if facts not in _predictions:
            model, frozen = self.options.model, self.options.frozen
            _predictions.clear()
            _predictions[facts] = Prediction.from_files(
                facts, _read(model), model, None if frozen is None else partial(_read, frozen)
            )
        use_threads(_predictions[facts].model.spec.config.runtime.blas_threads)
        return _predictions[facts]


def _read(address: str) -> bytes:
    folder, name = file_at(address)
    return folder.read(name)


if __name__ == "__main__":
    PredictJob.run()
