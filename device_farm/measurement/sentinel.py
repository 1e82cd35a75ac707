"""The sentinel: one small network that runs beside every measurement, so that a device is compared with itself.

How a farm gives a `Meter` its sentinel
---------------------------------------
**Who compiles.** The farm, once for each (target, threads) of its devices, like any network and without weights:

    artifact = compile_network(sentinel_graph(), target=TARGETS[facts.target], threads=facts.threads, ...)

Its executable must lie on the disk of the device's host (`artifact.path`) as long as the meter lives: it is pushed when
the device does not have it, and it stays there, under its content's name.

**Who remembers.** The farm, for each (serial, artifact.key): a compiler of another version makes another sentinel, and
that takes another time. The meter is made with what is remembered, or with None on the first day:

    sentinel = Sentinel.remembering(artifact, baseline, model_ms=of_its_model)
    meter = Meter(transport, sentinel=sentinel, rules=AdmissionRules())

With None the first `measure` takes `BASELINE_READINGS` readings (about 0.1 s each) of the admitted device and makes
them its baseline; `meter.calibrate()` does so on demand, and forgets the old one. After every call, also one that
raised, the farm stores `meter.baseline` if it has changed (it is None until there is one; `codec.baseline_to_json`): it
changes when it is first taken, on `calibrate`, and when `STALE_READINGS` readings in a row are faster than it. That of
another sentinel's artifact is not believed. A bare `Sentinel(artifact, baseline_ms)` will do, too: the first reading
near it then finds the core's clock, and nothing is corrected before.

**Its model.** `drift.baseline_of_model({serial: baseline_ms, ...})` compares phones of one model, and names those that
were slow from the start. Its `baseline_ms` is what `model_ms` wants: a phone whose own baseline is off it by more than
`protocol.max_drift` is `Unfit` with these words. None (fewer than three phones) leaves that out.

**What comes back.** `measurement.conditions["sentinel"]`: `{"key", "baseline_ms", "readings_ms", "drift", "corrected",
"uncorrected_ms", "of_model"}`, and `["device_before"]`, `["device_after"]`: `DeviceConditions` by `codec.py`.
Errors of the sentinel itself are the device's, never the candidate's: `Unfit`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from device_farm.compiler.artifact import Artifact
from device_farm.compiler.graph import (
    Activation,
    BlockSparsity,
    Conv2d,
    DepthwiseConv2d,
    Graph,
    Input,
    Op,
    Padding,
    Pool2d,
    PoolKind,
    Shape,
)
from device_farm.measurement.drift import Baseline
from device_farm.measurement.types import Protocol

# Short, as it is paid by every measurement.
SENTINEL_PROTOCOL = Protocol(
    warmup_s=0.02, min_time_s=0.05, max_time_s=0.3, min_samples=20, max_samples=2000, attempts=3, max_relative_ci=0.10
)


@dataclass(frozen=True)
class Sentinel:
    """`sentinel_graph` compiled for a device, and what it takes there at its best. Raises ValueError."""

    artifact: Artifact
    baseline_ms: float | None = None  # None: the meter takes it
    spin_ns: float | None = None  # the core's clock beside that baseline, as the runner tells it
    model_ms: float | None = None  # of the median phone of its model, if that is known
    protocol: Protocol = field(default=SENTINEL_PROTOCOL)

    @classmethod
    def remembering(cls, artifact: Artifact, baseline: Baseline | None, *, model_ms: float | None = None) -> Sentinel:
        """With what a meter's `baseline` was; None, or that of another artifact: the meter takes it anew."""
        if baseline is None or baseline.artifact_key != artifact.key:
            return cls(artifact, model_ms=model_ms)
        return cls(artifact, baseline.baseline_ms, baseline.spin_ns, model_ms)

    def __post_init__(self) -> None:
        for name in ("baseline_ms", "spin_ns", "model_ms"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be above 0, got {value}")


def sentinel_graph() -> Graph:
    """A network of 6 M multiply-adds and 2.3 MB of weights, the same for every target.

    In parts like those that are measured beside it: a 3x3 stem, an inverted residual (1x1, depthwise, 1x1), dense and
    pruned 3x3, a pruned 1x1, and a fully connected layer whose weights do not fit a second-level cache. So it feels the
    clock (most of its time), the caches and the memory. Do not change it without need: every baseline is bound to it.
    """
    relu = Activation.RELU
    same = Padding.same(3)
    ops: tuple[Op, ...] = (
        Input("image", (), Shape(64, 64, 3)),
        Conv2d("stem", ("image",), filters=16, kernel=(3, 3), stride=(2, 2), padding=same, activation=relu),
        Conv2d("expand", ("stem",), filters=64, activation=relu),
        DepthwiseConv2d("depthwise", ("expand",), stride=(2, 2), padding=same, activation=relu),
        Conv2d("project", ("depthwise",), filters=32),
        Conv2d("dense", ("project",), filters=32, kernel=(3, 3), padding=same, activation=relu),
        Conv2d(
            "punched",
            ("dense",),
            filters=64,
            kernel=(3, 3),
            stride=(2, 2),
            padding=same,
            activation=relu,
            sparsity=BlockSparsity(8, (96,) * 8),
        ),
        Conv2d("blocked", ("punched",), filters=256, activation=relu, sparsity=BlockSparsity(8, (32,) * 32)),
        Pool2d("pool", ("blocked",), pool=PoolKind.MAX, kernel=(4, 4), stride=(4, 4)),
        Conv2d("head", ("pool",), filters=500, kernel=(2, 2)),
    )
    return Graph(ops)
