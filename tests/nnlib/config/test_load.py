"""The configuration: reading, refusing with all problems at once, overrides, rendering."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from product import ROOT

from nnlib.config.document import plain_scalar, read_document
from nnlib.config.earlier import stable_values
from nnlib.config.load import load_config
from nnlib.config.options import MLPOptions, MomentumOptions, RateOptions
from nnlib.config.render import from_resolved, to_yaml
from nnlib.config.schema import Config
from nnlib.config.section import options_of
from nnlib.config.sweep import applied, combinations
from nnlib.core.errors import ConfigError


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def refusal(path: str | None, overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    assert caught.value.exit_code == 2
    text = str(caught.value)
    assert "pydantic" not in text and "type=" not in text
    return text


def test_defaults_and_values(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, "data: {path: /d}\ntrain: {lr: 1e-3, epochs: 7}\nmodel: {hidden: 25}\n"))
    model, train = options_of(config.model, MLPOptions), options_of(config.train, RateOptions)
    assert (train.lr, config.train.epochs, model.hidden) == (0.001, 7, [25])
    assert (config.workers, config.train.batch_size, config.data.path) == (1, 32, "/d")


def test_relative_data_path_belongs_to_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    path = written(tmp_path / "sub", "data: {path: datasets/digits}")
    monkeypatch.chdir(tmp_path)
    assert load_config(path).data.path == str(tmp_path / "datasets/digits")
    assert load_config(path, ["data.path=s3://bucket/digits"]).data.path == "s3://bucket/digits"


def test_all_problems_at_once_each_with_key_value_and_place(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "wrkers: 4\n"
        "epochs: 5\n"
        "data: {path: d, scale: standrd}\n"
        "model: {hidden: [100, 0], kind: mpl}\n"
        "train:\n"
        "  lr: true\n"
        "  epochs: 1e2\n"
        "  l2: '0.1'\n"
        "  class_weights: {a: -1}\n"
        "  schedule:\n"
        "split: {train: 0.9, validation: 0.5}\n"
        "checkpoint: {keep: some}\n",
    )
    lines = refusal(path, ("train.batch_size=0", "train.optimiser=sgd")).splitlines()
    expected = [
        "14 problems:",
        f"{path}:1: wrkers: unknown key; did you mean workers?",
        f"{path}:2: epochs: unknown key; did you mean train.epochs?",
        f"{path}:3: data.scale: got standrd; allowed: none, standard or minmax; did you mean standard?",
        f"{path}:4: model.hidden[1]: got 0; allowed: a whole number from 1 to 1000000000",
        f"{path}:4: model.kind: got mpl; allowed: ",
        f"{path}:6: train.lr: got true; allowed: a number above 0 at most 1000000",
        f"{path}:7: train.epochs: got 1e2; allowed: a whole number from 0 to 1000000000000; write 100",
        f'{path}:8: train.l2: got "0.1"; allowed: a number from 0; write it without quotes',
        f"{path}:9: train.class_weights.a: got -1; allowed: a number above 0",
        f"{path}:10: train.schedule: is empty: put its keys below it (kind, ",
        f"{path}:11: split: train 0.9 + validation 0.5 is more than 1",
        f"{path}:12: checkpoint.keep: got some; allowed: all or a whole number from 1 to 1000000000",
        "--set train.batch_size=0: train.batch_size: got 0; allowed: a whole number from 1 to 1000000000",
        "--set train.optimiser=sgd: train.optimiser: unknown key; did you mean train.optimizer?",
    ]
    assert len(lines) == len(expected)
    for line, start in zip(lines, expected, strict=True):
        assert start in line


def test_missing_data_is_explained(tmp_path: Path) -> None:
    assert "data: is missing" in refusal(None)
    assert "data.path: is missing; needed: dataset directory" in refusal(written(tmp_path, "data: {}"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("data: !!python/object:os.system {path: d}", "tag"),
        ("data: &a {path: d}", "anchors"),
        ("data: {path: d}\nmodel: *a", "anchors"),
        ("data: {path: d}\n---\nname: x", "second document"),
        ("- data", "must be a mapping"),
        ("just words", "must be a mapping"),
        ("data: {path: d", "not valid YAML"),
        ("data: \x00", "not valid YAML"),
        ("{a: " * 30 + "1" + "}" * 30, "levels"),
        ("a: [" + "1," * 20_000 + "]", "values"),
        ("? [a]\n: b", "a key must be one word"),
        ("data: {path: d}\nname: a\nname: b", "given twice"),
    ],
)
def test_refused_yaml(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(text.encode())
    message = refusal(str(path))
    assert reason in message and "c.yaml" in message


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "digits.yaml").write_bytes(b"name: \xff")
    (tmp_path / "large.yaml").write_bytes(b"#" * (2 << 20))
    assert "not UTF-8" in refusal(str(tmp_path / "digits.yaml"))
    assert "larger than" in refusal(str(tmp_path / "large.yaml"))
    assert "did you mean" in refusal(str(tmp_path / "digit.yaml"))
    assert "cannot read" in refusal(str(tmp_path))


def test_overrides(tmp_path: Path) -> None:
    path = written(tmp_path, "data: {path: d}\nsplit: {validation: 0.1}\ntrain: {lr: wrong}\n")
    config = load_config(
        path,
        ["train.lr=1e-3", "model.hidden=[5, 4]", "train.stop.patience=3", "name=007", "train.class_weights={0: 2}"],
    )
    model, train = options_of(config.model, MLPOptions), options_of(config.train, RateOptions)
    assert train.lr == 0.001 and model.hidden == [5, 4] and config.name == "007"
    assert config.train.stop is not None and config.train.stop.patience == 3
    assert config.train.class_weights == {"0": 2.0}
    assert load_config(path, ["train.lr=1", "train.stop.patience=3", "train.stop=null"]).train.stop is None
    swept = load_config(path, ["train.lr=1", "sweep.train.lr=[0.1, 0.2]", "sweep.model.hidden=[[4], [8]]"]).sweep
    assert swept == {"train.lr": [0.1, 0.2], "model.hidden": [[4], [8]]}


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("train.lr", "KEY=VALUE"),
        ("=3", "KEY=VALUE"),
        ("train..lr=3", "KEY=VALUE"),
        ("train.lr=", "train.lr=null"),
        ("train.lr=[1", "not valid YAML"),
        ("train.lr=0.1\n---\n3", "second document"),
        ("train.momentom=3", "did you mean train.momentum?"),
        ("name.first=3", "has no keys below"),
        ("train.lr=nan", "allowed: a number"),
        ("train.lr=.nan", "allowed: a number"),
        ("train.stop.patience=3", "needs validation rows"),
        ("train.optimizer=adm", "did you mean adam?"),
        ("sweep.train.lr=0.1", "allowed: a list of at least 1, each any value"),
        ("sweep.train.lr=[0.1, -1]", "with train.lr = -1: train.lr: Input should be greater than 0"),
        ("sweep.train.epochs=[1, 2]", "cannot differ in 'train.epochs'"),
    ],
)
def test_refused_overrides(tmp_path: Path, override: str, reason: str) -> None:
    assert reason in refusal(written(tmp_path, "name: a\ndata: {path: d}"), (override,))


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("1E5", 1e5), ("-.5", -0.5), ("017", 17), ("0x1f", 31), ("12:30", "12:30"), ("no", "no"),
     ("on", "on"), ("2020-01-01", "2020-01-01"), ("1_000", "1_000"), ("true", True), ("None", "None"), ("~", None),
     (".inf", float("inf")), ("e5", "e5"), ("1.2.3", "1.2.3")],
)  # fmt: skip
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    assert plain_scalar(text) == value and type(plain_scalar(text)) is type(value)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_a_document_or_a_config_error(text: str) -> None:
    try:
        read_document(text, "x")
    except ConfigError as error:
        assert "x" in str(error)


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(
    name=NAMES | st.sampled_from(["1e-3", "no", "null", "0x1f", "017", "true", "1.5"]),
    column=st.none() | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20),
    lr=st.floats(1e-12, 1e6),
    hidden=st.lists(st.integers(1, 10**9), max_size=4),
    labels=st.dictionaries(NAMES, st.floats(1e-9, 1e9), max_size=3),
)
def test_rendering_reads_back_equal(
    name: str, column: str | None, lr: float, hidden: list[int], labels: dict[str, float]
) -> None:
    plain = load_config(None, ["data.path=/d"])
    values = plain.model_dump()
    values |= {"name": name, "split": {"column": column}, "model": {"hidden": hidden}}
    values["train"] |= {"lr": lr, "class_weights": labels}
    config = type(plain).model_validate(values)
    assert from_resolved(to_yaml(config)) == config


def test_a_resolved_file_can_be_trained_again_and_names_its_versions(tmp_path: Path) -> None:
    config = load_config(None, ["data.path=/d", "train.epochs=3"])
    path = written(tmp_path, to_yaml(config))
    assert load_config(path) == config
    assert from_resolved(Path(path).read_text(), overrides=["train.epochs=9"]).train.epochs == 9
    with pytest.raises(ConfigError, match="format_version 99"):
        from_resolved(to_yaml(config).replace("format_version: 1", "format_version: 99"))
    with pytest.raises(ConfigError, match="no format_version"):
        from_resolved("data: {path: d}")


UNREAD = {
    "train: {optimizer: adam, momentum: 0.5}": (
        "train.momentum",
        "the optimizer adam",
        "momentum, nesterov and rmsprop do",
    ),
    "train: {momentum: 0.9, optimizer: sgd}": (
        "train.momentum",
        "the optimizer sgd",
        "momentum, nesterov and rmsprop do",
    ),
    "train: {beta1: 0.8}": ("train.beta1", "the optimizer momentum", "adam and adamw do"),
    "train: {optimizer: cg, lr: 0.1}": (
        "train.lr",
        "the optimizer cg",
        "; sgd, momentum, nesterov, adam, adamw, rmsprop, torch:",
    ),
    "train: {schedule: {gamma: 0.5}}": ("train.schedule.gamma", "the schedule constant", "step, exponential and"),
    "sync: {outer: {momentum: 0.5}}": ("sync.outer.momentum", "the outer step mean", "momentum and nesterov do"),
    "sweep: {train.beta1: [0.8, 0.9]}": ("sweep.train.beta1", "the optimizer momentum", "adam and adamw do"),
    "sweep: {train.optimizer: [sgd, adam]}\ntrain: {momentum: 0.5}": (
        *("train.momentum", "the optimizers adam and sgd do not read this key"),
    ),
}


@pytest.mark.parametrize("text", UNREAD)
def test_an_option_that_the_kind_does_not_read_is_refused(text: str, tmp_path: Path) -> None:
    path = written(tmp_path, f"data: {{path: d}}\n{text}\n")
    message = refusal(path)
    assert message.startswith(f"{path}:") and len(message.splitlines()) == 1
    for part in UNREAD[text]:
        assert part in message


READ = [
    "sweep: {train.optimizer: [sgd, momentum]}\ntrain: {momentum: 0.5}",
    "sweep: {train.optimizer: [sgd, adam], train.beta1: [0.8, 0.9]}",
    "sweep: {sync.outer.kind: [mean, nesterov]}\nsync: {outer: {momentum: 0.5}}",
    "sweep: {train.schedule.kind: [step, cosine]}\ntrain: {schedule: {step_epochs: 3, final: 0.5}}",
]


@pytest.mark.parametrize("text", READ)
def test_an_option_that_a_kind_of_the_sweep_reads_is_accepted(text: str, tmp_path: Path) -> None:
    config = load_config(written(tmp_path, f"data: {{path: d}}\n{text}\n"))
    assert from_resolved(to_yaml(config)) == config


def test_the_values_that_a_sweep_keeps_for_its_kinds_reach_them(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, f"data: {{path: d}}\n{READ[0]}\n"))
    plain = {**config.model_dump(mode="json"), "sweep": {}}
    trials = [Config.model_validate(applied(plain, overrides)).train for overrides in combinations(config.sweep)]
    assert [train.optimizer for train in trials] == ["sgd", "momentum"]
    assert options_of(trials[1], MomentumOptions).momentum == 0.5
    with pytest.raises(TypeError, match="MomentumOptions is needed"):
        options_of(trials[0], MomentumOptions)


def test_the_command_line_may_choose_another_kind_than_the_file_has_options_for(tmp_path: Path) -> None:
    path = written(tmp_path, "data: {path: d}\ntrain: {momentum: 0.8}\n")
    assert load_config(path, ["train.optimizer=adam", "train.beta1=0.8"]).train.optimizer == "adam"
    message = refusal(path, ("train.optimizer=adam", "train.momentum=0.7"))
    assert message.startswith("--set train.momentum=0.7: train.momentum: the optimizer adam does not read this key")


def test_unread_options_are_checked_by_the_kinds_that_read_them(tmp_path: Path) -> None:
    path = written(tmp_path, "data: {path: d}\ntrain:\n  momentum: 7\n  moment: 1\n")
    message = refusal(path, ("train.optimizer=adam",))
    assert f"{path}:3: train.momentum: got 7; allowed: a number from 0 below 1" in message
    assert f"{path}:4: train.moment: unknown key" in message


def test_a_file_that_an_earlier_version_resolved_lists_every_option(tmp_path: Path) -> None:
    text = (ROOT / "tests/fixtures/before_rooms/runs/collective/config.yaml").read_text("utf-8")
    config = from_resolved(text.replace("momentum: 0.9", "momentum: 0.8"))
    shown = to_yaml(config)
    assert "beta1: 0.9" in shown and "history" not in shown and "gamma" not in shown  # adam, a constant rate
    assert "momentum: 0.8" in shown, "its hash depends on it"
    assert from_resolved(shown) == config
    assert stable_values(config)["train"]["history"] == 10
    with pytest.raises(ConfigError, match=r"train\.history: the optimizer adam does not read this key; lbfgs does"):
        from_resolved(text, overrides=["train.history=3"])


def test_what_is_resolved_has_the_options_of_its_kind(tmp_path: Path) -> None:
    train = yaml.safe_load(to_yaml(load_config(None, ["data.path=/d", "train.optimizer=lbfgs"])))["train"]
    assert "history" in train and not {"lr", "momentum", "beta1"} & set(train)
    assert list(train)[:2] == ["optimizer", "history"]


def test_a_resolved_file_that_was_cut_is_refused_wherever_it_was_cut() -> None:
    lines = to_yaml(Config.model_validate({"data": {"path": "d"}})).splitlines(keepends=True)
    from_resolved("".join(lines))
    for end in range(len(lines)):
        with pytest.raises(ConfigError):
            from_resolved("".join(lines[:end]))
