"""The text of plan.c: one function a step, the tables of the runner's contract, and the way to the parameters."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from device_farm.compiler.graph import Conv2d, DepthwiseConv2d, Graph, Padding, ScatterChannels
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
from device_farm.compiler.parting import Part, phases
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
    parameter_words: int
    steps: tuple[Step, ...]
    symbols: Mapping[KernelSpec, str]
    seed: int
    blob: str | None
    threads: int = 1


_HEAD = """\
#include <stdint.h>
#include "plan.h"
#include "prepare.h"
#define ALIGNED __attribute__((aligned(NPAS_HUGE_PAGE)))
#define A(offset) (arena + (offset))
#define F(offset) ((float *)(parameters + 4 * INT64_C(offset)))
#define I(offset) ((int32_t *)(parameters + 4 * INT64_C(offset)))
"""


def plan_text(source: PlanSource) -> str:
    """C that defines npas_plan."""
    graph, memory = source.graph, source.memory
    parts = [_HEAD, f"static ALIGNED float arena[{memory.elements + 64}];"]
    if source.blob is None:
        parts.append(f"static ALIGNED unsigned char parameters[{max(4 * source.parameter_words, 64)}];")
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
    parts.append(_prepare(source))
    parts.append(
        f"static void set_input(const float *nhwc) {{\n"
        f"  npas_copy_in({x_image}, {_flat_strides(x)}, nhwc, {_extents(x)});\n}}\n"
        f"static void get_output(float *flat) {{\n"
        f"  npas_copy_out(flat, {y_image}, {_flat_strides(y)}, {_extents(y)});\n}}\n"
        f"const npas_plan_t npas_plan = {{NPAS_PLAN_ABI, {_string(source.key)}, {x.shape.elements}, "
        f"{y.shape.elements}, {len(source.steps)}, steps, prepare, set_input, get_output}};\n"
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
    """Phases of one part are the main thread's alone; the parts of the others are cases of a function."""
    functions, body = "", ""
    cut = phases(step, source.threads, memory=source.memory, target=source.target)
    # Nobody reads a border before the step is over, so its rows are shared too.
    bordered = next((number for number, phase in enumerate(cut) if len(phase.parts) > 1), None)
    for number, phase in enumerate(cut):
        if len(phase.parts) == 1:
            body += _part(phase.parts[0], source)
            continue
        cases = ""
        for thread, part in enumerate(phase.parts):
            border = _zero_border(step.op.name, source.memory, thread, len(phase.parts)) if number == bordered else ""
            cases += f"  case {thread}: {{\n{border}{_part(part, source)}  break;\n  }}\n"
        functions += f"static void step_{index}_{number}(int32_t part) {{\n  switch (part) {{\n{cases}  }}\n}}\n"
        body += f"  npas_parallel(step_{index}_{number});\n"
    if bordered is None:
        body = _zero_border(step.op.name, source.memory) + body
    return f"{functions}static void step_{index}(void) {{\n{body}}}"


def _part(part: Part, source: PlanSource) -> str:
    return _calls(part.calls, source) if part.bands is None else _banded(part.bands, source)


def _calls(calls: Sequence[Call], source: PlanSource) -> str:
    return "".join(f"  {source.symbols[call.spec]}({_arguments(call)});\n" for call in calls)


def _banded(bands: Bands, source: PlanSource) -> str:
    """The loop over the bands of a fused block; each run of new rows ends where the ring does."""
    ring, span = bands.ring, bands.ring.shape.height
    parts = [f"  static const int32_t lines[] = {{{', '.join(map(str, bands.lines))}}};\n"]
    parts += [_zero_around(ring, start) for start in dict.fromkeys(chunk.ring for chunk in bands.chunks)]
    parts.append(
        f"  for (int32_t band = 0, done = {bands.first_expanded}, last; band < {bands.count}; ++band, done = last) {{\n"
        f"  int32_t row = {bands.first_row} + band * {bands.rows};\n"
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


def _zero_border(name: str, memory: Memory, share: int = 0, shares: int = 1) -> str:
    """Only where the place was used by somebody else since: the arena begins as zeros, and the input owns its place.

    `share` of `shares` equal shares of the rows; the first also has what is above them, the last what is below.
    """
    layout = memory.layouts[name]
    if not memory.shared or not any(layout.border):
        return ""
    rows = layout.shape.height
    first, last = rows * share // shares, rows * (share + 1) // shares
    if first == last:  # fewer rows than shares
        return ""
    top, left, bottom, right = layout.border
    above = 0 if first == 0 else top + first
    border = Padding(top if first == 0 else 0, left, bottom if last == rows else 0, right)
    part = dataclasses.replace(layout, shape=layout.shape._replace(height=last - first), border=border)
    return _zero_around(part, memory.offsets[name] + above * layout.row_stride)


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
    start = f"  npas_start_threads({source.threads});\n" if source.threads > 1 else ""
    if source.blob is not None:
        return f"static int prepare(void) {{\n{start}{_HUGE_ARENA}  return 0;\n}}"
    declarations, calls = [], []
    seed = f"UINT64_C({source.seed})"
    for op in source.graph.ops:
        packed, stream = source.packed.get(op.name), tap_stream(source.graph, op)
        if isinstance(op, Conv2d) and isinstance(packed, PackedConv):
            declarations.append(_conv_table(op, packed, stream, source))
            calls.append(f"  if (npas_seed_conv({seed}, &conv_{stream})) return 1;\n")
        elif isinstance(op, Conv2d) and isinstance(packed, PackedWinograd):
            declarations.append(_conv_table(op, packed, stream, source))
            calls.append(f"  npas_seed_winograd({seed}, &conv_{stream}, {packed.way.tile});\n")
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
    body = f"{start}{_HUGE_ARENA}{_HUGE_PARAMETERS}{''.join(calls)}"
    return "\n".join([*declarations, f"static int prepare(void) {{\n{body}  return 0;\n}}"])


def _conv_table(op: Conv2d, packed: PackedConv | PackedWinograd, stream: int, source: PlanSource) -> str:
    filters, channels, kh, kw = weight_shape(source.graph, op)
    layout = source.memory.layouts[op.inputs[0]]
    groups = ", ".join(
        f"{{{g.height}, {g.first_filter}, {len(g.kept)}, F({g.weights}), I({g.taps}), I({g.pointers})}}"
        for g in packed.groups
    )
    text, kept, height = "", "0", 0
    if op.sparsity is not None:
        text = f"static const int32_t kept_{stream}[] = {{{', '.join(map(str, op.sparsity.kept))}}};\n"
        kept, height = f"kept_{stream}", op.sparsity.block_height
    return (
        f"{text}static const npas_group_t groups_{stream}[] = {{{groups}}};\n"
        f"static const npas_conv_t conv_{stream} = {{{stream}, {filters}, {channels}, {op.groups}, {kh}, {kw}, "
        f"{op.dilation[0] * layout.row_stride}, {op.dilation[1] * layout.pixel_stride}, {gain(op.activation)}f, "
        f"{height}, {kept}, {len(packed.groups)}, {padded_filters(op, source.target)}, groups_{stream}, "
        f"F({packed.bias})}};"
    )
