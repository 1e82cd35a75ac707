"""Single layers: dense against ONNX Runtime, pruned against our own direct dense."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import _svg
from benchmarks.pages.markdown import Chapter, command, machine, table


def chapter(document: Mapping[str, Any]) -> Chapter:
    results = document["results"]
    rows = [
        (
            one["layer"], one["network"], f"{one['onnxruntime_us']:.0f}", f"{dense['us']:.0f}",
            f"{dense['share_of_peak']:.0%}", f"{dense['over_onnxruntime']:.2f}",
        )
        for one in results
        for dense in [one["variants"]["dense"]]
    ]  # fmt: skip
    schemes = list(dict.fromkeys(label for one in results for label in one["variants"]))
    pruned = [label for label in schemes if label not in ("dense", "direct")]
    means = [
        (label, *[_mean(results, label, key) for key in ("over_direct", "efficiency", "share_of_peak")])
        for label in pruned
    ]
    peak = max(one["peak_gflops"] for one in results)
    parts = [
        "## Single layers",
        f"The kernel alone, one thread, by both sides' own profile; {len(results)} layers. The share is that of the "
        f"multiply-adds a second that a loop of them reached in the same run, {peak:.0f} GFLOP/s, and counts those "
        "of the plain convolution, so Winograd may exceed it.",
        machine(document), command(document),
        "![Share of the measured peak](performance/kernels.svg)",
        table(("layer", "network", "ONNX Runtime us", "ours us", "of peak", "x ONNX Runtime"), rows),
        "Pruned, geometric means over the layers, each standing alone; efficiency is speed-up over the rate that was "
        "really reached:",
        table(("scheme, block height, rate", "x direct dense", "efficiency", "of peak"), means),
    ]  # fmt: skip
    return Chapter("\n\n".join(parts), {"kernels.svg": _plot(results)})


def _mean(results: Sequence[Mapping[str, Any]], label: str, key: str) -> str:
    values = [one["variants"][label][key] for one in results if key in one["variants"].get(label, {})]
    return f"{statistics.geometric_mean(values):.2f}" if values else "-"


def _plot(results: Sequence[Mapping[str, Any]]) -> str:
    groups = {
        one["layer"]: {
            "ours": one["variants"]["dense"]["share_of_peak"], "ONNX Runtime": one["onnxruntime_share_of_peak"],
        }
        for one in results
    }  # fmt: skip
    return _svg.bars("Dense layers: share of the measured peak", groups, unit="of peak", mark=1.0)
