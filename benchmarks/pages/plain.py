"""A chapter for results without one of their own: their records as tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.pages.markdown import Chapter, command, machine, table

ENVELOPE = {"schema", "benchmark", "arguments", "machine"}
COLUMNS = 10


def chapter(document: Mapping[str, Any], *, title: str, words: str) -> Chapter:
    """Single figures, and lists of them as median, least and greatest, in one table; lists of records in their own."""
    body = {key: value for key, value in document.items() if key not in ENVELOPE}
    parts = [f"## {title}", words, machine(document), command(document)]
    if figures := list(_flat(body, " / ")):
        parts.append(table(("figure", "value"), [(name, _shown(figure)) for name, figure in figures]))
    return Chapter("\n\n".join([*parts, *_tables(body)]))


def _tables(value: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _tables(inner, f"{path}{key} / ")
        elif isinstance(inner, list) and inner and all(isinstance(item, Mapping) for item in inner):
            yield from _records(inner, f"{path}{key}")


def _records(records: list[Mapping[str, Any]], path: str) -> Iterator[str]:
    flat = [{name: value for name, value in _flat(record, ".") if not isinstance(value, list)} for record in records]
    columns = list(dict.fromkeys(key for record in flat for key in record))[:COLUMNS]
    if columns:
        rows = [[_shown(record.get(column, "-")) for column in columns] for record in flat]
        yield f"**{path}**\n\n" + table(columns, rows)


def _flat(record: Mapping[str, Any], between: str, path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _flat(value, between, f"{path}{key}{between}")
        elif _is_figure(value) or (isinstance(value, list) and value and all(map(_is_number, value))):
            yield f"{path}{key}", value


def _is_figure(value: object) -> bool:
    return value is None or isinstance(value, str | int | float)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"{_shown(float(statistics.median(value)))} ({_shown(min(value))} to {_shown(max(value))})"
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)
