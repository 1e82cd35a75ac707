"""A network as the steps that it is timed by: pure lowering, no TVM, nothing compiled.

A step is an operator, or a fused block, on its kernels. Two steps with one key run the same kernels on the same extents
and strides with the same number of taps; only the places of their data differ. So a time that was measured of one,
inside any network, is known of the other. What lies around a step shows in its key where it changes the step itself:
the next layer's border is in the strides, a residual and the way of a convolution (direct, Winograd, fused) in the
kernels.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from device_farm.compiler.fusing import fused_blocks
from device_farm.compiler.graph import Graph
from device_farm.compiler.kernels.spec import INTS_IN
from device_farm.compiler.layout import plan_memory
from device_farm.compiler.living import living_blocks
from device_farm.compiler.lowering import lower
from device_farm.compiler.packing import INTEGER_BYTES, pack
from device_farm.compiler.steps import Call, Place, Step, Table, Variable
from device_farm.compiler.target import Target
from device_farm.compiler.version import digest


@dataclass(frozen=True)
class StepShape:
    """What the time of a step depends on."""

    key: str
    name: str  # of its layers; not a part of the key
    kind: str  # what it is called in the runner's profile, and which kernels it runs
    kept_macs: int
    calls: int  # of kernels
    weight_bytes: int  # weights, taps and pointers that it reads
    image_bytes: int  # activations that it reads and writes


def describe(graph: Graph, target: Target) -> tuple[StepShape, ...]:
    """The steps of the artifact that `compile_network(graph, target=target, ...)` makes, in the profile's order.

    Raises UnsupportedOperator.
    """
    living = living_blocks(graph, target, weights=None, seed=0)
    memory = plan_memory(graph, target, fused_blocks(graph), living)
    packed, parameters = pack(graph, memory, target=target, weights=None, seed=0)
    steps = lower(graph, memory, packed, target)
    sizes = _sizes(steps, target, parameters.bytes)
    return tuple(_shape(step, graph, sizes, target) for step in steps)


def _shape(step: Step, graph: Graph, sizes: dict[int, int], target: Target) -> StepShape:
    first = step.fused[0] if step.fused else step.op
    images = {*first.inputs, *step.op.inputs, step.op.name} - {op.name for op in step.fused}
    emitters = "+".join(dict.fromkeys(call.spec.emitter for call in step.calls))
    extents: list[object] = [step.kind, step.kept_macs, [_call(call) for call in step.calls]]
    if step.bands is not None:
        bands = step.bands
        extents += [bands.rows, bands.output_rows, bands.reach, bands.stride, bands.expanded_rows, len(bands.chunks)]
    return StepShape(
        key=digest([json.dumps(extents)])[:16],
        name=step.name,
        kind=f"{step.kind}/{emitters}",
        kept_macs=step.kept_macs,
        calls=len(step.calls) * (1 if step.bands is None else step.bands.count),
        weight_bytes=sum(sizes[place] for place in _parameters(step.calls, target)),
        image_bytes=target.element.bytes * sum(graph.shapes[name].elements for name in images),
    )


def _call(call: Call) -> list[object]:
    """Kernel and arguments, without the places of its data."""
    scalars = sorted(
        (name, value.name if isinstance(value, Variable) else value)
        for name, value in call.arguments.items()
        if not isinstance(value, Place | Table)
    )
    return [call.spec.description, scalars]


def _parameters(calls: Iterable[Call], target: Target) -> set[int]:
    """Places among the parameters that the calls read, in bytes."""
    places = set()
    for call in calls:
        for name, kind in call.spec.parameters:
            argument = call.arguments.get(name)
            if isinstance(argument, Place) and argument.area == "parameters":
                places.add(argument.offset * (INTEGER_BYTES if kind == INTS_IN else target.element.bytes))
    return places


def _sizes(steps: Sequence[Step], target: Target, end: int) -> dict[int, int]:
    """Bytes from every place to the next one, the last one to the end."""
    places = sorted(_parameters((call for step in steps for call in step.calls), target))
    return {place: following - place for place, following in zip(places, [*places[1:], end], strict=True)}
