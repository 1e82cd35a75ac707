"""Which choices can exist at all, and which of them are the same network. Rules of nature, not of a configuration.

Equalities, each a reason for one key:

- a skip has no weights, so it has neither scheme nor rate; rate 1 of any scheme is dense (`plain`);
- block-punched pruning takes (channel, kh, kw) columns of a filter block and block-based takes (channel) columns: on a
  1x1 kernel they are one, called block-based there; on a 3x3 kernel the column is a tap and is called block-punched;
- kernel-block pruning takes whole kernels of a filter block: on a 1x1 kernel that is a column, so block-based too;
- counts are whole numbers, so on a narrow layer two rates can keep the same units (`kept`), and a rate little above 1
  keeps everything;
- a layer with a single filter has one weight a column: unstructured pruning is column pruning there.

Not an equality: [A, skip] and [skip, A] on two blocks of one shape are the same graph with the same latency, but which
pre-trained block is dropped and which one's weights A inherits differ, and with them the accuracy that is measured.
Nor is a 3x3 on a one-pixel image a 1x1, although only its centre can matter: they compile to different programs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

from npas_ray.networks.backbone import Backbone, Block
from npas_ray.networks.operators import Cut, SubLayer, body_layers, head_layer, pruned_layers
from npas_ray.pruning.counts import PATTERN_MIN_RATE, PATTERN_POSITIONS, kept_pattern_channels, kept_units
from npas_ray.space.choices import LayerChoice, Operator, Scheme


@dataclass(frozen=True)
class Place:
    """Where a searchable layer stands: a block of the backbone, or its fully connected head."""

    name: str
    block: Block | None
    head: SubLayer | None = None

    def sub_layers(self, operator: Operator) -> tuple[SubLayer, ...]:
        """The convolutions that an operator is made of here; empty for skip."""
        if self.block is None:
            assert self.head is not None
            return (self.head,)
        return body_layers(self.block, operator)

    def pruned(self, choice: LayerChoice) -> tuple[SubLayer, ...]:
        """Those of them that the choice's scheme takes units from."""
        what = pruned_layers(choice)
        return () if what is None else tuple(s for s in self.sub_layers(choice.operator) if s.name in what.layers)


def places(backbone: Backbone) -> tuple[Place, ...]:
    """Every searchable layer of a backbone, in order; the head, called "fc", is the last."""
    head = (Place("fc", None, head_layer(backbone)),) if backbone.searchable_head else ()
    return (*(Place(block.name, block) for block in backbone.blocks), *head)


def plain(choice: LayerChoice) -> LayerChoice:
    """The choice by its proper name: equalities that hold on every layer. Contradictions stay as they are."""
    if choice.operator is Operator.SKIP:
        return LayerChoice(Operator.SKIP)
    if choice.rate == 1:
        return LayerChoice(choice.operator)
    if choice.scheme in (Scheme.BLOCK_PUNCHED, Scheme.BLOCK_BASED):
        return replace(choice, scheme=_block_scheme(choice.operator))
    if choice.scheme is Scheme.KERNEL_BLOCK and choice.operator is not Operator.CONV3X3:
        return replace(choice, scheme=Scheme.BLOCK_BASED)
    return choice


def _block_scheme(operator: Operator) -> Scheme:
    return Scheme.BLOCK_PUNCHED if operator is Operator.CONV3X3 else Scheme.BLOCK_BASED


def why_impossible(place: Place, choice: LayerChoice) -> str | None:
    """The first rule that the choice breaks at this place, as a sentence; None if it can exist."""
    return next((reason for rule in RULES if (reason := rule(place, choice)) is not None), None)


def _operator_fits_place(place: Place, choice: LayerChoice) -> str | None:
    """A block computes on an image, the head on a vector."""
    if place.block is None and choice.operator is not Operator.FC:
        return "this layer is the fully connected head, its operator is 'fc'"
    if place.block is not None and choice.operator is Operator.FC:
        return "'fc' is the operator of the fully connected head only"
    return None


def _skip_keeps_shape(place: Place, choice: LayerChoice) -> str | None:
    """What a skip hands on is its input: the next block expects this block's output shape."""
    block = place.block
    if choice.operator is not Operator.SKIP or block is None or block.keeps_shape:
        return None
    return (
        f"skip hands its input on unchanged, and this block goes from {block.in_channels} to {block.out_channels} "
        f"channels with stride {block.stride}"
    )


def _rate_is_a_rate(place: Place, choice: LayerChoice) -> str | None:
    """Pruning removes weights, it does not add any."""
    if math.isfinite(choice.rate) and choice.rate >= 1:
        return None
    return f"a rate is weights before / weights kept, a number >= 1; got {choice.rate:g}"


def _dense_is_rate_one(place: Place, choice: LayerChoice) -> str | None:
    """A scheme that takes nothing is no scheme, and dense takes nothing."""
    if choice.scheme is Scheme.DENSE and choice.rate != 1:
        return f"dense keeps every weight, so its rate is 1; got {choice.rate:g}"
    if choice.scheme is not Scheme.DENSE and (choice.rate == 1 or choice.operator is Operator.SKIP):
        return f"nothing is pruned here, so the scheme is dense; got {choice.scheme.value}"
    return None


def _scheme_fits_operator(place: Place, choice: LayerChoice) -> str | None:
    """Each scheme needs the unit that it takes."""
    operator = choice.operator
    match choice.scheme:
        case Scheme.FILTER if operator is Operator.FC:
            return "the filters of the head are the classes: filter pruning would remove classes"
        case Scheme.PATTERN if operator is not Operator.CONV3X3:
            return "patterns are of 3x3 CONV kernels, and this operator has none (its depthwise part is never pruned)"
        case Scheme.BLOCK_PUNCHED if _block_scheme(operator) is not Scheme.BLOCK_PUNCHED:
            return "without a CONV larger than 1x1 there is one position to punch; it is called block-based there"
        case Scheme.BLOCK_BASED if _block_scheme(operator) is not Scheme.BLOCK_BASED:
            return "block-based is for 1x1 CONV and FC; on larger kernels columns of a block are called block-punched"
        case Scheme.KERNEL_BLOCK if operator is not Operator.CONV3X3:
            return "without a CONV larger than 1x1 a whole kernel is one column; it is called block-based there"
    return None


def _pattern_rate(place: Place, choice: LayerChoice) -> str | None:
    """Keeping 4 of 9 positions in every channel is the gentlest pattern pruning."""
    if choice.scheme is Scheme.PATTERN and choice.rate < PATTERN_MIN_RATE:
        return f"a pattern keeps 4 of 9 positions, so its rate is {PATTERN_MIN_RATE:g} or more; got {choice.rate:g}"
    return None


def _something_is_left(place: Place, choice: LayerChoice) -> str | None:
    """A rate that a layer cannot reach, because less than one unit would be left, promises a speed it does not have."""
    for layer in place.pruned(choice):
        for unit, count, rate in _units(layer, choice):
            if count < rate:
                return f"{layer.name} has {count} {unit}, and less than one of them would be left"
    return None


RULES: tuple[Callable[[Place, LayerChoice], str | None], ...] = (
    _operator_fits_place,
    _skip_keeps_shape,
    _rate_is_a_rate,
    _dense_is_rate_one,
    _scheme_fits_operator,
    _pattern_rate,
    _something_is_left,
)


def _units(layer: SubLayer, choice: LayerChoice) -> tuple[tuple[str, int, float], ...]:
    """What the scheme takes of one sub-layer: name, number and rate of its units; nothing of a depthwise part."""
    if layer.depthwise:
        return ()
    filters, channels, kh, kw = layer.weight_shape
    match choice.scheme:
        case Scheme.FILTER:
            what = pruned_layers(choice)
            if what is not None and what.cut is Cut.EXPANSION and layer.name != "expand":
                return ()  # its channels are the filters of expand
            return (("filters", filters, choice.rate),)
        case Scheme.PATTERN:
            return (("channels", channels, choice.rate / PATTERN_MIN_RATE),)
        case Scheme.KERNEL_BLOCK:
            return (("kernels", channels, choice.rate),)
        case Scheme.UNSTRUCTURED if filters > 1:
            return (("weights", filters * channels * kh * kw, choice.rate),)
    return (("taps", channels * kh * kw, choice.rate),)


def kept(place: Place, choice: LayerChoice) -> Hashable:
    """What is left of a layer, in units: two possible choices of a place are one network iff these are equal."""
    left = []
    for layer in place.pruned(choice):
        for unit, count, rate in _units(layer, choice):
            pattern = choice.scheme is Scheme.PATTERN
            keep = kept_pattern_channels(count, choice.rate) if pattern else kept_units(count, rate)
            if pattern:
                left.append((layer.name, f"{PATTERN_POSITIONS} positions", keep))
            elif keep < count:
                left.append((layer.name, unit, keep))
    return choice.operator, tuple(left)
