"""The most that a core can do: independent chains of fused multiply-adds, no memory in the loop."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from device_farm.compiler.kernels.emit import Emitter, loop, sequence
from device_farm.compiler.kernels.spec import PeakKernel
from device_farm.compiler.target import Target


def emit(spec: PeakKernel, symbol: str, target: Target) -> Any:
    """chain = chain / 2 + x / 2, `rounds` times: every chain ends at x, so the answer can be checked."""
    e = Emitter(spec, target)
    half, step = e.splat(0.5), e.vector("step")
    chains = [e.accumulator(f"chain_{index}") for index in range(spec.chains)]
    mean = e.load(chains[0])
    for chain in chains[1:]:
        mean = mean + e.load(chain)
    body = sequence(
        tirx.Bind(step, e.load(e.x) * half),
        [tirx.AllocBuffer(chain) for chain in chains],
        [e.store(chain, e.splat(1.0 + index)) for index, chain in enumerate(chains)],
        loop("round", e.rounds, lambda _: sequence([e.store(c, e.load(c) * half + step) for c in chains])),
        e.store(e.y, mean * e.splat(1.0 / spec.chains)),
    )
    return e.function(symbol, body)
