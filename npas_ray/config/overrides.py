"""`--set path=value` on top of a document."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from npas_ray.config.document import parse
from npas_ray.config.models import SearchConfig
from npas_ray.config.schema import all_paths, is_free, keys_at
from npas_ray.config.words import Loc, dotted, nearest, printable, shown
from npas_ray.errors import ConfigError


def apply(data: dict[str, Any], overrides: Sequence[str]) -> dict[Loc, str]:
    """Puts every override into `data` and gives back where each was written, for messages.

    Raises ConfigError, a line for each that is not path=value, has a path that does not exist, or a value not YAML.
    """
    places: dict[Loc, str] = {}
    problems: list[str] = []
    for override in overrides:
        place = f"--set {printable(override[:100])}"
        try:
            loc, value = _parsed(override, place)
            _put(data, loc, value, place)
            places[loc] = place
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return places


def _parsed(override: str, place: str) -> tuple[Loc, Any]:
    path, equals, text = override.partition("=")
    path = path.strip()
    if not equals or not path:
        raise ConfigError(f"{place}: expected path=value, such as training.epochs=3")
    loc: Loc = ()
    rest = re.sub(r"\[(\d{1,6})\]", r".\1", path).split(".")
    while rest:
        if is_free(loc):  # names of the user's own may have dots in them
            names_section = keys_at((*loc, rest[0])) is not None
            taken = 1 if names_section else len(rest)
            loc, rest = (*loc, ".".join(rest[:taken])), rest[taken:]
            continue
        part, rest = rest[0], rest[1:]
        known = keys_at(loc)
        if known is None and part.isascii() and part.isdigit():
            loc = (*loc, int(part))
            continue
        if known is None or part not in known:
            hint = _hint(part, rest, loc=loc, known=known or ())
            raise ConfigError(f"{place}: there is no {shown(path)} in a configuration{hint}")
        loc = (*loc, part)
    value, _ = parse(text, name=place)
    return loc, value


def _hint(part: str, rest: Sequence[str], *, loc: Loc, known: Sequence[str]) -> str:
    """The nearest path: the same one with its unknown part corrected, else one that ends alike."""
    paths = all_paths()
    near = nearest(part, known)
    if near is not None:
        whole = ".".join((dotted((*loc, near)), *rest))
        return f"; did you mean '{whole if whole in paths else dotted((*loc, near))}'?"
    by_end = {path.rsplit(".", 1)[-1]: path for path in reversed(paths)}
    end = nearest(rest[-1] if rest else part, by_end)
    if end is not None:
        return f"; did you mean '{by_end[end]}'?"
    return f"; {dotted(loc) or 'it'} has {', '.join(known)}" if known else f"; {dotted(loc)} is a single value"


def _put(data: dict[str, Any], loc: Loc, value: Any, place: str) -> None:
    inner: Any = data
    for depth, part in enumerate(loc):
        last = depth == len(loc) - 1
        here = dotted(loc[:depth])
        if isinstance(part, int):
            if not isinstance(inner, list) or part >= len(inner):
                size = f"a list of {len(inner)}" if isinstance(inner, list) else "not a list"
                raise ConfigError(f"{place}: {here} is {size} in the file; set the whole list instead")
        elif not isinstance(inner, dict):
            raise ConfigError(f"{place}: expected a mapping at {here} in the file; got {shown(inner)}")
        if last:
            inner[part] = value
        elif isinstance(part, str) and inner.get(part) is None:
            inner[part] = _default(part) if depth == 0 and isinstance(loc[1], int) else {}
        inner = inner[part]


def _default(name: str) -> Any:
    """What a list that the file leaves out has in it."""
    return SearchConfig.model_validate({"name": "default"}).to_json()[name]
