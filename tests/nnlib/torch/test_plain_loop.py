"""One worker is a plain torch loop with the same steps, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from images import torch_config, write_images

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

from jobs.driver import driver  # noqa: E402
from nnlib.core.entries import Entry  # noqa: E402
from nnlib.run.directory import RunDirectory  # noqa: E402
from nnlib.run.spec import assign_shards, initial_vector  # noqa: E402
from nnlib.torch.model import TorchModel  # noqa: E402
from nnlib.torch.zoo.resnet import build_resnet  # noqa: E402
from nnlib.torch.zoo.simple import SimpleCNN  # noqa: E402
from nnlib.training.worker_round import worker_data  # noqa: E402
from nnlib.training.worker_trial import WorkerTrial  # noqa: E402

EPOCHS, LR = 4, 0.05


class PaperCNN(SimpleCNN):
    """The layers in the order in which the paper writes them."""

    def forward(self, x: Any) -> Any:
        x = x.contiguous(memory_format=torch.channels_last)
        x = self.pool(functional.relu(self.conv1(x)))
        x = self.pool(functional.relu(self.conv2(x)))
        x = functional.relu(self.fc1(x.flatten(1)))
        return self.fc3(functional.relu(self.fc2(x)))


BUILDERS: dict[str, Any] = {
    "simple-cnn": lambda: PaperCNN(1, 8, 8, 3),
    "resnet-small": lambda: build_resnet(shape=(1, 8, 8), outputs=3),
}


@pytest.mark.parametrize("factory", BUILDERS)
def test_one_worker_is_a_plain_loop(tmp_path: Path, factory: str) -> None:
    dataset = write_images(tmp_path / "data", 90, shards=2)
    settings = torch_config(dataset, tmp_path / "run", factory, workers=1, train__epochs=EPOCHS, train__lr=LR)
    driver.train(settings)
    run = RunDirectory.open(str(tmp_path / "run"))
    spec = run.spec()
    trial = spec.trials[0]
    model = spec.model(trial)
    (trained,) = run.final_models(spec)

    module = BUILDERS[factory]()
    for name, view in model.layout.views(initial_vector(spec, trial)).items():
        module.get_parameter(name).data.copy_(torch.tensor(view))
    module.train()
    (plan,) = assign_shards([shard.rows for shard in spec.dataset.shards], 1)
    with worker_data(spec, plan) as data:
        work = WorkerTrial.of(spec, trial, 0, data)
        for epoch in range(EPOCHS):
            for batch in work.draw_batches(epoch - epoch % 2).epoch(epoch):
                x = torch.tensor(batch.x).reshape(-1, 1, 8, 8)
                module.zero_grad()
                functional.cross_entropy(module(x), torch.tensor(batch.y)).backward()  # type: ignore[no-untyped-call]
                with torch.no_grad():
                    for tensor in module.parameters():
                        tensor -= LR * tensor.grad
    expected = {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}
    arrays = model.layout.split(trained)
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        assert np.array_equal(array, expected[name]), name


def test_the_layout_of_a_module() -> None:
    model = TorchModel("resnet-small", {}, shape=(1, 8, 8), outputs=3, loss="softmax", dtype="float32")
    by_name: dict[str, Entry] = {entry.name: entry for segment in model.layout.segments for entry in segment.entries}
    assert by_name["0.weight"].shape == (16, 1, 3, 3) and by_name["0.weight"].decays
    assert by_name["1.weight"].kind == "parameter" and not by_name["1.weight"].decays
    assert by_name["1.running_mean"].rule == "mean" and by_name["1.running_mean"].dtype == "float32"
    assert by_name["1.num_batches_tracked"].rule == "max" and by_name["1.num_batches_tracked"].dtype == "int64"
    drawn = model.initial(np.random.default_rng(0))
    assert np.array_equal(drawn, model.initial(np.random.default_rng(0)))
    assert not np.array_equal(drawn, model.initial(np.random.default_rng(1)))


@pytest.mark.parametrize("factory", BUILDERS)
def test_rounds_and_collective_give_the_same_model(tmp_path: Path, factory: str) -> None:
    dataset = write_images(tmp_path / "data", 120)
    hashes = set()
    for name, changes in {"rounds": {}, "collective": {"sync__mode": "collective"}}.items():
        hashes.add(driver.train(torch_config(dataset, tmp_path / name, factory, **changes)).model_sha256)
    assert len(hashes) == 1
