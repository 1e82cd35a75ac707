"""Which expand + depthwise + project blocks run by bands of rows, and in which bands.

Unfused, the wide activations between the three go through the outer caches. Fused, a band of R output rows is
finished before the next one begins: each chunk of expanded channels adds its new rows to a ring of as many rows as a
band's windows span, the depthwise convolution reads the ring, and the projection follows. No row is expanded twice.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from device_farm.compiler import winograd
from device_farm.compiler.graph import Conv2d, DepthwiseConv2d, Graph, Op, Padding, Shape

RING_FLOATS = 8_192  # of one chunk: 32 KiB, a first-level cache
LEAST_CHUNK = 32  # channels: two cache lines a pixel, and whole blocks on every target
BAND_ROWS = 2  # enough for the depthwise tiles
TALL, TALL_BAND_ROWS = 28, 4  # rows of a map from which on fewer bands are 2 % faster, and of its bands
WHOLE_PIXELS = 64  # a map as small as this is one band: bands would read the projection's weights again and again
CONFLICT_FLOATS = 256  # 1 KiB: four rows or fewer then meet at a distance of 4 KiB
LEAST_FLOATS = 32_768  # of the two inner outputs, 128 KiB: smaller ones stay near enough, and calls cost time too


@dataclass(frozen=True)
class FusedBlock:
    """Three operators that run as one step, where the last of them stands."""

    expand: Conv2d
    depthwise: DepthwiseConv2d
    project: Conv2d
    rows: int  # output rows a band
    chunk: int  # expanded channels a chunk

    @property
    def inner(self) -> tuple[Op, Op]:
        """The operators whose outputs nobody else sees."""
        return self.expand, self.depthwise

    @property
    def span(self) -> int:
        """Rows of the expanded image under the windows of one band."""
        depthwise = self.depthwise
        return (self.rows - 1) * depthwise.stride[0] + (depthwise.kernel[0] - 1) * depthwise.dilation[0] + 1


def fused_blocks(graph: Graph, *, threads: int = 1) -> tuple[FusedBlock, ...]:
    """The blocks of the graph for which it pays, in bands for so many threads."""
    readers: dict[str, list[Op]] = {op.name: [] for op in graph.ops}
    for op in graph.ops:
        for name in op.inputs:
            readers[name].append(op)
    blocks = []
    for expand in graph.ops:
        if not isinstance(expand, Conv2d) or not _expands(expand) or len(readers[expand.name]) != 1:
            continue
        (depthwise,) = readers[expand.name]
        if not isinstance(depthwise, DepthwiseConv2d) or len(readers[depthwise.name]) != 1:
            continue
        (project,) = readers[depthwise.name]
        if isinstance(project, Conv2d) and project.inputs[0] == depthwise.name and _is_pointwise(project):
            block = _cut(graph, expand, depthwise, project, threads)
            if _pays(graph, block):
                blocks.append(block)
    return tuple(blocks)


def _expands(op: Conv2d) -> bool:
    """A 1x1, or a stem; a 3x3 at stride 1 and a 7x7 stem have better ways than ours."""
    strided = op.stride != (1, 1) and op.kernel != winograd.STEM_KERNEL
    return len(op.inputs) == 1 and op.groups == 1 and (op.kernel == (1, 1) or strided)


def _is_pointwise(op: Conv2d) -> bool:
    return op.kernel == op.stride == (1, 1) and op.groups == 1 and not any(op.padding)


def _cut(graph: Graph, expand: Conv2d, depthwise: DepthwiseConv2d, project: Conv2d, threads: int) -> FusedBlock:
    height, width, _ = graph.shapes[project.name]
    tall = height >= TALL and height % (TALL_BAND_ROWS * threads) == 0  # every thread as many bands
    rows = height if height * width <= WHOLE_PIXELS else min(TALL_BAND_ROWS if tall else BAND_ROWS, height)
    block = FusedBlock(expand, depthwise, project, rows, LEAST_CHUNK)
    while block.chunk < expand.filters and 2 * ring_floats(graph, block) <= RING_FLOATS:
        block = dataclasses.replace(block, chunk=2 * block.chunk)  # powers of two: few different kernels
    return block


def _pays(graph: Graph, block: FusedBlock) -> bool:
    return sum(graph.shapes[op.name].elements for op in block.inner) >= LEAST_FLOATS


def ring_shape(graph: Graph, block: FusedBlock) -> tuple[Shape, Padding]:
    """Of one chunk's ring, and the zeros around it: left, right, and one row of them below."""
    depthwise, expanded = block.depthwise, graph.shapes[block.expand.name]
    width = graph.shapes[depthwise.name].width
    left = depthwise.padding.left
    reach = (width - 1) * depthwise.stride[1] + (depthwise.kernel[1] - 1) * depthwise.dilation[1] + 1
    right = max(0, reach - left - expanded.width)
    if (left + expanded.width + right) * block.chunk % CONFLICT_FLOATS == 0:
        right += 1  # rows would lie in the same sets of the first-level cache
    return Shape(block.span, expanded.width, block.chunk), Padding(0, left, 1, right)


def ring_floats(graph: Graph, block: FusedBlock) -> int:
    """Of one chunk, its zeros included."""
    shape, border = ring_shape(graph, block)
    return (shape.height + border.bottom) * (border.left + shape.width + border.right) * block.chunk


def ring_count(graph: Graph, block: FusedBlock) -> int:
    """One for every chunk; a single one where a single band leaves nothing for the next."""
    height, _, channels = graph.shapes[block.depthwise.name]
    return 1 if block.rows == height else math.ceil(channels / block.chunk)


def scratch_floats(graph: Graph, block: FusedBlock, pixel_stride: int) -> int:
    """The rings and one band of the depthwise output, whose pixels are `pixel_stride` floats apart."""
    width = graph.shapes[block.depthwise.name].width
    return ring_count(graph, block) * ring_floats(graph, block) + block.rows * width * pixel_stride
