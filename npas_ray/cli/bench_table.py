"""The report of a bench as text: a table that fits a terminal, or plain aligned lines for pipes."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from npas_ray.config.words import printable

if TYPE_CHECKING:
    from device_farm.bench.report import Cell, Report, Row, Total

_NAME = 34  # characters of a layer's name
_OPERATOR = 40
_NUMBERS = 4  # the first columns are text


def print_report(report: Report, *, top: int | None = None, stream: TextIO | None = None) -> None:
    """Prints to `stream` (default: stdout). `top` keeps the slowest rows of the dense network, in their order."""
    stream = sys.stdout if stream is None else stream
    rows, left_out = _chosen(report, top)
    header, lines = _layers(report, rows)
    summary, totals = _totals(report)
    for line in _head(report):
        print(line, file=stream)
    if stream.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        _rich(header, lines, stream)
        print(_left_out(report, left_out), end="", file=stream)
        _rich(summary, totals, stream)
    else:
        print("\n" + _plain(header, lines) + "\n" + _left_out(report, left_out), file=stream)
        print(_plain(summary, totals), file=stream)
    for line in _notes(report):
        print(line, file=stream)


def _head(report: Report) -> list[str]:
    timings, image = report.timings, report.rows[0].input_shape if report.rows else (0, 0, 0)
    device, peak = timings.device, timings.peak
    threads = "one thread" if device.threads == 1 else f"{device.threads} threads"
    processor = device.details.get("processor")
    what = f"{device.serial}{f' ({processor})' if processor else ''}{', EMULATED' if device.emulated else ''}"
    known = (
        "" if peak.now_gflops > 0.97 * peak.gflops else f" ({peak.now_gflops:.1f} now: the core is shared or slower)"
    )
    lines = [
        f"{report.network}: {_shape(image)}, {report.macs / 1e6:.1f} M multiply-adds, {len(report.rows)} rows",
        f"on {what}, compiled for {timings.target}, {threads}, peak {peak.gflops:.1f} GFLOP/s{known}",
    ]
    if report.source_error is not None:
        lines.append(f"our graph against {report.checked_with}: relative difference {report.source_error:.1e}")
    else:
        lines.append("our graph was not compared with its source: pip install onnxruntime for that")
    return [printable(line) for line in lines]


def _layers(report: Report, rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    dense, *others = report.totals
    header = ["layer", "operator", "in", "out", f"{dense.label} us", "GFLOP/s", "peak"]
    for total in others:
        header += [f"{total.label} us", "x", "peak"]
    return header, [_line(row, dense, others) for row in rows]


def _line(row: Row, dense: Total, others: Sequence[Total]) -> list[str]:
    cell = row.cells[dense.label]
    line = [
        _cut(_name(row.layers), _NAME), _cut(row.operator, _OPERATOR),
        _shape(row.input_shape), _shape(row.output_shape),
        _us(cell.ms), f"{cell.gflops:.0f}" if cell.kept_macs else "-", _share(cell),
    ]  # fmt: skip
    for total in others:
        cell = row.cells[total.label]
        line += [_us(cell.ms), f"{cell.speedup:.2f}", _share(cell)]
    return line


def _totals(report: Report) -> tuple[list[str], list[list[str]]]:
    header = [
        "network", "asked", "multiply-adds", "fewer", "latency ms", "95 % interval", "x dense", "GFLOP/s", "peak",
        "layers' sum ms", "rel. error",
    ]  # fmt: skip
    lines = [
        [
            f"{total.label}{'' if total.quiet else ' *'}",
            "-" if total.asked_rate is None else f"{total.asked_rate:g}x",
            f"{total.kept_macs / 1e6:.1f} M",
            f"{total.achieved_rate:.2f}x",
            f"{total.latency_ms:.4g}",
            f"{total.ci_low_ms:.4g}..{total.ci_high_ms:.4g}",
            f"{total.speedup:.2f}",
            f"{total.gflops:.0f}",
            f"{total.share_of_peak:.0%}",
            f"{total.steps_ms:.4g}",
            f"{total.max_relative_error:.1e}",
        ]
        for total in report.totals
    ]
    return header, lines


def _notes(report: Report) -> list[str]:
    notes = [f"pruned by {report.scheme}; weights from a seed; every answer agrees with the host's reference."]
    if any(cell.share_of_peak > 1.02 for row in report.rows for cell in row.cells.values()):
        notes.append("above 100 %: Winograd does a 3x3 layer with fewer multiply-adds than are counted.")
    if any(total.latency_ms > 1.2 * total.steps_ms for total in report.totals):
        notes.append(
            "a pass took much longer than its layers did in their best rounds: the machine is busy, ask again."
        )
    if not all(total.quiet for total in report.totals):
        notes.append("* something shared the core all the time: read that latency with its interval.")
    return notes


def _chosen(report: Report, top: int | None) -> tuple[Sequence[Row], Sequence[Row]]:
    if top is None or top >= len(report.rows):
        return report.rows, ()
    label = report.totals[0].label
    slowest = {id(row) for row in sorted(report.rows, key=lambda row: -row.cells[label].ms)[:top]}
    return [r for r in report.rows if id(r) in slowest], [r for r in report.rows if id(r) not in slowest]


def _left_out(report: Report, rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    times = ", ".join(
        f"{total.label} {1e3 * sum(row.cells[total.label].ms for row in rows):.1f} us" for total in report.totals
    )
    return f"... and {len(rows)} faster rows: {times}\n"


def _name(layers: Sequence[str]) -> str:
    """features.2.conv.0.0 .. 2 for layers of features.2.conv"""
    if len(layers) == 1:
        return layers[0]
    first, last = layers[0].split("."), layers[-1].split(".")
    shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    return f"{layers[0]} .. {'.'.join(last[shared:])}"


def _share(cell: Cell) -> str:
    return f"{cell.share_of_peak:.0%}" if cell.kept_macs else "-"


def _us(ms: float) -> str:
    return f"{1e3 * ms:.1f}" if ms < 1 else f"{1e3 * ms:.0f}"


def _shape(shape: tuple[int, int, int]) -> str:
    return "x".join(map(str, shape))


def _cut(text: str, width: int) -> str:
    """The end of a name tells more than its beginning."""
    text = printable(text)
    return text if len(text) <= width else "..." + text[3 - width :]


def _plain(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[index]) for line in (header, *lines)) for index in range(len(header))]
    text = len([name for name in header[:_NUMBERS] if name in ("layer", "operator", "in", "out", "network")])
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index < text else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (header, *lines)
    )


def _rich(header: Sequence[str], lines: Sequence[Sequence[str]], stream: TextIO) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1))
    for index, name in enumerate(header):
        text = index < _NUMBERS and name in ("layer", "operator", "in", "out", "network")
        table.add_column(name, justify="left" if text else "right", no_wrap=not text, overflow="fold")
    for line in lines:
        table.add_row(*map(Text, line))
    Console(file=stream, highlight=False).print(table)
