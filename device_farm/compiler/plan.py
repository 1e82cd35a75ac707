"""The text of plan.c: one function a step, the tables of the runner's contract, and the way to the parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from device_farm.compiler.element import Element
from device_farm.compiler.graph import Conv2d, DepthwiseConv2d, Graph, ScatterChannels
from device_farm.compiler.kernels.spec import FLOAT, FLOATS_IN, FLOATS_OUT, INT, INTS_IN, KernelSpec
from device_farm.compiler.layout import Layout, Memory
from device_farm.compiler.packing import (
    Packed,
    PackedConv,
    PackedDepthwise,
    PackedScatter,
    PackedWinograd,
    padded_filters,
)
from device_farm.compiler.sparsity import Units
from device_farm.compiler.steps import Argument, Bands, Call, Place, Step, Variable
from device_farm.compiler.target import Target
from device_farm.compiler.weights import gain, tap_stream, weight_shape


@dataclass(frozen=True)
class PlanSource:
    """What plan.c is made of. With `blob`, the parameters are that file; without, they come from `seed`."""

    key: str
    graph: Graph
    target: Target
    memory: Memory
    packed: Packed
    parameter_bytes: int
    steps: tuple[Step, ...]
    symbols: Mapping[KernelSpec, str]
    seed: int
    blob: str | None


_HEAD = """\
#define NPAS_ELEMENT %s
#include <stdint.h>
#include "plan.h"
#include "prepare.h"
#define ALIGNED __attribute__((aligned(NPAS_HUGE_PAGE)))
#define A(offset) (arena + (offset))
#define F(offset) ((npas_element_t *)parameters + (offset))
#define I(offset) ((int32_t *)parameters + (offset))
"""


def plan_text(source: PlanSource) -> str:
    """C that defines npas_plan."""
    graph, memory = source.graph, source.memory
    parts = [_HEAD % source.target.element.c_type, f"static ALIGNED npas_element_t arena[{memory.elements + 64}];"]
    if source.blob is None:
        parts.append(f"static ALIGNED unsigned char parameters[{max(source.parameter_bytes, 64)}];")
    else:
        parts.append(_INCBIN % json.dumps(json.dumps(source.blob))[1:-1])
        parts.append('extern unsigned char parameters[] __asm__("npas_parameters");')
    parts += [f"void {symbol}({_prototype(spec)});" for spec, symbol in source.symbols.items()]
    parts += [_step_function(i, step, source) for i, step in enumerate(source.steps)]
    table = "".join(
        f"  {{{_string(step.name)}, {_string(step.kind)}, {step.macs}.0, {step.kept_macs}.0, step_{i}}},\n"
        for i, step in enumerate(source.steps)
    )
    parts.append(f"static const npas_step_t steps[] = {{\n{table}  {{0, 0, 0, 0, 0}}\n}};")
    x, y = memory.layouts[graph.input.name], memory.layouts[graph.output.name]
    x_image = f"A({memory.offsets[graph.input.name] + x.offset(0, 0)})"
    y_image = f"A({memory.offsets[graph.output.name] + y.offset(0, 0)})"
    needs = "NPAS_NEEDS_HALF" if source.target.element is Element.FLOAT16 else "0"
    parts.append(_prepare(source))
    parts.append(
        f"static void set_input(const float *nhwc) {{\n"
        f"  npas_copy_in({x_image}, {_flat_strides(x)}, nhwc, {_extents(x)});\n}}\n"
        f"static void get_output(float *flat) {{\n"
        f"  npas_copy_out(flat, {y_image}, {_flat_strides(y)}, {_extents(y)});\n}}\n"
        f"const npas_plan_t npas_plan = {{NPAS_PLAN_ABI, {_string(source.key)}, {x.shape.elements}, "
        f"{y.shape.elements}, {len(source.steps)}, steps, prepare, set_input, get_output, {needs}}};\n"
    )
    return "\n".join(parts)


_INCBIN = """\
__asm__(".section .rodata\\n.balign 64\\n.global npas_parameters\\nnpas_parameters:\\n.incbin %s\\n.text\\n");"""


_HUGE_ARENA = "  npas_ask_huge_pages(arena, sizeof arena);\n"
_HUGE_PARAMETERS = "  npas_ask_huge_pages(parameters, sizeof parameters);\n"


def _string(text: str) -> str:
    """A C string literal of any text: octal escapes cannot swallow what follows them."""
    return (
        '"' + "".join(chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}" for b in text.encode()) + '"'
    )


def _prototype(spec: KernelSpec) -> str:
    return ", ".join(f"{kind} {name}".replace("* ", "*") for name, kind in spec.parameters)


def _step_function(index: int, step: Step, source: PlanSource) -> str:
    body = _calls(step.calls, source) if step.bands is None else _banded(step.bands, source)
    return f"static void step_{index}(void) {{\n{_zero_border(step.op.name, source.memory)}{body}}}"


def _calls(calls: Sequence[Call], source: PlanSource) -> str:
    return "".join(f"  {source.symbols[call.spec]}({_arguments(call)});\n" for call in calls)


def _banded(bands: Bands, source: PlanSource) -> str:
    """The loop over the bands of a fused block; each run of new rows ends where the ring does."""
    ring, span = bands.ring, bands.ring.shape.height
    parts = [f"  static const int32_t lines[] = {{{', '.join(map(str, bands.lines))}}};\n"]
    parts += [_zero_around(ring, start) for start in dict.fromkeys(chunk.ring for chunk in bands.chunks)]
    parts.append(
        f"  for (int32_t band = 0, done = 0, last; band < {bands.count}; ++band, done = last) {{\n"
        f"  int32_t row = band * {bands.rows};\n"
        f"  if (row > {bands.output_rows - bands.rows}) row = {bands.output_rows - bands.rows};\n"
        f"  last = row * {bands.stride} + {bands.reach};\n"
        f"  if (last > {bands.expanded_rows}) last = {bands.expanded_rows};\n"
        f"  if (last < done) last = done;\n"
    )
    for chunk in bands.chunks:
        parts.append(
            f"  for (int32_t first = done, slot, count; first < last; first += count) {{\n"
            f"  slot = first % {span};\n"
            f"  count = last - first < {span} - slot ? last - first : {span} - slot;\n"
            f"{_calls(chunk.expand, source)}  }}\n{_calls([chunk.depthwise], source)}"
        )
    return "".join(parts) + f"{_calls(bands.project, source)}  }}\n"


def _arguments(call: Call) -> str:
    return ", ".join(_argument(call.arguments[name], kind) for name, kind in call.spec.parameters)


def _argument(value: Argument, kind: str) -> str:
    if isinstance(value, Place):
        assert kind in (FLOATS_IN, FLOATS_OUT, INTS_IN)
        moves = "".join(f" + {variable} * {stride}" for variable, stride in value.moves)
        return f"{'A' if value.area == 'arena' else 'I' if kind == INTS_IN else 'F'}({value.offset}{moves})"
    if isinstance(value, Variable):
        assert kind in (INT, INTS_IN)
        return value.name
    assert kind == (FLOAT if isinstance(value, float) else INT)
    return f"{value.hex()}f" if isinstance(value, float) else str(value)


def _zero_border(name: str, memory: Memory) -> str:
    """Only where the place was used by somebody else since: the arena begins as zeros, and the input owns its place."""
    layout = memory.layouts[name]
    if not memory.shared or not any(layout.border):
        return ""
    return _zero_around(layout, memory.offsets[name])


def _zero_around(layout: Layout, start: int) -> str:
    top, left, bottom, right = layout.border
    left, right = left * layout.pixel_stride, right * layout.pixel_stride
    return (
        f"  npas_zero_border(A({start}), {top}, {bottom}, {layout.shape.height}, "
        f"{left}, {right}, {layout.row_stride});\n"
    )


def _flat_strides(layout: Layout) -> str:
    return f"{layout.row_stride}, {layout.pixel_stride}"


def _extents(layout: Layout) -> str:
    return f"{layout.shape.height}, {layout.shape.width}, {layout.shape.channels}"


def _prepare(source: PlanSource) -> str:
    if source.blob is not None:
        return f"static int prepare(void) {{\n{_HUGE_ARENA}  return 0;\n}}"
    declarations, calls = [], []
    seed = f"UINT64_C({source.seed})"
    for op in source.graph.ops:
        packed, stream = source.packed.get(op.name), tap_stream(source.graph, op)
        if isinstance(op, Conv2d) and isinstance(packed, PackedConv):
            declarations.append(_conv_table(op, packed, stream, source))
            calls.append(f"  if (npas_seed_conv({seed}, &conv_{stream})) return 1;\n")
        elif isinstance(op, Conv2d) and isinstance(packed, PackedWinograd):
            declarations.append(_conv_table(op, packed, stream, source))
            way = f"{packed.way.tile}, {packed.way.taps}, {int(packed.way.gathered)}"
            calls.append(f"  if (npas_seed_winograd({seed}, &conv_{stream}, {way})) return 1;\n")
        elif isinstance(op, DepthwiseConv2d) and isinstance(packed, PackedDepthwise):
            channels, _, kh, kw = weight_shape(source.graph, op)
            padded = source.memory.layouts[op.name].pixel_stride
            calls.append(
                f"  npas_seed_depthwise({seed}, {stream}, {channels}, {padded}, {kh * kw}, {gain(op.activation)}f, "
                f"F({packed.weights}), F({packed.bias}));\n"
            )
        elif isinstance(op, ScatterChannels) and isinstance(packed, PackedScatter):
            channels = source.graph.input_shapes(op)[0].channels
            calls.append(
                f"  if (npas_seed_index({seed}, {stream}, {channels}, {op.channels}, I({packed.index}))) return 1;\n"
            )
    return "\n".join(
        [*declarations, f"static int prepare(void) {{\n{_HUGE_ARENA}{_HUGE_PARAMETERS}{''.join(calls)}  return 0;\n}}"]
    )


def _conv_table(op: Conv2d, packed: PackedConv | PackedWinograd, stream: int, source: PlanSource) -> str:
    filters, channels, kh, kw = weight_shape(source.graph, op)
    layout = source.memory.layouts[op.inputs[0]]
    groups = ", ".join(
        f"{{{g.height}, {g.first_filter}, {len(g.kept)}, {g.tap_channels}, F({g.weights}), I({g.taps}), "
        f"I({g.pointers})}}"
        for g in packed.groups
    )
    covered = packed.padded_filters if isinstance(packed, PackedConv) else padded_filters(op, source.target)
    text, sparsity = "", "0, 0, 0, 1, 1"
    if op.sparsity is not None:
        units = Units(op.sparsity.unit, channels, kh * kw)
        whole = [split[0] for kept in op.sparsity.kept if (split := units.split(kept)) is not None]
        text = "".join(
            f"static const int32_t {name}_{stream}[] = {{{', '.join(map(str, counts))}}};\n"
            for name, counts in (("kept", op.sparsity.kept), ("whole", whole))
        )
        sparsity = (
            f"{op.sparsity.block_height}, kept_{stream}, whole_{stream}, {units.unit_channels}, {units.unit_positions}"
        )
    return (
        f"{text}static const npas_group_t groups_{stream}[] = {{{groups}}};\n"
        f"static const npas_conv_t conv_{stream} = {{{stream}, {filters}, {channels}, {op.groups}, {kh}, {kw}, "
        f"{op.dilation[0] * layout.row_stride}, {op.dilation[1] * layout.pixel_stride}, {gain(op.activation)}f, "
        f"{sparsity}, {len(packed.groups)}, {covered}, groups_{stream}, "
        f"F({packed.bias})}};"
    )
