"""A candidate's steps, block by block: what a block compiles to depends on its choice and on the border that its reader
needs, and on nothing else. So every piece is lowered once, and a candidate costs a dictionary look-up a layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from device_farm.calibration.steps import StepShape, describe
from device_farm.compiler.target import Target
from npas_ray.networks.backbone import Backbone, Block
from npas_ray.networks.lowering import lower
from npas_ray.networks.operators import BLOCK_OPERATORS, body_layers, layer_choices
from npas_ray.space.choices import Architecture, LayerChoice, Operator

#: (kernel, stride) of the convolution that reads a block's output; None for the pooling at the end
Reader = tuple[int, int] | None


@dataclass(frozen=True)
class Piece:
    """A part of a candidate: the stem (-1), a block by its index, or pooling and head (the number of blocks)."""

    index: int
    choice: LayerChoice | None
    reader: Reader


@dataclass(frozen=True)
class Pieces:
    """The candidates of one backbone on one target, cut into pieces."""

    backbone: Backbone
    target: Target
    block_height: int
    _steps: dict[Piece, tuple[StepShape, ...]] = field(default_factory=dict, compare=False, repr=False)

    def of(self, architecture: Architecture) -> tuple[Piece, ...]:
        """The pieces of a candidate, in order. Raises ValueError if the number of layers is wrong."""
        choices = layer_choices(self.backbone, architecture)
        blocks = self.backbone.blocks
        pieces = [Piece(len(blocks), choices[-1], None)]
        reader: Reader = None
        for index in reversed(range(len(blocks))):
            pieces.append(Piece(index, choices[index], reader))
            reader = first_reader(blocks[index], choices[index].operator) or reader
        pieces.append(Piece(-1, None, reader))
        return tuple(reversed(pieces))

    def steps(self, piece: Piece) -> tuple[StepShape, ...]:
        """What a piece compiles to. Raises UnsupportedOperator, ValueError."""
        known = self._steps.get(piece)
        if known is None:
            known = self._steps[piece] = self._lowered(piece)
        return known

    def candidate(self, architecture: Architecture) -> Iterator[StepShape]:
        """All steps of a candidate."""
        for piece in self.of(architecture):
            yield from self.steps(piece)

    def _lowered(self, piece: Piece) -> tuple[StepShape, ...]:
        frame, blocks = self.backbone, self.backbone.blocks
        names: tuple[str, ...]
        if piece.index == len(blocks):
            frame, names = self._head(), ("pool", "fc")
        elif piece.index < 0:
            frame, names = replace(frame, blocks=(), searchable_head=False), ("stem",)
        else:
            block = blocks[piece.index]
            frame, names = _around(block), (f"{block.name}.",)
        choices = [] if piece.choice is None else [piece.choice]
        if piece.index == len(blocks):
            choices = choices if frame.searchable_head else []
        elif piece.reader is not None:
            frame, reads = _read_by(frame, piece.reader)
            choices.append(reads)
        graph = lower(frame, Architecture(tuple(choices)), block_height=self.block_height)
        return tuple(step for step in describe(graph, self.target) if step.name.startswith(names))

    def _head(self) -> Backbone:
        """Pooling and head alone, behind a stem that gives what the last block would."""
        height, width, channels = _end(self.backbone)
        return replace(
            self.backbone, input_channels=1, input_height=height, input_width=width,
            stem_channels=channels, stem_stride=1, blocks=(),
        )  # fmt: skip


def first_reader(block: Block, operator: Operator) -> Reader:
    """How a block reads its input; None if it is skipped."""
    layers = body_layers(block, operator)
    return (layers[0].kernel, layers[0].stride) if layers else None


def _around(block: Block) -> Backbone:
    """A network of one block."""
    return Backbone("piece", 1, block.height, block.width, block.in_channels, 1, (block,), classes=1)


def _end(backbone: Backbone) -> tuple[int, int, int]:
    """Height, width and channels of what the blocks give."""
    if not backbone.blocks:
        stride = backbone.stem_stride
        return -(-backbone.input_height // stride), -(-backbone.input_width // stride), backbone.stem_channels
    last = backbone.blocks[-1]
    return -(-last.height // last.stride), -(-last.width // last.stride), last.out_channels


def _read_by(frame: Backbone, reader: tuple[int, int]) -> tuple[Backbone, LayerChoice]:
    """The network with a block behind it that reads as `reader` says. Its other channels are few: it is thrown away."""
    height, width, channels = _end(frame)
    block = Block("reader", channels, 1, reader[1], height, width)
    operator = next(operator for operator in BLOCK_OPERATORS if first_reader(block, operator) == reader)
    return replace(frame, blocks=(*frame.blocks, block)), LayerChoice(operator)
