"""Build the learner that a model names, for training or for scoring."""

from __future__ import annotations

from nnlib.core.layout import ModelState
from nnlib.core.named_object import load_named
from nnlib.data.target_scaling import TargetScaler
from nnlib.models.protocol import Model
from nnlib.training.learner import Learner, LearnerFactory, TrainingSetup
from nnlib.training.subnet_learner import SubnetLearner, has_subnets
from nnlib.training.target_learner import TargetLearner


def build_learner(model: Model, setup: TrainingSetup | None = None) -> Learner:
    """Build the learner that a model names; memory is taken when numbers are loaded. Without ``setup`` it scores and
    predicts only."""
    if setup is None:
        return _learner_of(model, None)
    if has_subnets(setup.config):
        learner: Learner = SubnetLearner(model, setup, _learner_of)
    else:
        learner = _learner_of(model, setup)
    return in_own_units(learner, setup.trial.target)


def _learner_of(model: Model, setup: TrainingSetup | None) -> Learner:
    factory: LearnerFactory = load_named(model.learner)
    return factory(model, setup)


def load_learner(model: Model, state: ModelState, target: TargetScaler | None = None) -> Learner:
    """Build a learner that scores and predicts with the numbers of ``state``, in the units of the target that
    ``target`` scaled for its training."""
    learner = in_own_units(build_learner(model), target)
    learner.load(state)
    return learner


def in_own_units(learner: Learner, target: TargetScaler | None) -> Learner:
    """Return a learner whose outputs and losses are in the target's own units; without scaling, ``learner``."""
    if target is None:
        return learner
    return TargetLearner(learner, target)
