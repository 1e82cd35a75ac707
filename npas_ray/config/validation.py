"""Plain data -> SearchConfig, or one line for every problem: place, expected, got, nearest valid name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from npas_ray.config.devices import KINDS, OWN_KINDS
from npas_ray.config.models import SearchConfig
from npas_ray.config.schema import Root, all_paths, keys_at
from npas_ray.config.section import Section
from npas_ray.config.words import Loc, did_you_mean, dotted, nearest, printable, shown
from npas_ray.errors import ConfigError

Places = Mapping[Loc, str]  # location -> where it was written: "demo.yaml:7" or "--set seed=x"


S = TypeVar("S", bound=Section)


def validated(data: Any, *, name: str, places: Places | None = None) -> SearchConfig:
    """The search that plain data describes. Raises ConfigError; what has no place is placed at `name`."""
    return validated_as(SearchConfig, data, name=name, places=places)


def validated_as(root: type[S], data: Any, *, name: str, places: Places | None = None) -> S:
    """The same for any kind of file."""
    try:
        return root.model_validate(data)
    except ValidationError as error:
        order = {loc: index for index, loc in enumerate(places or {})}
        details: list[dict[str, Any]] = [dict(detail) for detail in error.errors()]
        details.sort(
            key=lambda detail: order.get(_written(tuple(detail["loc"])), len(order))
        )  # as they stand in the file
        problems = [_problem(detail, name=name, places=places or {}, root=root) for detail in details]
        raise ConfigError("\n".join(dict.fromkeys(problems))) from None


def _problem(detail: dict[str, Any], *, name: str, places: Places, root: Root) -> str:
    context = detail.get("ctx", {})
    loc: Loc = _written(tuple(detail["loc"])) + tuple(context.get("at", ()))
    if detail["type"] in ("union_tag_invalid", "union_tag_not_found"):
        loc = (*loc, "kind")
    where = f"{_place(loc, places) or name}: {dotted(loc) or 'the configuration'}"
    kind = detail["type"]
    if kind == "extra_forbidden":
        return f"{where}: unknown key{_nearest_key(loc, root)}"
    if kind == "missing":
        return f"{where}: expected a value; got nothing"
    kinds = KINDS if root is SearchConfig else OWN_KINDS
    if kind == "union_tag_not_found":
        return f"{where}: expected one of {', '.join(kinds)}; got nothing"
    got = context["got"] if "got" in context else detail["input"]
    if kind == "union_tag_invalid":
        got = got["kind"]
        context = {"expected": f"one of {', '.join(kinds)}", "names": kinds}
        kind = "refused"
    if kind == "refused":
        expected = context["expected"]
    elif kind in ("model_type", "model_attributes_type", "dict_type", "mapping_type"):
        expected = f"a mapping with the keys {', '.join(keys_at(loc, root) or ())}"
    else:
        expected = f"something else ({detail['msg']})"
    names = tuple(context.get("names", ()))
    hint = did_you_mean(got, names) if isinstance(got, str) and names else ""
    return f"{where}: expected {expected}; got {shown(got)}{hint}"


def _written(loc: Loc) -> Loc:
    """Without the kind that pydantic puts behind a device's number."""
    return (*loc[:2], *loc[3:]) if loc[:1] == ("devices",) and len(loc) > 2 and loc[2] in KINDS else loc


def _place(loc: Loc, places: Places) -> str | None:
    """Where the nearest enclosing part was written."""
    for length in range(len(loc), 0, -1):
        if loc[:length] in places:
            return places[loc[:length]]
    return None


def _nearest_key(loc: Loc, root: Root) -> str:
    """A hint for an unknown key: its nearest sibling, else the same key elsewhere, else what there is."""
    key, siblings = str(loc[-1]), keys_at(loc[:-1], root) or ()
    near = nearest(key, siblings)
    if near is None:
        near = next((path for path in all_paths(root) if path.rsplit(".", 1)[-1] == key), None)
    if near is not None:
        return f"; did you mean '{printable(near)}'?"
    return f"; expected one of {', '.join(siblings)}"
