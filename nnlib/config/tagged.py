"""Sections that are tagged unions: one key, the tag, names the kind, and the kind decides which other keys there are.

`section_classes` joins the keys that every kind of a section has with the options of each kind.
Keys that another kind reads are kept, not refused: an earlier version listed every key in what it resolved, and a sweep
over kinds has the options of all of them. Whether a file may have such a key is decided where it is read
(`nnlib.config.unread`). Keys that no kind reads are refused here.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin

from pydantic import (
    AfterValidator,
    ConfigDict,
    Discriminator,
    Field,
    ModelWrapValidatorHandler,
    Tag,
    ValidationError,
    create_model,
    model_validator,
)

from nnlib.config.earlier import FIRST, NO_VALUE, value_before
from nnlib.config.kinds import Kinds
from nnlib.config.section import Section

S = TypeVar("S", bound=Section)


def tagged_union(base: type[Section], table: Kinds[Any]) -> Any:
    """Return the type of a section that names a kind of ``table``; ``base`` has the keys that every kind has."""
    classes = section_classes(base, table)
    if len(classes) == 1:  # no union, so nothing to discriminate
        return next(iter(classes.values()))
    members = tuple(Annotated[section, Tag(_tag(table, name))] for name, section in classes.items())
    return Annotated[Union[members], Discriminator(_chooser(table))]  # noqa: UP007


def kinds_of(annotation: Any) -> dict[str, type[Section]]:
    """Return, of the type that `tagged_union` made, the section classes by kind; {} of another type."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    members = [get_args(member)[0] if get_args(member) else member for member in get_args(annotation) or [annotation]]
    classes = [member for member in members if isinstance(member, type) and issubclass(member, Section)]
    kinds = [(member.model_config.get("json_schema_extra"), member) for member in classes]
    return {str(extra["kind"]): member for extra, member in kinds if isinstance(extra, dict) and "kind" in extra}


def tagged_section(base: type[S], table: Kinds[Any], values: dict[str, Any]) -> S:
    """Return a section with these values, of the kind they name. Raises `pydantic.ValidationError`."""
    return cast("S", section_classes(base, table)[kind_named(table, values)].model_validate(values))


@cache
def section_classes(base: type[Section], table: Kinds[Any]) -> Mapping[str, type[Section]]:
    """Return, for each kind of ``table``, the class of a section that names it: keys of all kinds and its options."""
    everything = _all_options(base, table)
    return {name: _section_class(base, table, name, everything) for name in table}


def _section_class(base: type[Section], table: Kinds[Any], name: str, everything: type[Section]) -> type[Section]:
    kind = table[name]
    bases = (kind.options,) if issubclass(kind.options, base) else (base, kind.options)
    tag = base.model_fields[table.tag]

    def keep_unread(cls: type[Section], values: Any, handler: ModelWrapValidatorHandler[Section]) -> Section:
        """Validate by its own kind what the kind reads, by the others' what it does not."""
        if not isinstance(values, dict):
            return handler(values)
        unread = {key: value for key, value in values.items() if key not in cls.model_fields}
        if not unread:
            return handler(values)
        errors: list[Any] = []
        try:
            others = everything.model_validate(unread).model_dump(mode="json", exclude_unset=True)
            kept = {key: value for key, value in others.items() if value != _unread_default(table, everything, key)}
        except ValidationError as error:
            errors, kept = list(error.errors(include_url=False)), {}
        try:
            section = handler({key: value for key, value in values.items() if key in cls.model_fields} | kept)
        except ValidationError as error:
            errors = [*error.errors(include_url=False), *errors]
        if errors:
            raise ValidationError.from_exception_data(cls.__name__, errors)
        return section

    namespace = {
        "__module__": base.__module__,
        "__doc__": f"{base.__name__} with the options of {table.tag}: {name}.",
        "__annotations__": {table.tag: Annotated[str, AfterValidator(_known(table))]},
        table.tag: Field(name, description=tag.description),
        "model_config": ConfigDict(extra="allow", json_schema_extra={"kind": name, "tag": table.tag}),
        "keep_unread": model_validator(mode="wrap")(cast("Any", classmethod(keep_unread))),
    }
    return type(f"{base.__name__}_{name}", bases, namespace)


def _all_options(base: type[Section], table: Kinds[Any]) -> type[Section]:
    """A section with the options of all kinds, each as the first kind that reads it declares it."""
    fields: dict[str, Any] = {}
    for kind in table.values():
        for key, field in kind.options.model_fields.items():
            if key not in base.model_fields:
                fields.setdefault(key, (field.annotation, field))
    return create_model(f"{base.__name__}_all", __base__=Section, **fields)


def _unread_default(table: Kinds[Any], everything: type[Section], key: str) -> Any:
    """The value that an option which is not read need not be kept for: without it the hash is the same."""
    first = FIRST.get(f"{table.key}.{key}", NO_VALUE)
    return value_before(everything.model_fields[key]) if first is NO_VALUE else first


def unknown_name(name: str, names: Collection[str]) -> str:
    """Return an error message of a name that is not in a table: what it is, what is allowed, what was meant."""
    meant = difflib.get_close_matches(name.lower(), list(names), n=1)
    hint = f"; did you mean {meant[0]}?" if meant else ""
    return f"got {name if len(name) <= 60 else name[:57] + '...'}; allowed: {', '.join(names)}{hint}"


def _known(table: Kinds[Any]) -> Callable[[str], str]:
    def known(name: str) -> str:
        if name not in table:
            raise ValueError(unknown_name(name, table))
        return name

    return known


def _chooser(table: Kinds[Any]) -> Callable[[Any], str]:
    def choose(value: Any) -> str:
        return _tag(table, kind_named(table, value))

    return choose


def kind_named(table: Kinds[Any], section: Any) -> str:
    """Return the kind that a section (a mapping, or validated) names; the default for none, or for an unknown one."""
    name = section.get(table.tag) if isinstance(section, dict) else getattr(section, table.tag, None)
    return name if isinstance(name, str) and name in table else table.default


def _tag(table: Kinds[Any], name: str) -> str:
    return f"{table.tag}={name}"  # no key has an equals sign, so that a path of an error tells tags from keys
