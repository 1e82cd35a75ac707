"""A candidate as a labelled graph: what the Weisfeiler-Lehman kernel compares (nas-bowl)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from npas_ray.errors import SpaceError
from npas_ray.networks.backbone import Backbone
from npas_ray.networks.operators import SubLayer, pruned_layers
from npas_ray.space.choices import Architecture, LayerChoice, Operator
from npas_ray.space.legality import Place, places


@dataclass(frozen=True)
class LabelledGraph:
    """A directed acyclic graph in topological order: every edge goes from a lower to a higher node."""

    labels: tuple[str, ...]  # what each node computes
    layers: tuple[int | None, ...]  # the searchable layer that each node belongs to; None for the frame
    edges: tuple[tuple[int, int], ...]  # (from, to), sorted

    @cached_property
    def predecessors(self) -> tuple[tuple[int, ...], ...]:
        """For each node those that it reads."""
        return tuple(tuple(a for a, b in self.edges if b == node) for node in range(len(self.labels)))

    @cached_property
    def successors(self) -> tuple[tuple[int, ...], ...]:
        """For each node those that read it."""
        return tuple(tuple(b for a, b in self.edges if a == node) for node in range(len(self.labels)))

    @cached_property
    def neighbours(self) -> tuple[tuple[int, ...], ...]:
        """For each node those at either end of its edges."""
        return tuple((*before, *after) for before, after in zip(self.predecessors, self.successors, strict=True))


def labelled_graph(backbone: Backbone, architecture: Architecture) -> LabelledGraph:
    """The graph of a candidate: input, stem, the parts of every layer, pool, fc, output.

    A block is the chain of its operator's convolutions, each labelled with its kernel and, if the scheme takes units
    from it, scheme and rate ("1x1/block-based@5", "3x3dw"); then the sum with the shortcut ("add"). A shortcut is an
    edge, with a node ("resize") where the block changes the shape. A skipped block is one node ("skip"), so that its
    place is seen. Equal graphs come from equal canonical architectures only.
    Raises SpaceError if the number of layers is wrong.
    """
    stands = places(backbone)
    if len(architecture.layers) != len(stands):
        raise SpaceError(f"backbone {backbone.name!r} has {len(stands)} layers, got {len(architecture.layers)}")
    labels: list[str] = []
    layers: list[int | None] = []
    edges: list[tuple[int, int]] = []

    def node(label: str, layer: int | None, *inputs: int) -> int:
        labels.append(label)
        layers.append(layer)
        edges.extend((source, len(labels) - 1) for source in inputs)
        return len(labels) - 1

    last = node("stem", None, node("input", None))
    for index, (place, choice) in enumerate(zip(stands, architecture.layers, strict=True)):
        if place.block is None:
            break
        if choice.operator is Operator.SKIP:
            last = node("skip", index, last)
            continue
        start = last
        for label in _part_labels(place, choice):
            last = node(label, index, last)
        last = node("add", index, last, start if place.block.keeps_shape else node("resize", index, start))
    pool = node("pool", None, last)
    head = len(stands) - 1 if backbone.searchable_head else None
    fc = LayerChoice(Operator.FC) if head is None else architecture.layers[head]
    node("output", None, node(str(fc), head, pool))
    return LabelledGraph(tuple(labels), tuple(layers), tuple(sorted(edges)))


def _part_labels(place: Place, choice: LayerChoice) -> list[str]:
    """A label for each convolution of an operator."""
    what = pruned_layers(choice)
    cut = () if what is None else what.layers
    pruning = f"/{choice.scheme.value}@{choice.rate:g}"
    return [_kernel(part) + (pruning if part.name in cut else "") for part in place.sub_layers(choice.operator)]


def _kernel(layer: SubLayer) -> str:
    return f"{layer.kernel}x{layer.kernel}" + ("dw" if layer.depthwise else "")
