"""The base of all sections of a configuration, and the types of numbers that several sections use."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """Refuses unknown keys, NaN and infinity. Values are frozen and never converted, but 1 may stand for 1.0."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True)


S = TypeVar("S", bound=Section)


def options_of(section: Section, options: type[S]) -> S:
    """Return a section as what it is besides: the options of its kind. Raises `TypeError` if it has others."""
    if not isinstance(section, options):
        raise TypeError(f"a section with the options {options.__name__} is needed, got {type(section).__name__}")
    return section


Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveInt = Annotated[int, Field(ge=1, le=10**9, strict=True)]
Count = Annotated[int, Field(ge=0, le=10**12, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**63, strict=True)]


def since(version: str, *, before: object) -> dict[str, Any]:
    """Mark a key that a later version added: ``Field(..., json_schema_extra=since("0.2", before=None))``.

    ``before`` is the value (JSON-able) that means what versions without the key did. `nnlib.config.earlier` reads it.
    """
    return {"since": version, "before": before}
