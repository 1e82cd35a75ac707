"""What a user lets a layer become: operators, schemes and rates, and how they are read from a configuration."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

from npas_ray.errors import SpaceError
from npas_ray.space.choices import RATES, Operator, Scheme
from npas_ray.space.names import did_you_mean

Name = TypeVar("Name", bound=StrEnum)

OPERATORS = tuple(operator for operator in Operator if operator is not Operator.FC)
SCHEMES = tuple(scheme for scheme in Scheme if scheme not in (Scheme.DENSE, Scheme.UNSTRUCTURED))


@dataclass(frozen=True)
class Allowed:
    """What a layer may become. Kept in the order of the enums and of the rates: the order of writing means nothing.

    Unstructured pruning is an accuracy reference that no kernel makes fast: it is allowed only if named. A layer may
    be dense if rate 1 is among the rates, whether or not the schemes name "dense".
    Raises SpaceError: an empty list, "dense" without rate 1, a rate that is not a number >= 1.
    """

    operators: tuple[Operator, ...] = OPERATORS
    schemes: tuple[Scheme, ...] = SCHEMES
    rates: tuple[float, ...] = RATES

    def __post_init__(self) -> None:
        object.__setattr__(self, "operators", _in_order(Operator, self.operators, "operators"))
        object.__setattr__(self, "schemes", _in_order(Scheme, self.schemes, "schemes"))
        object.__setattr__(self, "rates", _rates(self.rates))
        if 1.0 not in self.rates and Scheme.DENSE in self.schemes:
            raise SpaceError("schemes: 'dense' is rate 1, and the rates lack it: add 1 to the rates or remove 'dense'")

    def with_spec(self, spec: object, where: str) -> Allowed:
        """This with the lists that a configuration gives replaced. Raises SpaceError naming the place.

        >>> Allowed().with_spec({"operators": ["3x3", "skip"]}, "space").operators
        (<Operator.CONV3X3: '3x3'>, <Operator.SKIP: 'skip'>)
        """
        lists = mapping(spec, where, keys=("operators", "schemes", "rates"))
        try:
            return replace(self, **lists)
        except SpaceError as error:
            raise SpaceError(f"{where}.{error}") from None


def mapping(spec: object, where: str, *, keys: Sequence[str], noun: str = "key") -> Mapping[str, Any]:
    """The spec, if it is a mapping with no other keys than these. Raises SpaceError."""
    if not isinstance(spec, Mapping):
        raise SpaceError(f"{where}: expected a mapping with {noun}s {', '.join(keys)}; got {spec!r}")
    for key in spec:
        if key not in keys:
            near = did_you_mean(str(key), keys)
            raise SpaceError(f"{where}: unknown {noun} {key!r}{near} ({noun}s: {', '.join(keys)})")
    return spec


def _list(values: object, where: str) -> Sequence[object]:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise SpaceError(f"{where}: expected a list, got {values!r}")
    listed = list(values)
    if not listed:
        raise SpaceError(f"{where}: the list is empty; leave it out to allow the default")
    return listed


def _in_order(names: type[Name], values: object, where: str) -> tuple[Name, ...]:
    """The values as names, without repetition, in the order of the enum."""
    named = {one_of(names, value, f"{where}[{index}]") for index, value in enumerate(_list(values, where))}
    return tuple(name for name in names if name in named)


def one_of(names: type[Name], value: object, where: str) -> Name:
    """The name of an enum. Raises SpaceError with the nearest one."""
    try:
        return names(str(value))
    except ValueError:
        kind, valid = names.__name__.lower(), ", ".join(names)
        raise SpaceError(f"{where}: unknown {kind} {value!r}{did_you_mean(str(value), names)} ({valid})") from None


def _rates(values: object) -> tuple[float, ...]:
    rates = set()
    for index, value in enumerate(_list(values, "rates")):
        rate = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
        if not (math.isfinite(rate) and rate >= 1):
            raise SpaceError(
                f"rates[{index}]: a rate is weights before / weights kept, a number >= 1 (1 is dense); got {value!r}"
            )
        if float(f"{rate:g}") != rate:
            raise SpaceError(f"rates[{index}]: at most six digits, got {value!r}; use {float(f'{rate:g}')}")
        rates.add(float(rate))
    return tuple(sorted(rates))
