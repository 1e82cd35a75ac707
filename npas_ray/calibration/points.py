"""The break-even map of a search space: every pruned choice of every layer against the same operator, dense."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from device_farm.calibration.breakeven import Point, verdict
from npas_ray.calibration.pieces import Piece, Reader, first_reader
from npas_ray.calibration.prediction import CandidatePredictor
from npas_ray.space.choices import Architecture, LayerChoice, Operator, Scheme
from npas_ray.space.search_space import SearchSpace


def breakeven_map(
    space: SearchSpace, predictor: CandidatePredictor, measured: Sequence[Architecture]
) -> tuple[Point, ...]:
    """A point for each choice that has a dense rival in the space. Dense is the best dense kernel, Winograd included.

    Where the next layer's border changes a layer's kernels, the border that flatters the choice most counts: what is
    called slower is slower before every reader.
    """
    seen = [Counter(architecture.layers[layer] for architecture in measured) for layer in range(space.layers)]
    points = []
    for layer, name in enumerate(space.layer_names):
        for choice in space.choices(layer):
            dense = LayerChoice(choice.operator)
            if choice.scheme is Scheme.DENSE or dense not in space.choices(layer):
                continue
            compared = [_compare(predictor, layer, choice, dense, reader) for reader in _readers(space, layer)]
            time_ms, against_ms, difference_ms, std_ms = min(compared, key=lambda c: c[2] - 2 * c[3])
            points.append(
                Point(
                    layer=name,
                    choice=str(choice),
                    against=str(dense),
                    time_ms=max(time_ms, 0.0),
                    against_ms=max(against_ms, 0.0),
                    difference_ms=difference_ms,
                    std_ms=std_ms,
                    seen=seen[layer][choice],
                    verdict=verdict(difference_ms, std_ms=std_ms, against_ms=max(against_ms, 0.0)),
                )
            )
    return tuple(points)


def _compare(
    predictor: CandidatePredictor, layer: int, choice: LayerChoice, dense: LayerChoice, reader: Reader
) -> tuple[float, float, float, float]:
    """Times of both, their difference and its standard deviation, in ms."""
    a, b = predictor.part(Piece(layer, choice, reader)), predictor.part(Piece(layer, dense, reader))
    model = predictor.predictor
    return model.time_ms([a]), model.time_ms([b]), *model.difference([a], [b])


def _readers(space: SearchSpace, layer: int) -> list[Reader]:
    """Who may read a layer's output: the first layer behind it that is not skipped, or the pooling."""
    blocks = space.backbone.blocks
    if layer >= len(blocks):
        return [None]
    return list(dict.fromkeys(_reading(space, layer)))


def _reading(space: SearchSpace, layer: int) -> Iterator[Reader]:
    blocks = space.backbone.blocks
    for index in range(layer + 1, len(blocks)):
        operators = {choice.operator for choice in space.choices(index)}
        yield from sorted(
            reader for operator in operators if (reader := first_reader(blocks[index], operator)) is not None
        )
        if Operator.SKIP not in operators:
            return
    yield None
