"""A network as data: the tape that csrc/interpreter.c reads, in this order, and the file that holds it.

An artifact is the program of its kernels (program.py), the parameters if they are given, the tape and a trailer. So a
new pruning, or a new network of known kernels, is compiled by writing some kilobytes.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from device_farm.compiler.element import Element
from device_farm.compiler.graph import Conv2d, DepthwiseConv2d, Graph, Op, Padding, ScatterChannels
from device_farm.compiler.kernels.spec import INTS_IN, KernelSpec
from device_farm.compiler.layout import Memory, tap_places
from device_farm.compiler.packing import (
    Packed,
    PackedConv,
    PackedDepthwise,
    PackedScatter,
    PackedWinograd,
    padded_filters,
)
from device_farm.compiler.parting import Part, phases
from device_farm.compiler.sparsity import TapUnit, Units
from device_farm.compiler.steps import Argument, Bands, Call, Place, Step, Table, Variable
from device_farm.compiler.strides import Layout
from device_farm.compiler.tape import Tape, float_bits
from device_farm.compiler.target import Target
from device_farm.compiler.weights import gain, tap_stream, weight_shape

TAPE_ABI = 2
PAGE_BYTES = 4096
_INTEGER, _REAL, _ARENA, _PARAMETERS, _INTEGERS, _LINES, _TABLE = range(7)  # what an argument is
_NEEDS_HALF = 1
_SEED_CONV, _SEED_DEPTHWISE, _SEED_INDEX = range(3)
_NUMBERS = {variable: number for number, variable in enumerate(Variable)}
_MAGIC = b"npasplan"


@dataclass(frozen=True)
class Plan:
    """What a plan is made of. `kernels` numbers the kernels of the program, whose key is `program`."""

    key: str
    program: str
    graph: Graph
    target: Target
    memory: Memory
    packed: Packed
    parameter_bytes: int
    steps: Sequence[Step]
    kernels: Mapping[KernelSpec, int]
    seed: int
    threads: int

    @cached_property
    def tables(self) -> dict[tuple[int, ...], int]:
        """Where each table begins among all of them."""
        begins: dict[tuple[int, ...], int] = {}
        arguments = (argument for step in self.steps for call in step.calls for argument in call.arguments.values())
        end = 0
        for argument in arguments:
            if isinstance(argument, Table) and argument.numbers not in begins:
                begins[argument.numbers] = end
                end += len(argument.numbers)
        return begins


def executable(program: bytes, plan: Plan, parameters: bytes | None) -> bytes:
    """The file of an artifact. Without `parameters`, the device makes them from the plan's seed."""
    head = program
    place = 0
    if parameters is not None:
        place = -(-len(head) // PAGE_BYTES) * PAGE_BYTES
        head += bytes(place - len(head)) + parameters
    head += bytes(-len(head) % 8)
    tape = plan_tape(plan, seeded=parameters is None)
    trailer = struct.pack("<4q", place, len(parameters or b""), len(head), len(tape) // 8) + _MAGIC
    return head + tape + trailer


def plan_tape(plan: Plan, *, seeded: bool) -> bytes:
    """Head, steps, and the rules of the parameters if they come from the seed."""
    graph, memory, tape = plan.graph, plan.memory, Tape()
    tape.put(TAPE_ABI)
    tape.put_text(plan.program)
    tape.put_text(plan.key)
    needs = _NEEDS_HALF if plan.target.element is Element.FLOAT16 else 0
    tape.put(needs, plan.seed if plan.seed < 2**63 else plan.seed - 2**64, memory.elements, plan.parameter_bytes)
    for op in (graph.input, graph.output):
        layout = memory.layouts[op.name]
        tape.put(memory.offsets[op.name] + layout.offset(0, 0), layout.row_stride, layout.pixel_stride, *layout.shape)
    tape.put_integers([number for table in plan.tables for number in table])
    tape.put(plan.threads, len(plan.steps))
    for step in plan.steps:
        _put_step(tape, step, plan)
    seeds = [op for op in graph.ops if isinstance(op, Conv2d | DepthwiseConv2d | ScatterChannels)] if seeded else []
    tape.put(len(seeds))
    for op in seeds:
        _put_seed(tape, op, plan)
    return tape.to_bytes()


def _put_step(tape: Tape, step: Step, plan: Plan) -> None:
    """Phases of parts. A phase of one part is the main thread's alone."""
    tape.put_text(step.name)
    tape.put_text(step.kind)
    tape.put(step.macs, step.kept_macs)
    cut = phases(step, plan.threads, memory=plan.memory, target=plan.target)
    # Nobody reads a border before the step is over, so its rows are shared too.
    bordered = max(range(len(cut)), key=lambda number: (len(cut[number].parts), -number))
    tape.put(len(cut))
    for number, phase in enumerate(cut):
        tape.put(len(phase.parts))
        for index, part in enumerate(phase.parts):
            borders = _own_border(step.op.name, plan.memory, index, len(phase.parts)) if number == bordered else []
            _put_part(tape, part, borders, plan)


def _put_part(tape: Tape, part: Part, borders: list[tuple[int, ...]], plan: Plan) -> None:
    if part.bands is not None:
        rings = dict.fromkeys(chunk.ring for chunk in part.bands.chunks)
        borders = borders + [_border(part.bands.ring, start) for start in rings]
    tape.put(len(borders))
    for border in borders:
        tape.put(*border)
    _put_calls(tape, part.calls, plan)
    tape.put(part.bands is not None)
    if part.bands is not None:
        _put_bands(tape, part.bands, plan)


def _put_bands(tape: Tape, bands: Bands, plan: Plan) -> None:
    tape.put(bands.count, bands.first_row, bands.rows, bands.output_rows, bands.stride, bands.reach)
    tape.put(bands.first_expanded, bands.expanded_rows, bands.ring.shape.height)
    tape.put_integers(bands.lines)
    tape.put(len(bands.chunks))
    for chunk in bands.chunks:
        _put_calls(tape, chunk.expand, plan)
        _put_call(tape, chunk.depthwise, plan)
    _put_calls(tape, bands.project, plan)


def _put_calls(tape: Tape, calls: Sequence[Call], plan: Plan) -> None:
    tape.put(len(calls))
    for call in calls:
        _put_call(tape, call, plan)


def _put_call(tape: Tape, call: Call, plan: Plan) -> None:
    tape.put(plan.kernels[call.spec])
    for name, kind in call.spec.parameters:
        _put_argument(tape, call.arguments[name], kind, plan)


def _put_argument(tape: Tape, argument: Argument, kind: str, plan: Plan) -> None:
    """One word: what it is in the lowest byte, its moves in the next, its value above; then each move."""
    match argument:
        case Place(area, offset, moves):
            parameters = _INTEGERS if kind == INTS_IN else _PARAMETERS
            place = {"arena": _ARENA, "parameters": parameters, "lines": _LINES}[area]
            tape.put(offset << 16 | len(moves) << 8 | place)
            for variable, stride in moves:
                tape.put(_NUMBERS[variable], stride)
        case Table(numbers, first):
            tape.put((plan.tables[numbers] + first) << 16 | _TABLE)
        case Variable():
            tape.put(1 << 8 | _INTEGER, _NUMBERS[argument], 1)
        case float():
            tape.put(float_bits(argument) << 16 | _REAL)
        case int():
            tape.put(argument << 16 | _INTEGER)


def _own_border(name: str, memory: Memory, share: int, shares: int) -> list[tuple[int, ...]]:
    """Only where the place was used by somebody else since: the arena begins as zeros, and the input owns its place.

    `share` of `shares` equal shares of the rows; the first also has what is above them, the last what is below.
    """
    layout = memory.layouts[name]
    if not memory.shared or not any(layout.border):
        return []
    rows = layout.shape.height
    first, last = rows * share // shares, rows * (share + 1) // shares
    if first == last:  # fewer rows than shares
        return []
    top, left, bottom, right = layout.border
    above = 0 if first == 0 else top + first
    border = Padding(top if first == 0 else 0, left, bottom if last == rows else 0, right)
    part = dataclasses.replace(layout, shape=layout.shape._replace(height=last - first), border=border)
    return [_border(part, memory.offsets[name] + above * layout.row_stride)]


def _border(layout: Layout, start: int) -> tuple[int, ...]:
    top, left, bottom, right = layout.border
    left, right = left * layout.pixel_stride, right * layout.pixel_stride
    return start, top, bottom, layout.shape.height, left, right, layout.row_stride


def _put_seed(tape: Tape, op: Op, plan: Plan) -> None:
    packed, stream = plan.packed[op.name], tap_stream(plan.graph, op)
    match op, packed:
        case Conv2d(), PackedConv() | PackedWinograd():
            _put_seeded_conv(tape, op, packed, stream, plan)
        case DepthwiseConv2d(), PackedDepthwise(weights, bias):
            channels, _, kh, kw = weight_shape(plan.graph, op)
            tape.put(_SEED_DEPTHWISE, stream, channels, plan.memory.layouts[op.name].pixel_stride, kh * kw)
            tape.put(float_bits(gain(op.activation)), weights, bias)
        case ScatterChannels(), PackedScatter(index):
            tape.put(_SEED_INDEX, stream, plan.graph.input_shapes(op)[0].channels, op.channels, index)


def _put_seeded_conv(tape: Tape, op: Conv2d, packed: PackedConv | PackedWinograd, stream: int, plan: Plan) -> None:
    filters, channels, kh, kw = weight_shape(plan.graph, op)
    sparsity, places = op.sparsity, tap_places(op, plan.memory)
    way = packed.way if isinstance(packed, PackedWinograd) else None
    tape.put(_SEED_CONV, stream, *((0, 0, 0) if way is None else (way.tile, way.taps, int(way.gathered))))
    tape.put(filters, channels, op.groups, kh, kw)
    tape.put_integers(places.positions)
    tape.put(places.channel)
    tape.put(float_bits(gain(op.activation)), 0 if sparsity is None else sparsity.block_height)
    units = Units(TapUnit.TAP if sparsity is None else sparsity.unit, channels, kh * kw)
    kept = () if sparsity is None else sparsity.kept
    tape.put(units.unit_channels, units.unit_positions)
    tape.put_integers(kept)
    tape.put_integers([split[0] for taps in kept if (split := units.split(taps)) is not None])
    covered = packed.padded_filters if isinstance(packed, PackedConv) else padded_filters(op, plan.target)
    tape.put(covered, packed.bias, len(packed.groups))
    for group in packed.groups:
        tape.put(group.height, group.first_filter, len(group.kept), group.tap_channels)
        tape.put(group.weights, group.taps, group.pointers)
