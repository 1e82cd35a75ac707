"""What all sub-commands share: where a run is, and JSON on stdout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from npas_ray.errors import RunError

RUNS = Path("runs")


def find_run(text: str) -> Path:
    """The run that a user means: a directory, or the name of one in runs/. Raises RunError with the nearest name."""
    from npas_ray.config.words import nearest, printable
    from npas_ray.runs.directory import RunDirectory

    path = Path(text)
    if not path.exists() and (RUNS / path.name).is_dir() and text == path.name:
        path = RUNS / path.name
    try:
        return RunDirectory.existing(path).path
    except RunError as error:
        parent = RUNS if text == path.name else path.parent
        near = nearest(path.name, _runs_in(parent))
        hint = f"; did you mean '{printable(str(parent / near))}'?" if near is not None else ""
        raise RunError(f"{error}{hint}") from None


def _runs_in(parent: Path) -> list[str]:
    try:
        return [entry.name for entry in parent.iterdir() if (entry / "journal.sqlite").is_file()]
    except OSError:
        return []


def print_json(data: Any) -> None:
    """One JSON object on stdout; NaN is refused, for no other program reads it."""
    print(json.dumps(data, indent=2, ensure_ascii=True, allow_nan=False))
