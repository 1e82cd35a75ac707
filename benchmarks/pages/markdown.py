"""Pieces of a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Chapter:
    """Text of one chapter and the plots that it shows: file name -> SVG."""

    text: str
    plots: Mapping[str, str] = field(default_factory=dict)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """First column to the left, the others to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def machine(document: Mapping[str, Any]) -> str:
    """Where and when a result was taken."""
    host, packages = document["machine"], document["machine"]["packages"]
    versions = ", ".join(f"{name} {version}" for name, version in packages.items() if version)
    return (
        f"*{host['processor']}, {host['cores']} cores ({', '.join(host['simd'])}), load {host['load_1min']:.1f}; "
        f"{host['system']}; Python {host['python']}, {versions}; commit {host['commit']}, {host['taken_at']}*"
    )


def command(document: Mapping[str, Any]) -> str:
    """The line that takes the result again."""
    return "    " + " ".join(["python", f"benchmarks/{document['benchmark']}.py", *document["arguments"]])
