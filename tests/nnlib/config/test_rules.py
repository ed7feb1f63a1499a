"""Keys of `train` that do not fit the model, the optimizer or the way workers run: one line that names the key."""

from __future__ import annotations

import pytest

from nnlib.config.load import load_config
from nnlib.core.errors import ConfigError

REFUSED = {
    "train.clip_norm=1; train.optimizer=cg": "train.clip_norm is for optimizers that take steps: cg takes none",
    "train.micro_batch=8; train.optimizer=lbfgs": "train.micro_batch is for optimizers that take steps",
    "train.schedule.by=step; train.optimizer=cg": "train.schedule.by: step is for optimizers that take steps",
    "train.micro_batch=64; train.batch_size=32": "train.micro_batch is 64, but train.batch_size is 32",
    "train.clip_norm=0": "train.clip_norm: got 0; allowed: a number above 0",
    "train.precision=bfloat16": "train.precision: bfloat16 is not for model.kind: mlp",
    "train.precision=float16": "train.precision: got float16; allowed: float32 or bfloat16",
    "train.loss=huber; model.output=softmax": "train.loss: huber is for numeric targets, not for model.output: softmax",
    "train.huber_delta=2": "train.huber_delta needs train.loss: huber",
    "train.label_smoothing=0.1; model.output=sigmoid": "train.label_smoothing is for a softmax, not for model.output",
    "train.label_smoothing=1": "train.label_smoothing: got 1; allowed: a number from 0",
    "train.schedule.warmup_steps=10": "warmup_steps needs by: step",
    "train.schedule={by: step, warmup_steps: 10, warmup_epochs: 1}": "exclude each other",
    "train.optimizer_state=keep": "train.optimizer_state: keep needs sync.mode: collective",
    "train.optimizer_state=keep; sync.mode=collective; sync.gang_fallback=rounds": "cannot go on in rounds mode",
    "train.optimizer_state=keep; sync.mode=collective; train.optimizer=cg": "for optimizers that take steps",
    "sweep.train.micro_batch=[8, 64]": "with train.micro_batch = 64: train.micro_batch is 64, but",
}


@pytest.mark.parametrize("overrides", REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(overrides: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, ["data.path=/d", *overrides.split("; ")])
    assert REFUSED[overrides] in str(caught.value) and "\n" not in str(caught.value)


ACCEPTED = [
    "train.clip_norm=1; train.micro_batch=8; train.schedule.by=step; train.schedule.warmup_steps=3",
    "train.label_smoothing=0.1; train.optimizer=adamw; train.weight_decay=0; train.decay=all",
    "train.loss=huber; train.huber_delta=0.5; train.optimizer=lbfgs",
    "train.optimizer_state=keep; sync.mode=collective; sync.overlap=1",
    "train.optimizer=rmsprop; train.centered=true; train.momentum=0.5; train.alpha=0.9",
    "sweep.train.optimizer=[adam, adamw]; train.weight_decay=0.1",
]


@pytest.mark.parametrize("overrides", ACCEPTED)
def test_what_fits_is_accepted(overrides: str) -> None:
    assert load_config(None, ["data.path=/d", *overrides.split("; ")]).train
