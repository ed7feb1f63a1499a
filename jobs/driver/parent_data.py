"""What a run that starts from another one's weights may learn from: a weight belongs to a feature and a class."""

from __future__ import annotations

from collections.abc import Sequence

from nnlib.core.errors import ConfigError
from nnlib.core.listing import listed
from nnlib.core.notes import note
from nnlib.data.dataset import Dataset

_SHOWN = 8


def check_parent_data(trained_on: Dataset, dataset: Dataset, run: str) -> None:
    """Compare the dataset of a run with that of the run whose weights it starts from, at the address ``run``.

    Features and classes with other names are taken by position, and a note says so. Raises `ConfigError` where a
    feature or a class that both have stands in another place: its weights would be those of another one.
    """
    columns = ",".join(f'"{name}"' if "," in name else name for name in _columns(trained_on))
    _check(
        "features",
        trained_on.encoding.feature_names,
        dataset.encoding.feature_names,
        run,
        f"import the dataset with --features {columns}",
    )
    _check(
        "classes",
        trained_on.classes,
        dataset.classes,
        run,
        "import the dataset with --map-label, so that the classes have that order, or train without --from",
    )


def _columns(dataset: Dataset) -> list[str]:
    return [column.name for column in dataset.encoding.columns]


def _check(what: str, before: Sequence[str], now: Sequence[str], run: str, hint: str) -> None:
    if list(before) == list(now):
        return
    shown = listed(before, _SHOWN), listed(now, _SHOWN)
    places = {name: place for place, name in enumerate(before)}
    if any(places.get(name, place) != place for place, name in enumerate(now)):
        raise ConfigError(
            f"that run learnt the {what} in another order: {shown[0]}; here they are {shown[1]}",
            hint=hint,
            run=run,
            key="data.path",
        )
    note(f"the {what} of {run} are {shown[0]}, here {shown[1]}: their weights are taken by position")
