"""Which keys there are, for the nearest valid name and for `--set`."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from npas_ray.config.models import SearchConfig
from npas_ray.config.words import Loc

Root = type[BaseModel]  # what a whole file is: a search, a farm


def keys_at(loc: Loc, root: Root = SearchConfig) -> tuple[str, ...] | None:
    """Names of the keys at a location; None where there are none or any will do."""
    here = _sections_at(loc, root)
    return tuple(dict.fromkeys(name for section in here for name in section.model_fields)) or None


def is_free(loc: Loc) -> bool:
    """Whether the keys at a location are the user's own, such as models in `budgets_ms`."""
    if not loc or not isinstance(loc[-1], str):
        return False
    fields = [
        section.model_fields[loc[-1]]
        for section in _sections_at(loc[:-1], SearchConfig)
        if loc[-1] in section.model_fields
    ]
    return any(typing.get_origin(field.annotation) is Mapping for field in fields)


def all_paths(root: Root = SearchConfig) -> tuple[str, ...]:
    """Every dotted path to a section or a value, such as "training.epochs"."""
    return tuple(_paths(root, ""))


_Sections = tuple[type[BaseModel], ...]  # one, or several where there is a choice


def _sections_at(loc: Loc, root: Root) -> _Sections:
    """The sections that may stand at a location; none at a single value."""
    here: _Sections = (root,)
    inside_list = False
    for part in loc:
        if inside_list:  # an index, or a name of the user's own
            inside_list = False
            continue
        fields = [section.model_fields[part] for section in here if part in section.model_fields]
        here = tuple(section for field in fields for section in _named(field.annotation))
        inside_list = bool(fields) and not _is_section(fields[0].annotation)
        if not here:
            return ()
    return () if inside_list else here


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _named(annotation: Any) -> _Sections:
    """The sections that an annotation names, alone, in a list or mapping, or as a choice."""
    if _is_section(annotation):
        return (annotation,)
    return tuple(section for argument in typing.get_args(annotation) for section in _named(argument))


def _paths(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        if _is_section(field.annotation):
            yield from _paths(typing.cast(type[BaseModel], field.annotation), f"{prefix}{name}.")
