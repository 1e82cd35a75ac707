"""A configuration file and overrides -> SearchConfig."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from npas_ray.config.document import read_document
from npas_ray.config.models import SearchConfig
from npas_ray.config.overrides import apply
from npas_ray.config.schema import keys_at
from npas_ray.config.validation import validated
from npas_ray.config.words import Loc


def load_config(path: Path, overrides: Sequence[str] = ()) -> SearchConfig:
    """The search that a YAML file describes, with overrides such as "training.epochs=3" put on top.

    A search without a name is called like its file; an empty section is a section of defaults. Raises ConfigError
    with one line for every problem: place (file:line, or the override), path, what was expected, what was got, and
    the nearest valid name.
    """
    document = read_document(path)
    data = {key: {} if value is None and keys_at((key,)) else value for key, value in document.data.items()}
    places: dict[Loc, str] = {loc: f"{document.name}:{line}" for loc, line in document.lines.items()}
    for loc, place in apply(data, overrides).items():
        places = {old: where for old, where in places.items() if old[: len(loc)] != loc} | {loc: place}
    if "name" not in data and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", path.stem):
        data["name"] = path.stem
    return validated(data, name=document.name, places=places)
