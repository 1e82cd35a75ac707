"""The tables and bars of `networks.py`, made from a result alone, so that committed JSON can be read again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks._harness import Timing, table
from benchmarks.peers import PEERS

TOLERANCE = 1e-4
BASE = "onnxruntime"
DENSE_BARS = {"mobilenet_v2": 1.15, "resnet18": 1.5, "resnet50": 1.2}  # least speed-up over the best peer; others: 1
PRUNED_BARS = {"mobilenet_v2": 0.27, "resnet18": 0.23, "resnet50": 0.25}  # most time at 5x, of ONNX Runtime's dense
FUSED_BARS = {"mobilenet_v2": 0.83}  # most time of the fused network at 5x, of the unfused


@dataclass(frozen=True)
class Ratio:
    """Of two times: by their best rounds, and as the median over the rounds that both ran in."""

    best: float
    paired: float

    def __str__(self) -> str:
        return f"{self.best:.3f} / {self.paired:.3f}"


def timings(result: Mapping[str, Any]) -> dict[str, Timing]:
    return {label: Timing(tuple(timing["rounds_ms"])) for label, timing in result["timings"].items()}


def ratio(longer: Timing, shorter: Timing) -> Ratio:
    return Ratio(longer.ms / shorter.ms, longer.over(shorter))


def print_network(result: Mapping[str, Any]) -> None:
    """Peers first, then ours by rate."""
    times = timings(result)
    print(
        f"\n{result['network']} {result['pixels']}x{result['pixels']}, {result['macs'] / 1e6:.0f} M MACs, "
        f"{result['target']}, one core, {result['rounds']} rounds; ratios: best rounds / median of paired rounds"
    )
    dense = times.get("dense")
    rows: list[Sequence[object]] = []
    for name in (name for name in PEERS if name in times):
        peer = times[name]
        over = str(ratio(peer, dense)) if dense else "-"
        rows.append((
            PEERS[name].title, f"{result['macs'] / 1e6:.0f}", peer.ms, peer.typical_ms,
            _gflops(result["macs"], peer.ms), over, "-", "-", f"{result['relative_errors'][name]:.1e}",
        ))  # fmt: skip
    for label, kept in result["kept_macs"].items():
        ours, unfused = times[label], times.get(f"{label} unfused")
        rows.append((
            f"ours {label}", f"{kept / 1e6:.0f}", ours.ms, ours.typical_ms, _gflops(kept, ours.ms),
            "-", str(ratio(ours, times[BASE])) if BASE in times else "-", str(ratio(ours, unfused)) if unfused else "-",
            f"{result['relative_errors'][label]:.1e}",
        ))  # fmt: skip
    header = (
        "", "kept M MACs", "best ms", "typical", "GFLOP/s", "x ours dense", "of ORT dense", "of unfused", "rel. error",
    )  # fmt: skip
    print(table(header, rows))
    for name, why in result["absent_peers"].items():
        print(f"left out: {PEERS[name].title}: {why}")


@dataclass(frozen=True)
class Bar:
    """What the project promises and whether a run shows it."""

    text: str
    held: bool
    timed: bool = True  # a quick look cannot tell


def bars(result: Mapping[str, Any]) -> list[Bar]:
    """Both kinds of a ratio must hold a bar."""
    name, times = result["network"], timings(result)
    ours = {label: error for label, error in result["relative_errors"].items() if label not in PEERS}
    made = [Bar(f"relative error at most {TOLERANCE:g}", max(ours.values()) <= TOLERANCE, timed=False)]
    peers = [peer for peer in PEERS if peer in times]
    if "dense" in times and peers:
        ratios = {peer: ratio(times[peer], times["dense"]) for peer in peers}
        best = min(ratios, key=lambda peer: min(ratios[peer].best, ratios[peer].paired))
        least = DENSE_BARS.get(name, 1.0)
        text = f"dense: x{ratios[best]} of the best of {len(peers)} peers, {PEERS[best].title}; at least {least:g}"
        made.append(Bar(text, min(ratios[best].best, ratios[best].paired) >= least))
    if name in PRUNED_BARS and "5x" in times and BASE in times:
        parts = [ratio(times[label], times[BASE]) for label in ("5x", "5x kernels") if label in times]
        shown = ", by whole kernels in ".join(map(str, parts))
        text = f"5x: in {shown} of ONNX Runtime's dense time; at most {PRUNED_BARS[name]:g}"
        made.append(Bar(text, min(max(part.best, part.paired) for part in parts) <= PRUNED_BARS[name]))
    if name in FUSED_BARS and "5x unfused" in times:
        part = ratio(times["5x"], times["5x unfused"])
        text = f"5x: fused in {part} of the unfused time; at most {FUSED_BARS[name]:g}"
        made.append(Bar(text, max(part.best, part.paired) <= FUSED_BARS[name]))
    return made


def slowest_steps(result: Mapping[str, Any], label: str, count: int = 8) -> str:
    """Where the time of one artifact goes."""
    steps = sorted(result["profiles"][label], key=lambda step: -step["median_ns"])
    total = sum(step["median_ns"] for step in steps)
    rows = []
    for step in steps[:count]:
        ns = step["median_ns"]
        rows.append((step["name"], step["kind"], ns / 1e6, f"{ns / total:.1%}", _gflops(step["kept_macs"], ns / 1e6)))
    return table(("slowest steps, " + label, "kind", "ms", "share", "GFLOP/s"), rows)


def _gflops(macs: int, ms: float) -> str:
    return f"{2 * macs / ms / 1e6:.0f}"
