"""Layer by layer, dense against pruned: a pure table from graphs and times.

Variants may be cut into steps differently (what is fused depends on shapes), so a row is the smallest set of layers
that is whole steps in every variant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from device_farm.bench.timing import Timed, Timings, without_details
from device_farm.compiler.graph import Activate, Activation, Conv2d, DepthwiseConv2d, Graph, Op, Pool2d, Shape
from device_farm.measurement.codec import measurement_to_json

SCHEMA = 1


@dataclass(frozen=True)
class Cell:
    """One row in one variant. GFLOP/s count the multiply-adds that are left; Winograd needs fewer, so it may beat 1."""

    ms: float
    kept_macs: int
    gflops: float
    share_of_peak: float
    speedup: float  # dense time / this time


@dataclass(frozen=True)
class Row:
    """Layers that run as one step, or as a few."""

    layers: tuple[str, ...]
    operator: str
    input_shape: tuple[int, int, int]  # height, width, channels; of the dense network
    output_shape: tuple[int, int, int]
    cells: Mapping[str, Cell]  # by variant


@dataclass(frozen=True)
class Total:
    """A whole network. `latency_ms` is measured as one pass; `steps_ms` is the sum of its layers' own times."""

    label: str
    asked_rate: float | None
    achieved_rate: float  # dense multiply-adds / those that are left, of the whole network
    kept_macs: int
    latency_ms: float
    ci_low_ms: float
    ci_high_ms: float
    steps_ms: float
    gflops: float
    share_of_peak: float
    speedup: float  # median of the rounds
    max_relative_error: float  # of the device's output against the host's reference
    quiet: bool


@dataclass(frozen=True)
class Report:
    network: str
    scheme: str
    source_error: float | None
    checked_with: str | None
    timings: Timings
    macs: int
    rows: tuple[Row, ...]
    totals: tuple[Total, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything: the table, and the measurements that it comes from."""
        timings = self.timings
        return {
            "schema": SCHEMA,
            "network": self.network,
            "scheme": self.scheme,
            "macs": self.macs,
            "source_error": self.source_error,
            "checked_with": self.checked_with,
            "device": asdict(without_details(timings.device)),
            "target": timings.target,
            "peak": asdict(timings.peak) | {"gflops": timings.peak.gflops},
            "totals": [asdict(total) for total in self.totals],
            "layers": [asdict(row) for row in self.rows],
            "measurements": {
                timed.variant.label: [measurement_to_json(m) for m in timed.measurements] for timed in timings.timed
            },
        }


def make_report(
    timings: Timings, *, network: str, scheme: str, source_error: float | None = None, checked_with: str | None = None
) -> Report:
    """The table of some timings, the first of which is the dense network's."""
    dense = timings.timed[0]
    graph = dense.variant.graph
    names = [op.name for op in graph.ops[1:]]
    groups = _groups(names, [[_layers(name, names) for name, _ in timed.steps_ms] for timed in timings.timed])
    rows = tuple(_row(group, timings) for group in groups)
    totals = tuple(_total(timed, dense, timings.peak.gflops) for timed in timings.timed)
    return Report(network, scheme, source_error, checked_with, timings, graph.macs, rows, totals)


def _layers(step: str, names: Iterable[str]) -> tuple[str, ...]:
    """The layers of a step, by its name: one layer's, or those of a fused block joined by plus signs."""
    known = set(names)
    if step in known:
        return (step,)
    parts = tuple(step.split(" + "))
    return parts if set(parts) <= known else (step,)


def _groups(names: Sequence[str], variants: Sequence[Sequence[tuple[str, ...]]]) -> list[tuple[str, ...]]:
    """Layers that any variant runs in one step, in the order of the network."""
    group: dict[str, tuple[str, ...]] = {name: (name,) for name in names}
    for steps in variants:
        for layers in steps:
            known = [layer for layer in layers if layer in group]
            joined = {member for layer in known for member in group[layer]}
            merged = tuple(name for name in names if name in joined)
            group.update(dict.fromkeys(merged, merged))
    return list(dict.fromkeys(group.values()))


def _row(layers: tuple[str, ...], timings: Timings) -> Row:
    graph = timings.timed[0].variant.graph
    ops = [op for op in graph.ops if op.name in layers]
    first = next((op for op in ops if op.inputs), ops[0])
    dense_ms = _step_ms(timings.timed[0], layers)
    cells = {
        timed.variant.label: _cell(timed, layers, dense_ms=dense_ms, peak=timings.peak.gflops)
        for timed in timings.timed
    }
    shapes = graph.shapes
    return Row(layers, _operator(ops, graph), _plain(shapes[first.inputs[0]]), _plain(shapes[ops[-1].name]), cells)


def _cell(timed: Timed, layers: tuple[str, ...], *, dense_ms: float, peak: float) -> Cell:
    graph = timed.variant.graph
    kept = sum(op.kept_macs(*graph.input_shapes(op)) for op in graph.ops if op.name in layers)
    ms = _step_ms(timed, layers)
    gflops = _gflops(kept, ms)
    return Cell(ms, kept, gflops, gflops / peak, dense_ms / ms if ms else 1.0)


def _step_ms(timed: Timed, layers: tuple[str, ...]) -> float:
    return sum(ms for name, ms in timed.steps_ms if set(_layers(name, layers)) <= set(layers))


def _total(timed: Timed, dense: Timed, peak: float) -> Total:
    graph, best = timed.variant.graph, timed.best
    gflops = _gflops(graph.kept_macs, best.latency_ms)
    return Total(
        label=timed.variant.label,
        asked_rate=timed.variant.rate,
        achieved_rate=dense.variant.graph.macs / graph.kept_macs if graph.kept_macs else 1.0,
        kept_macs=graph.kept_macs,
        latency_ms=best.latency_ms,
        ci_low_ms=best.ci_low_ms,
        ci_high_ms=best.ci_high_ms,
        steps_ms=sum(ms for _, ms in timed.steps_ms),
        gflops=gflops,
        share_of_peak=gflops / peak,
        speedup=dense.over(timed),
        max_relative_error=max(m.max_relative_error for m in timed.measurements),
        quiet=bool(best.conditions["quiet"]),
    )


def _gflops(macs: int, ms: float) -> float:
    return 2 * macs / ms / 1e6 if ms else 0.0


def _plain(shape: Shape) -> tuple[int, int, int]:
    return shape.height, shape.width, shape.channels


def _operator(ops: Sequence[Op], graph: Graph) -> str:
    """3x3/2 relu6; dw 5x5; 1x1 + dw 3x3 + 1x1 for a fused block; fc; max 3x3/2"""
    return " + ".join(_described(op, graph) for op in ops)


def _described(op: Op, graph: Graph) -> str:
    words = [op.kind.replace("_", " ")]
    if isinstance(op, Conv2d | DepthwiseConv2d):
        words = [_window(op.kernel, op.stride)]
        if isinstance(op, DepthwiseConv2d):
            words.insert(0, "dw")
        elif op.kernel == tuple(graph.shapes[op.inputs[0]][:2]) and not any(op.padding):
            words = ["fc"]
        if op.dilation != (1, 1):
            words.append(f"dilated {op.dilation[0]}" if len(set(op.dilation)) == 1 else f"dilated {op.dilation}")
        if isinstance(op, Conv2d):
            words += [f"groups {op.groups}"] if op.groups > 1 else []
            words += ["+ sum"] if len(op.inputs) == 2 else []
    elif isinstance(op, Pool2d):
        whole = op.kernel == tuple(graph.shapes[op.inputs[0]][:2])
        words = ["global" if whole else _window(op.kernel, op.stride), op.pool.value]
    activation = getattr(op, "activation", Activation.NONE)
    if isinstance(op, Activate):
        words = []
    return " ".join([*words, *([str(activation)] if activation is not Activation.NONE else [])])


def _window(kernel: tuple[int, int], stride: tuple[int, int]) -> str:
    text = f"{kernel[0]}x{kernel[1]}"
    if stride == (1, 1):
        return text
    return f"{text}/{stride[0]}" if stride[0] == stride[1] else f"{text}/{stride[0]}x{stride[1]}"
