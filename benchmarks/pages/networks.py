"""Whole networks: ours against every peer, and what pruning brings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks import _svg
from benchmarks._network_report import BASE, bars, ratio, timings
from benchmarks.pages.markdown import Chapter, command, machine, table
from benchmarks.peers import PEERS


def chapter(document: Mapping[str, Any]) -> Chapter:
    results = document["results"]
    parts = [
        "## Whole networks",
        "One thread, fp32, batch 1, 224x224; all rows of a network were timed in turns. ms of the least disturbed "
        "round (10th percentile of its samples) and, in brackets, of the median round. `x ours`: how many times longer "
        "than our dense artifact; `of ORT`: which part of ONNX Runtime's dense time. Ratios: best / median round.",
        machine(document), command(document),
        "![Dense networks: time of every engine over ours](performance/networks_dense.svg)",
        "![Pruned networks: speed-up over ONNX Runtime dense](performance/networks_pruned.svg)",
        *[_network(result, document.get("peak_gflops")) for result in results],
        "### Bars", _bars(results), "### Peers", _peers(document),
    ]  # fmt: skip
    return Chapter(
        "\n\n".join(parts), {"networks_dense.svg": _dense(document), "networks_pruned.svg": _pruned(document)}
    )


def _network(result: Mapping[str, Any], peak: float | None) -> str:
    times = timings(result)
    dense = times.get("dense")

    def row(name: str, label: str, macs: int) -> list[str]:
        timing = times[label]
        gflops = 2e-6 * macs / timing.ms
        return [
            name, f"{timing.ms:.2f} ({timing.typical_ms:.2f})", f"{gflops:.0f}",
            f"{gflops / peak:.0%}" if peak else "-",
            str(ratio(timing, dense)) if dense and label in PEERS else "-",
            str(ratio(timing, times[BASE])) if BASE in times and label != BASE else "-",
            str(ratio(timing, times[f"{label} unfused"])) if f"{label} unfused" in times else "-",
            f"{result['relative_errors'][label]:.0e}",
        ]  # fmt: skip

    rows = [row(PEERS[name].title, name, result["macs"]) for name in PEERS if name in times]
    rows += [row(f"**ours {label}**", label, kept) for label, kept in result["kept_macs"].items()]
    header = ("", "ms", "GFLOP/s", "of peak", "x ours", "of ORT", "of unfused", "rel. error")
    left_out = [f"Left out: {PEERS[name].title}: {why}." for name, why in result["absent_peers"].items()]
    return "\n\n".join([f"### {result['network']}, {result['macs'] / 1e6:.0f} M MACs", table(header, rows), *left_out])


def _bars(results: list[Mapping[str, Any]]) -> str:
    checked = [(result["network"], bar) for result in results for bar in bars(result)]
    rows = [(network, bar.text, "held" if bar.held else "**missed**") for network, bar in checked]
    return table(("network", "bar", ""), rows)


KERNELS = " kernels"  # behind a rate: what _network_builds.py calls whole kernels


def _peers(document: Mapping[str, Any]) -> str:
    rows = [
        (PEERS[name].title, peer["version"] or "not installed", peer["settings"])
        for name, peer in document["peers"].items()
    ]
    return table(("peer", "version", "run with"), rows)


def _dense(document: Mapping[str, Any]) -> str:
    groups = {}
    for result in document["results"]:
        times = timings(result)
        if "dense" in times:
            ours = {"ours": 1.0}
            groups[result["network"]] = ours | {
                PEERS[name].title: times[name].over(times["dense"]) for name in PEERS if name in times
            }
    return _svg.bars("Dense, one thread: time over ours (longer is slower)", groups, unit="x ours", mark=1.0)


def _pruned(document: Mapping[str, Any]) -> str:
    series: dict[str, list[tuple[float, float]]] = {}
    for result in document["results"]:
        times = timings(result)
        if BASE in times:
            for label in result["kept_macs"]:
                kernels = label.endswith(KERNELS)
                rate = 1.0 if label == "dense" else float(label.removesuffix(KERNELS).rstrip("x"))
                if kernels and not result["network"].startswith("resnet"):
                    continue  # where 3x3 layers are few
                name = result["network"] + " by whole kernels" * kernels
                series.setdefault(name, []).append((rate, times[BASE].over(times[label])))
    title = "Pruned: speed-up over ONNX Runtime dense"
    return _svg.lines(title, series, axes=("pruning rate of every layer but the stem", "x faster"), diagonal="rate")
