"""What a kernel depends on. A spec is all of its kernel's identity: whatever is not in it is a run-time argument.

No TVM in here, so that a compilation whose kernels are all in the cache never imports it. The emitters beside this
file turn a spec into TIR.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from device_farm.compiler.graph import Activation, PoolKind

# FLOATS are of the target's element type, FLOAT is float32 always
FLOATS_IN, FLOATS_OUT, INTS_IN = "const npas_element_t *", "npas_element_t *", "const int32_t *"
INT, FLOAT = "int32_t", "float"
Parameters = tuple[tuple[str, str], ...]  # (name, C type)


@dataclass(frozen=True)
class KernelSpec:
    """Base of all specs. `emitter` is the module beside this one that generates it; `parameters` its C signature."""

    emitter: ClassVar[str]
    parameters: ClassVar[Parameters]

    @property
    def description(self) -> str:
        """Canonical text: equal for equal specs."""
        return json.dumps([type(self).__name__, dataclasses.asdict(self)], sort_keys=True)


def _signature(kind: str, names: str) -> Parameters:
    return tuple((name, kind) for name in names.split())


@dataclass(frozen=True)
class ConvKernel(KernelSpec):
    """Gathered GEMM: for every block of `vectors` SIMD vectors of filters, sum over its taps, for a tile of pixels.

    A tile is `tile_rows` x `tile_columns` output pixels. The last tile of a row or column is shifted back to fit, and
    computes some pixels twice. x points at the first window's first pixel; a tap is an offset in floats from there.
    A tap may stand for `tap_channels` adjacent channels, whose weights follow one another.
    Strides are in floats. `rows` and `columns` are pixels of the output; `band` and `strip` are in tiles.
    `apart` is 0: how far behind x the second vector's x lies, of which the compiler must not know that it is the same.
    """

    vectors: int
    vector_lanes: int  # of the vectors of filters, which may be narrower than the target's widest
    tap_channels: int
    tile_rows: int
    tile_columns: int
    pixel_stride: int  # in x, from one output pixel's window to the next
    line_stride: (
        int  # in x, from one output row's windows to the next; 0 where tile_rows is 1, as it then is no constant
    )
    tap_unroll: int  # independent sums over taps, which hide the latency of small tiles
    activation: Activation
    residual: bool
    # taps that are summed in the element's type at once; their sums are added up in float32. 0: all taps
    part_taps: int = 0
    y_pixel: int = 0  # in y, from one pixel to the next, where that is a constant; 0: the argument says it
    prefetch_weights: bool = False  # of the next block, while this one is computed

    emitter: ClassVar[str] = "conv"
    parameters: ClassVar[Parameters] = (
        _signature(FLOATS_IN, "x")
        + _signature(FLOATS_OUT, "y")
        + _signature(FLOATS_IN, "weights bias residual")
        + _signature(INTS_IN, "taps pointers")
        + _signature(INT, "blocks band strip rows columns x_row y_row y_pixel r_row r_pixel apart")
    )


@dataclass(frozen=True)
class PlanesKernel(KernelSpec):
    """y holds planes of x, `plane` floats apart: number i of a plane is that of the pixel at sources[i] in x.

    For `vectors` vectors of channels and `groups` vectors of a plane.
    """

    emitter: ClassVar[str] = "planes"
    parameters: ClassVar[Parameters] = (
        _signature(FLOATS_IN, "x")
        + _signature(FLOATS_OUT, "y")
        + _signature(INTS_IN, "sources")
        + _signature(INT, "groups vectors plane")
    )


@dataclass(frozen=True)
class PlanarKernel(KernelSpec):
    """Gathered GEMM in blocks of eight filters, for a tile of `vectors` SIMD vectors of pixels and `singles` more.

    x holds planes (compiler/planar.py): a tap is an offset from there, pixels follow one another. Pixel i of `pixels`
    goes to targets[i] in y and has its residual at r_targets[i]; the last tile is shifted back to fit. `apart` is 0, of
    which the compiler must not know.

    x, y or the residual may be tiled (TiledPlanes): they have `_tile` elements a tile, whose single pixels begin
    `_singles` elements behind its beginning; a tap of a tiled x is a channel. If any is tiled, no tile is shifted back.
    """

    vectors: int
    singles: int
    activation: Activation
    residual: bool
    x_tiled: bool = False
    y_tiled: bool = False
    r_tiled: bool = False

    emitter: ClassVar[str] = "planar"
    parameters: ClassVar[Parameters] = (
        _signature(FLOATS_IN, "x")
        + _signature(FLOATS_OUT, "y")
        + _signature(FLOATS_IN, "weights bias residual")
        + _signature(INTS_IN, "taps pointers targets r_targets")
        + _signature(INT, "blocks pixels apart x_tile x_singles y_tile y_singles r_tile r_singles")
    )


@dataclass(frozen=True)
class DepthwiseKernel(KernelSpec):
    """Depthwise convolution of a tile of pixels, SIMD over channels, weights in registers."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    tile_rows: int
    tile_columns: int
    pixel_stride: int  # floats a pixel, of x and y
    activation: Activation

    emitter: ClassVar[str] = "depthwise"
    parameters: ClassVar[Parameters] = (
        _signature(FLOATS_IN, "x")
        + _signature(FLOATS_OUT, "y")
        + _signature(FLOATS_IN, "weights bias")
        + _signature(INT, "rows columns x_row y_row")
    )


@dataclass(frozen=True)
class RingDepthwiseKernel(DepthwiseKernel):
    """The same, where row r of the padded image begins at lines[r] in x, and the strides of y and weights are free.

    `pixel_stride` is that of x, `vectors` of which are computed. By `row_pairs`, a tile of two rows of a 3x3 at
    stride 1 is computed by F(2, 3) down every column (compiler/sliding.py).
    """

    row_pairs: bool = False

    parameters: ClassVar[Parameters] = (
        _signature(FLOATS_IN, "x")
        + _signature(FLOATS_OUT, "y")
        + _signature(FLOATS_IN, "weights bias")
        + _signature(INTS_IN, "lines")
        + _signature(INT, "rows columns vectors w_row y_row y_pixel")
    )


@dataclass(frozen=True)
class PoolKernel(KernelSpec):
    """Pooling over windows that are cut at the image's edge; `scale` is 1 / window for averages."""

    pool: PoolKind

    emitter: ClassVar[str] = "pool"
    parameters: ClassVar[Parameters] = (
        _signature(FLOATS_IN, "x")
        + _signature(FLOATS_OUT, "y")
        + _signature(FLOAT, "scale")
        + _signature(
            INT,
            "rows columns vectors height width window_height window_width stride_y stride_x top left "
            "x_row x_pixel y_row y_pixel",
        )
    )


class Elementwise(StrEnum):
    """What an elementwise kernel does with its two operands; NOTHING reads the first one only."""

    NOTHING = "nothing"
    ADD = "add"
    MULTIPLY = "multiply"


@dataclass(frozen=True)
class ElementwiseKernel(KernelSpec):
    """y = activation(a [operation b]) over rows of columns of whole vectors; b is the same for all columns of a row."""

    operation: Elementwise
    activation: Activation

    emitter: ClassVar[str] = "elementwise"
    parameters: ClassVar[Parameters] = (
        _signature(FLOATS_IN, "a b")
        + _signature(FLOATS_OUT, "y")
        + _signature(INT, "rows columns vectors pixel a_row b_row y_row")
    )


@dataclass(frozen=True)
class ResizeKernel(KernelSpec):
    """Copies `copied` vectors and `tail` single channels of every pixel and zeroes the rest up to `vectors`."""

    emitter: ClassVar[str] = "resize"
    parameters: ClassVar[Parameters] = (
        _signature(FLOATS_IN, "x")
        + _signature(FLOATS_OUT, "y")
        + _signature(INT, "rows columns copied tail vectors x_row x_pixel y_row y_pixel")
    )


@dataclass(frozen=True)
class SoftmaxKernel(KernelSpec):
    """Softmax over the `channels` of every pixel; zeroes the lanes behind them."""

    emitter: ClassVar[str] = "softmax"
    parameters: ClassVar[Parameters] = (
        _signature(FLOATS_IN, "x")
        + _signature(FLOATS_OUT, "y")
        + _signature(INT, "rows columns channels vectors x_row x_pixel y_row y_pixel")
    )


@dataclass(frozen=True)
class ShuffleKernel(KernelSpec):
    """Channel i * groups + g becomes channel g * channels + i of x, for `channels` channels a group."""

    emitter: ClassVar[str] = "shuffle"
    parameters: ClassVar[Parameters] = (
        _signature(FLOATS_IN, "x")
        + _signature(FLOATS_OUT, "y")
        + _signature(INT, "rows columns groups channels vectors x_row x_pixel y_row y_pixel")
    )


@dataclass(frozen=True)
class ScatterKernel(KernelSpec):
    """Zeroes `vectors` vectors of every pixel, then writes channel i to channel index[i]."""

    emitter: ClassVar[str] = "scatter"
    parameters: ClassVar[Parameters] = (
        _signature(FLOATS_IN, "x")
        + _signature(FLOATS_OUT, "y")
        + _signature(INTS_IN, "index")
        + _signature(INT, "rows columns channels vectors x_row x_pixel y_row y_pixel")
    )


@dataclass(frozen=True)
class PhasesKernel(KernelSpec):
    """Pixel (r, c) of y: pixels (2r, 2c), (2r, 2c + 1), (2r + 1, 2c), (2r + 1, 2c + 1) of x, and anything behind them.

    Rows and columns of y are written in rising order, so the vectors of a pixel may stick out into the next.
    """

    channels: int  # of x, whose pixels follow one another without a gap
    pixel: int  # floats a pixel of y

    emitter: ClassVar[str] = "phases"
    parameters: ClassVar[Parameters] = (
        _signature(FLOATS_IN, "x") + _signature(FLOATS_OUT, "y") + _signature(INT, "rows columns x_row")
    )


@dataclass(frozen=True)
class WinogradInput(KernelSpec):
    """Input -> V (compiler/winograd.py) for `tiles` tiles from `first` on. `rows` and `columns` are the output's."""

    tile: int  # output pixels of a tile in each direction
    taps: int = 3  # rows and columns of the kernel

    emitter: ClassVar[str] = "winograd"
    parameters: ClassVar[Parameters] = (
        _signature(FLOATS_IN, "x")
        + _signature(FLOATS_OUT, "v")
        + _signature(INT, "first tiles tile_columns rows columns vectors x_row x_pixel v_tile v_plane")
    )


@dataclass(frozen=True)
class WinogradProduct(KernelSpec):
    """V and weights [planes, blocks, channels, filters of a block] -> M, for a block of tiles.

    With `prefetch_weights`, every block asks for the next one's, which lie behind its own.
    """

    vectors: int
    tiles: int  # at once, in registers; the last ones are shifted back
    part_channels: int = 0  # as part_taps of ConvKernel
    prefetch_weights: bool = False

    emitter: ClassVar[str] = "winograd"
    parameters: ClassVar[Parameters] = (
        _signature(FLOATS_IN, "v weights")
        + _signature(FLOATS_OUT, "m")
        + _signature(INT, "planes blocks tiles channels v_tile v_plane m_tile m_plane")
    )


@dataclass(frozen=True)
class WinogradGatheredProduct(WinogradProduct):
    """The same where block b multiplies the channels lists[pointers[b]] .. lists[pointers[b + 1] - 1] only.

    Weights are [planes, channels of all blocks, filters of a block]. The tiles' distance is a constant: with a list of
    channels LLVM would otherwise keep an address for every tile, and spill the sums.
    """

    v_tile: int = 0

    parameters: ClassVar[Parameters] = (
        _signature(FLOATS_IN, "v weights")
        + _signature(FLOATS_OUT, "m")
        + _signature(INTS_IN, "lists pointers")
        + _signature(INT, "planes blocks tiles v_plane m_tile m_plane")
    )


@dataclass(frozen=True)
class WinogradOutput(KernelSpec):
    """M -> output + bias [+ residual], activated, for `tiles` tiles from tile `first` on."""

    tile: int
    activation: Activation
    residual: bool
    taps: int = 3

    emitter: ClassVar[str] = "winograd"
    parameters: ClassVar[Parameters] = (
        _signature(FLOATS_IN, "m bias residual")
        + _signature(FLOATS_OUT, "y")
        + _signature(INT, "first tiles tile_columns rows columns vectors m_tile m_plane y_row y_pixel r_row r_pixel")
    )


@dataclass(frozen=True)
class PeakKernel(KernelSpec):
    """Nothing but multiply-adds in registers: `chains` vectors that converge to x. No layer needs it; peak.py does."""

    chains: int

    emitter: ClassVar[str] = "peak"
    parameters: ClassVar[Parameters] = (
        _signature(FLOATS_IN, "x") + _signature(FLOATS_OUT, "y") + _signature(INT, "rounds")
    )
