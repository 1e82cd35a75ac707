"""A step -> phases of parts of about equal work, one for each thread: the plan of an artifact for several threads.

Parts are calls of the step's own kernels on parts of their extents (cutting.py), so every number is the same sum in the
same order whatever the number of threads. What is uneven (blocks with more taps, maps of few rows) is cut by its work.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from device_farm.compiler.cutting import Cuttable, cuttable, number, overlaps
from device_farm.compiler.kernels.spec import (
    ConvKernel,
    PhasesKernel,
    PlanesKernel,
    WinogradInput,
    WinogradOutput,
    WinogradProduct,
)
from device_farm.compiler.layout import Memory
from device_farm.compiler.runs import runs
from device_farm.compiler.steps import Bands, Call, Chunk, Place, Step
from device_farm.compiler.target import Target

MOST_THREADS = 64  # NPAS_MOST_THREADS of runner/plan.h

# A fork and join, in multiply-adds of a vector (0.28 ns on Zen 4): 0.3 us with two threads, 0.75 with four, and as much
# again for the data that other cores have written.
TURN_COST, TURN_COST_PER_THREAD = 1500.0, 1000.0
WORTH = 0.9  # share of its time alone that a step must come below: both are estimates
CLOSE = 1.02  # cutting less finely may cost so much more


@dataclass(frozen=True)
class Part:
    """What one thread does: calls one after the other, or bands of a fused block."""

    calls: tuple[Call, ...] = ()
    bands: Bands | None = None


@dataclass(frozen=True)
class Phase:
    """Parts that may run side by side, when those of the phase before are done. `cost`: of the longest."""

    parts: tuple[Part, ...]
    cost: float


def phases(step: Step, threads: int, *, memory: Memory, target: Target) -> tuple[Phase, ...]:
    """At most `threads` parts each; one phase of a single part where more would not be faster."""
    if threads == 1:
        return (Phase((Part(bands=step.bands) if step.bands is not None else Part(step.calls),), 0.0),)
    cut = _Cut(threads, memory, target)
    alone = cut.alone(step)
    ways = [alone, *cut.ways(step)]
    turn = TURN_COST + TURN_COST_PER_THREAD * (threads - 1)

    def cost(way: tuple[Phase, ...]) -> float:
        return sum(phase.cost + turn * (len(phase.parts) > 1) for phase in way)

    best = min(ways, key=cost)
    return best if cost(best) <= WORTH * cost(alone) else alone


def work(step: Step, *, memory: Memory, target: Target) -> float:
    """What one thread takes for the step, in the unit of a phase's cost."""
    return _Cut(1, memory, target).alone(step)[0].cost


@dataclass(frozen=True)
class _Cut:
    threads: int
    memory: Memory
    target: Target

    def alone(self, step: Step) -> tuple[Phase, ...]:
        if step.bands is not None:
            return (Phase((Part(bands=step.bands),), self._bands_cost(step.bands, step.bands.count)),)
        cost = sum(cuttable(call, self.target)[0].cost for call in step.calls)
        return (Phase((Part(step.calls),), cost),)

    def ways(self, step: Step) -> Iterator[tuple[Phase, ...]]:
        if step.bands is not None:
            yield self._by_bands(step.bands)
            if step.bands.count == 1:
                yield self._by_chunks(step.bands)
        elif isinstance(step.calls[0].spec, PhasesKernel):
            yield from self._by_tile_rows(step.calls)
        elif isinstance(step.calls[0].spec, WinogradInput):
            yield from self._winograd(step.calls)
        elif isinstance(step.calls[0].spec, PlanesKernel):
            yield self._planar(step.calls)
            yield tuple(self._side_by_side([call]) for call in step.calls)
        elif isinstance(step.calls[0].spec, ConvKernel):
            yield (self._side_by_side(step.calls),)
        else:
            yield (self._in_step(step.calls),)

    def _side_by_side(self, calls: Sequence[Call]) -> Phase:
        """Calls that do not need one another, all cut in the same way: the least fine that is nearly best."""
        ways = zip(*(cuttable(call, self.target) for call in calls), strict=True)
        spread = [self._spread(way) for way in ways]
        least = min(phase.cost for phase in spread)
        return next(phase for phase in spread if phase.cost <= CLOSE * least)

    def _in_step(self, calls: Sequence[Call]) -> Phase:
        """Calls that write to the same pixels one after the other, as concat does: all are cut at the same rows."""
        if len(calls) == 1:
            return self._side_by_side(calls)
        each = [cuttable(call, self.target)[0] for call in calls]
        costs = [sum(row) for row in zip(*(one.costs for one in each), strict=True)]
        return self._spread([Cuttable(costs, lambda a, b: tuple(call for one in each for call in one.piece(a, b)))])

    def _spread(self, cuttables: Sequence[Cuttable]) -> Phase:
        """Every thread gets a run of the items of each."""
        loads: list[float] = [0.0] * self.threads
        calls: list[list[Call]] = [[] for _ in loads]
        for item in cuttables:
            limits = runs(item.costs, loads)
            for thread, (first, last) in enumerate(itertools.pairwise(limits)):
                if first < last:
                    calls[thread] += item.piece(first, last)
                    loads[thread] += sum(item.costs[first:last])
        return Phase(tuple(Part(tuple(own)) for own in calls if own), max(loads))

    def _winograd(self, calls: Sequence[Call]) -> Iterator[tuple[Phase, ...]]:
        """By tiles, each thread in a workspace of its own; or block by block, transforms and products cut."""
        starts = [i for i, call in enumerate(calls) if isinstance(call.spec, WinogradInput)]
        blocks = [calls[first:last] for first, last in itertools.pairwise([*starts, len(calls)])]
        if not overlaps(calls[0]):
            yield (self._by_tiles(blocks),)
        yield tuple(self._side_by_side(station) for block in blocks for station in (block[:1], block[1:-1], block[-1:]))

    def _by_tile_rows(self, calls: Sequence[Call]) -> Iterator[tuple[Phase, ...]]:
        """A stem: whole rows of tiles, each of which begins with its phases, in each thread's own workspace."""
        last = calls[-1].spec
        assert isinstance(last, WinogradOutput)
        if number(calls[-1], "rows") % last.tile:
            return  # the last two rows compute some of the same pixels, and not to the same bits
        starts = [i for i, call in enumerate(calls) if isinstance(call.spec, PhasesKernel)]
        rows = [calls[first:last] for first, last in itertools.pairwise([*starts, len(calls)])]
        costs = [sum(cuttable(call, self.target)[0].cost for call in row) for row in rows]
        phase = self._spread([Cuttable(costs, lambda first, last: tuple(itertools.chain(*rows[first:last])))])
        own = [Part(self._in_own_scratch(part.calls, thread)) for thread, part in enumerate(phase.parts)]
        yield (dataclasses.replace(phase, parts=tuple(own)),)

    def _planar(self, calls: Sequence[Call]) -> tuple[Phase, ...]:
        """Bands of rows side by side, the planes of each thread in its own scratch memory."""
        bands = [tuple(calls[first : first + 2]) for first in range(0, len(calls), 2)]
        costs = [sum(cuttable(call, self.target)[0].cost for call in band) for band in bands]
        phase = self._spread([Cuttable(costs, lambda first, last: tuple(itertools.chain(*bands[first:last])))])
        own = (Part(self._in_own_scratch(part.calls, thread)) for thread, part in enumerate(phase.parts))
        return (dataclasses.replace(phase, parts=tuple(own)),)

    def _by_tiles(self, blocks: Sequence[Sequence[Call]]) -> Phase:
        """Every thread its own run of tiles, in blocks as large as the workspace and a last one no smaller than a tile
        of the products; that one begins earlier where it would stick out."""
        largest = number(blocks[0][0], "tiles")
        fewest = max(call.spec.tiles for call in blocks[0] if isinstance(call.spec, WinogradProduct))
        tiles = number(blocks[-1][0], "first") + largest
        parts: list[Part] = []
        cost = 0.0
        for start, stop in itertools.pairwise(runs([1.0] * tiles, [0.0] * self.threads)):
            own: list[Call] = []
            for first in range(start, stop, largest):
                count = max(min(largest, stop - first), fewest)
                own += [_of_tiles(call, min(first, tiles - count, max(stop - count, 0)), count) for call in blocks[0]]
            if own:
                cost = max(cost, sum(cuttable(call, self.target)[0].cost for call in own))
                parts.append(Part(self._in_own_scratch(own, len(parts))))
        return Phase(tuple(parts), cost)

    def _by_bands(self, bands: Bands) -> tuple[Phase, ...]:
        """Every thread its own rings, in a scratch memory of its own; its first band computes what it finds missing."""
        limits = runs([1.0] * bands.count, [0.0] * self.threads)
        parts: list[Part] = []
        cost = 0.0
        for first, last in itertools.pairwise(limits):
            if first < last:
                start = min(first * bands.rows, bands.output_rows - bands.rows)
                part = dataclasses.replace(
                    bands, first_row=start, output_rows=min(last * bands.rows, bands.output_rows)
                )
                parts.append(Part(bands=self._bands_in_own_scratch(part, len(parts))))
                cost = max(cost, self._bands_cost(part, last - first))
        return (Phase(tuple(parts), cost),)

    def _by_chunks(self, bands: Bands) -> tuple[Phase, ...]:
        """A block that is one band: chunks side by side, each thread in its own ring, then the projection."""
        rows, reach = bands.rows, bands.expanded_rows
        costs = [self._chunk_cost(chunk, reach) for chunk in bands.chunks]
        limits = runs(costs, [0.0] * self.threads)
        parts: list[Part] = []
        cost = 0.0
        for first, last in itertools.pairwise(limits):
            if first < last:
                chunks = tuple(self._ring_in_own_scratch(chunk, len(parts)) for chunk in bands.chunks[first:last])
                parts.append(Part(bands=dataclasses.replace(bands, chunks=chunks, project=())))
                cost = max(cost, sum(costs[first:last]))
        project = [_at_row(call, 0) for call in bands.project]
        assert rows == bands.output_rows
        return Phase(tuple(parts), cost), self._side_by_side(project)

    def _bands_cost(self, bands: Bands, count: int) -> float:
        span = bands.ring.shape.height
        rows = min((count - 1) * bands.rows * bands.stride + span, bands.expanded_rows)
        a_band = sum(cuttable(call, self.target)[0].cost for call in bands.project)
        return count * a_band + sum(self._chunk_cost(chunk, rows, count) for chunk in bands.chunks)

    def _chunk_cost(self, chunk: Chunk, rows: int, bands: int = 1) -> float:
        expand = sum(cuttable(call.replaced(rows=rows), self.target)[0].cost for call in chunk.expand)
        return expand + bands * cuttable(chunk.depthwise, self.target)[0].cost

    def _in_own_scratch(self, calls: Sequence[Call], thread: int) -> tuple[Call, ...]:
        return tuple(_in_scratch(call, self.memory, thread) for call in calls)

    def _bands_in_own_scratch(self, bands: Bands, thread: int) -> Bands:
        chunks = tuple(
            Chunk(
                chunk.ring + thread * self.memory.scratch_floats,
                self._in_own_scratch(chunk.expand, thread),
                _in_scratch(chunk.depthwise, self.memory, thread),
            )
            for chunk in bands.chunks
        )
        return dataclasses.replace(bands, chunks=chunks, project=self._in_own_scratch(bands.project, thread))

    def _ring_in_own_scratch(self, chunk: Chunk, thread: int) -> Chunk:
        """Of the depthwise convolution's output there is only one, which the projection reads."""
        return Chunk(
            chunk.ring + thread * self.memory.scratch_floats,
            self._in_own_scratch(chunk.expand, thread),
            _in_scratch(chunk.depthwise, self.memory, thread, only="x"),
        )


def _of_tiles(call: Call, first: int, count: int) -> Call:
    """The call of one block of tiles, for another one."""
    return call.replaced(tiles=count, **({"first": first} if "first" in call.arguments else {}))


def _in_scratch(call: Call, memory: Memory, thread: int, *, only: str | None = None) -> Call:
    """The call with what lies in the scratch memory moved to a thread's own."""
    moved = {
        name: dataclasses.replace(place, offset=place.offset + thread * memory.scratch_floats)
        for name, place in call.arguments.items()
        if isinstance(place, Place) and place.area == "arena" and place.offset >= memory.scratch
        and only in (None, name)
    }  # fmt: skip
    return call.replaced(**moved)


def _at_row(call: Call, row: int) -> Call:
    """A call of a band, for the band that begins at that row."""
    placed = {
        name: dataclasses.replace(place, offset=place.offset + sum(row * stride for _, stride in place.moves), moves=())
        for name, place in call.arguments.items()
        if isinstance(place, Place)
    }
    return call.replaced(**placed)
