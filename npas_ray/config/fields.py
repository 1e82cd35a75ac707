"""The kinds of values that a configuration holds. What each one expects is said in one phrase, for messages."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError

Name = TypeVar("Name", bound=StrEnum)


def refused(expected: str, *, names: tuple[str, ...] = ()) -> PydanticCustomError:
    """The error of a value that is not what is expected; of `names` the nearest is offered."""
    return PydanticCustomError("refused", "refused", {"expected": expected, "names": names})


def misplaced(
    loc: tuple[str | int, ...], expected: str, got: Any, *, names: tuple[str, ...] = ()
) -> PydanticCustomError:
    """An error that a validator of the whole found at a place inside of it."""
    context = {"expected": expected, "names": names, "at": list(loc), "got": got}
    return PydanticCustomError("refused", "refused", context)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def whole(least: int, most: int) -> BeforeValidator:
    """A whole number in least..most; no booleans, no 3.0, no text."""

    def check(value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        raise refused(f"a whole number in {least}..{most}")

    return BeforeValidator(check)


def whole_or_auto(least: int, most: int) -> BeforeValidator:
    """A whole number in least..most, or "auto"."""

    def check(value: Any) -> int | str:
        if value == "auto":
            return "auto"
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        raise refused(f"auto or a whole number in {least}..{most}")

    return BeforeValidator(check)


def number(phrase: str, holds: Callable[[float], bool]) -> BeforeValidator:
    """A finite number for which `holds`; the phrase says which, such as "> 0"."""

    def check(value: Any) -> float:
        # a whole number beyond the range of floats is not finite either
        if _is_number(value) and abs(value) < 1e300 and math.isfinite(value) and holds(float(value)):
            return float(value)
        raise refused(f"a number {phrase}")

    return BeforeValidator(check)


def yes_or_no() -> BeforeValidator:
    """A boolean; no words and no numbers."""

    def check(value: Any) -> bool:
        if isinstance(value, bool):
            return value
        raise refused("true or false")

    return BeforeValidator(check)


def text(pattern: str, expected: str) -> BeforeValidator:
    """Text that matches the pattern as a whole."""

    def check(value: Any) -> str:
        if isinstance(value, str) and re.fullmatch(pattern, value):
            return value
        raise refused(expected)

    return BeforeValidator(check)


def one_of(*names: str) -> BeforeValidator:
    """One of some words."""

    def check(value: Any) -> str:
        if isinstance(value, str) and value in names:
            return value
        raise refused(f"one of {', '.join(names)}" if len(names) > 1 else f"'{names[0]}'", names=names)

    return BeforeValidator(check)


def member(enum: type[Name], *, without: tuple[Name, ...] = ()) -> BeforeValidator:
    """A word of an enum."""
    words = {str(item): item for item in enum if item not in without}

    def check(value: Any) -> Name:
        if isinstance(value, str) and value in words:
            return words[value]
        raise refused(f"one of {', '.join(words)}", names=tuple(words))

    return BeforeValidator(check)


def listed(
    what: str, *, sort: Callable[[Any], Any] | None = None, least: int = 1
) -> tuple[BeforeValidator, AfterValidator]:
    """A list of at least so many that repeats nothing; with `sort` the order of writing means nothing."""

    def check(values: Any) -> Any:
        if isinstance(values, list | tuple) and len(values) >= least:
            return values
        raise refused(f"a list of {what}" + (", at least one" if least else ""))

    def settle(values: tuple[Any, ...]) -> tuple[Any, ...]:
        for index, value in enumerate(values):
            if value in values[:index]:
                got = f"{value:g}" if isinstance(value, float) else value
                raise misplaced((index,), "every item once", got)
        return values if sort is None else tuple(sorted(values, key=sort))

    return BeforeValidator(check), AfterValidator(settle)


def _plain(value: Any, depth: int = 0) -> Any:
    if depth > 3 or not isinstance(value, Mapping | list | tuple | str | bool | int | float):
        raise refused("a mapping of settings to numbers, true, false or text")
    if isinstance(value, float) and not math.isfinite(value):
        raise refused("finite numbers")
    if isinstance(value, Mapping):
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    return [_plain(item, depth + 1) for item in value] if isinstance(value, list | tuple) else value


def _is_mapping(value: Any) -> Any:
    if isinstance(value, Mapping):
        return value
    raise refused("a mapping (name: value)")


mapping = BeforeValidator(_is_mapping)

Count = Annotated[int | Literal["auto"], whole_or_auto(1, 1024)]
Positive = Annotated[float, number("> 0", lambda value: value > 0)]
NotNegative = Annotated[float, number(">= 0", lambda value: value >= 0)]
Rate = Annotated[float, number(">= 1 (weights before / weights kept; 1 is dense)", lambda value: 1 <= value <= 1000)]
Settings = Annotated[Mapping[str, Any], mapping, BeforeValidator(_plain)]
