"""Which keys there are, for the nearest valid name and for `--set`."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from npas_ray.config.models import SearchConfig
from npas_ray.config.words import Loc


def keys_at(loc: Loc) -> tuple[str, ...] | None:
    """Names of the keys at a location; None where there are none or any will do."""
    model: Any = SearchConfig
    for part in loc:
        if isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields:
            model = _inner(model.model_fields[str(part)].annotation)
        elif isinstance(model, _Repeated):
            model = model.item
        else:
            return None
    return tuple(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else None


def is_free(loc: Loc) -> bool:
    """Whether the keys at a location are the user's own, such as models in `budgets_ms`."""
    if not loc or not isinstance(loc[-1], str):
        return False
    parent: Any = SearchConfig
    for part in loc[:-1]:
        if not (isinstance(parent, type) and issubclass(parent, BaseModel) and part in parent.model_fields):
            return False
        parent = _inner(parent.model_fields[str(part)].annotation)
    if not (isinstance(parent, type) and issubclass(parent, BaseModel) and loc[-1] in parent.model_fields):
        return False
    return typing.get_origin(parent.model_fields[loc[-1]].annotation) is Mapping


def all_paths() -> tuple[str, ...]:
    """Every dotted path to a section or a value, such as "training.epochs"."""
    return tuple(_paths(SearchConfig, ""))


class _Repeated:
    """A list or mapping of sections."""

    def __init__(self, item: type[BaseModel]) -> None:
        self.item = item


def _inner(annotation: Any) -> Any:
    """The section that an annotation names, alone or in a list or mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in typing.get_args(annotation):
        if isinstance(argument, type) and issubclass(argument, BaseModel):
            return _Repeated(argument)
    return annotation


def _paths(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        inner = _inner(field.annotation)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _paths(inner, f"{prefix}{name}.")
