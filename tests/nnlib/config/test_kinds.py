"""The tables of kinds: each line leads to code, and a new kind is one line with its options."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Any

import pytest
from pydantic import Field, ValidationError

from nnlib.config.kinds import MODELS, OPTIMIZERS, OUTER_STEPS, SCHEDULES, TABLES, Kinds, OptimizerKind
from nnlib.config.options import OptimizerOptions, RateOptions
from nnlib.config.section import options_of, since
from nnlib.config.tagged import kinds_of, tagged_section, tagged_union
from nnlib.config.training import Train
from nnlib.core.errors import ConfigError
from nnlib.core.layout import Layout
from nnlib.optim import build_optimizer


@pytest.mark.parametrize("table", TABLES, ids=[table.noun for table in TABLES])
def test_each_line_leads_to_code(table: Kinds[Any]) -> None:
    for name, kind in table.items():
        assert kind.about, name
        assert table.tag in kind.options.model_fields
        if all(find_spec(package) for package in kind.distributions):
            assert callable(kind.load()), name
        else:
            with pytest.raises(ConfigError, match=f"needs the package {kind.distributions[0]}"):
                kind.load()
    assert table.default in table


def test_a_kind_says_what_it_can_do() -> None:
    assert [name for name, kind in OPTIMIZERS.items() if not kind.averages_gradients] == ["cg", "lbfgs"]
    assert [name for name, kind in SCHEDULES.items() if kind.reads_epochs] == ["cosine"]
    for kind in OPTIMIZERS.values():
        kind.load_packages()


def test_a_name_that_is_in_no_table_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="there is no outer step 'adam'") as caught:
        OUTER_STEPS.named("adam")
    assert caught.value.where["key"] == "sync.outer.kind" and caught.value.hint == "one of mean, momentum, nesterov"
    assert MODELS.readers("hidden") == ["mlp"] and MODELS.readers("width") == []


class ClippedOptions(RateOptions):
    """Options of a kind that a test adds."""

    clip: Annotated[float, Field(gt=0.0)] = Field(1.0, json_schema_extra=since("0.2", before=1.0))


CLIPPED = Kinds(
    "optimizer",
    "train",
    "optimizer",
    {**OPTIMIZERS, "clipped": OptimizerKind("nnlib.optim.steps:SGD", ClippedOptions, "steps of limited length")},
)


def test_a_new_kind_is_one_line_with_its_options() -> None:
    train = tagged_section(Train, CLIPPED, {"optimizer": "clipped", "clip": 0.5, "lr": 0.1, "epochs": 3})
    assert options_of(train, ClippedOptions).clip == 0.5 and train.epochs == 3
    assert list(train.model_dump())[:3] == ["optimizer", "lr", "clip"]
    assert set(kinds_of(tagged_union(Train, CLIPPED))) == {*OPTIMIZERS, "clipped"}
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        tagged_section(Train, OPTIMIZERS, {"optimizer": "sgd", "clip": 0.5})
    with pytest.raises(ValidationError, match="did you mean clipped"):
        tagged_section(Train, CLIPPED, {"optimizer": "cliped"})
    assert build_optimizer(tagged_section(Train, OPTIMIZERS, {"optimizer": "sgd"}), Layout.build([], "float64"))


def test_an_option_that_is_not_read_is_kept_only_where_it_decides_the_hash() -> None:
    kept = tagged_section(Train, CLIPPED, {"optimizer": "adam", "clip": 0.5, "momentum": 0.9})
    assert kept.model_extra == {"clip": 0.5}
    plain = tagged_section(Train, CLIPPED, {"optimizer": "adam", "clip": 1.0})
    assert plain.model_extra == {} and plain == tagged_section(Train, CLIPPED, {"optimizer": "adam"})


def test_options_of_another_kind_are_a_type_error() -> None:
    section = tagged_section(Train, OPTIMIZERS, {"optimizer": "cg"})
    assert options_of(section, OptimizerOptions) is section
    with pytest.raises(TypeError, match="RateOptions is needed, got Train_cg"):
        options_of(section, RateOptions)
