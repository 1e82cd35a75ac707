"""A chapter for results without one of their own: their records as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.pages.markdown import Chapter, command, machine, table

ENVELOPE = {"schema", "benchmark", "arguments", "machine"}
COLUMNS = 10


def chapter(document: Mapping[str, Any], *, title: str, words: str) -> Chapter:
    """Every list of records becomes a table, and single figures one together."""
    body = {key: value for key, value in document.items() if key not in ENVELOPE}
    return Chapter("\n\n".join([f"## {title}", words, machine(document), command(document), *_tables(body)]))


def _tables(value: Mapping[str, Any], path: str = "") -> Iterator[str]:
    single = {key: figure for key, figure in value.items() if _is_figure(figure)}
    if single:
        yield table(("figure", "value"), [(f"{path}{key}", _shown(figure)) for key, figure in single.items()])
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _tables(inner, f"{path}{key} / ")
        elif isinstance(inner, list) and inner and all(isinstance(item, Mapping) for item in inner):
            yield from _records(inner, f"{path}{key}")


def _records(records: list[Mapping[str, Any]], path: str) -> Iterator[str]:
    flat = [dict(_flat(record)) for record in records]
    columns = list(dict.fromkeys(key for record in flat for key in record))[:COLUMNS]
    if columns:
        rows = [[_shown(record.get(column, "-")) for column in columns] for record in flat]
        yield f"**{path}**\n\n" + table(columns, rows)


def _flat(record: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}.")
        elif _is_figure(value):
            yield f"{path}{key}", value


def _is_figure(value: object) -> bool:
    return value is None or isinstance(value, str | int | float)


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)
