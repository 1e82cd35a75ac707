"""The search space: which architectures there are, which of them are one network, and how to walk among them.

Everything is layer by layer: a layer's legal choices do not depend on the other layers, so the space is the product of
its layers' choices, and its size is a product of small numbers even where it is 10^40 and more.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np

from npas_ray.errors import SpaceError
from npas_ray.networks.backbone import Backbone
from npas_ray.space.allowed import OPERATORS, SCHEMES, Allowed, mapping, one_of
from npas_ray.space.choices import RATES, Architecture, LayerChoice, Operator, Scheme
from npas_ray.space.layers import enumerate_layer, why_not_allowed
from npas_ray.space.legality import places, plain, why_impossible
from npas_ray.space.steps import nearest_choice


class SearchSpace:
    """The architectures that fill a backbone (npas: filter type x pruning scheme x rate, for each layer).

    `operators`, `schemes` and `rates` are allowed on every layer; `layers` replaces them for single layers, by block
    name, or "fc" for a searchable head (whose operator is always "fc"). See legality.py for the rules and equalities.

    Raises SpaceError: nothing to search, an unknown layer, or a layer without a single legal choice.

    >>> from npas_ray.networks.backbone import DIGITS
    >>> space = SearchSpace(DIGITS, operators=(Operator.CONV3X3, Operator.SKIP), schemes=(Scheme.FILTER,), rates=(1, 2))
    >>> [str(choice) for choice in space.choices(0)]
    ['3x3', '3x3/filter@2', 'skip']
    >>> space.size
    972
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        operators: Sequence[Operator] = OPERATORS,
        schemes: Sequence[Scheme] = SCHEMES,
        rates: Sequence[float] = RATES,
        layers: Mapping[str, Allowed] | None = None,
    ) -> None:
        self.backbone = backbone
        common = Allowed(tuple(operators), tuple(schemes), tuple(rates))
        single = dict(layers or {})
        stands = places(backbone)
        if not stands:
            raise SpaceError(f"backbone {backbone.name!r} has no searchable layer")
        mapping(single, "layers", keys=[place.name for place in stands], noun="layer")
        self._layers = tuple(enumerate_layer(place, single.get(place.name, common)) for place in stands)

    @classmethod
    def from_spec(cls, backbone: Backbone, spec: object, *, where: str = "space") -> SearchSpace:
        """A space from plain data, as YAML gives it. What is left out is allowed by default.

        Keys: `operators`, `schemes`, `rates` (lists), and `layers`, a mapping from a layer's name to the same three.
        Raises SpaceError naming the place under `where`, what was got, and the nearest valid name.

        >>> from npas_ray.networks.backbone import DIGITS
        >>> SearchSpace.from_spec(DIGITS, {"operators": ["3x3d"]})
        Traceback (most recent call last):
        npas_ray.errors.SpaceError: space.operators[0]: unknown operator '3x3d', did you mean '3x3dw+1x1'? \
(1x1, 3x3, 3x3dw+1x1, 1x1+3x3dw+1x1, skip, fc)
        """
        keys = ("operators", "schemes", "rates", "layers")
        given = dict(mapping({} if spec is None else spec, where, keys=keys))
        single = given.pop("layers", None)
        single = {} if single is None else single
        common = Allowed().with_spec(given, where)
        stands = places(backbone)
        names = [place.name for place in stands]
        layers = {}
        for name, lists in mapping(single, f"{where}.layers", keys=names, noun="layer").items():
            layers[name] = common.with_spec(lists, f"{where}.layers.{name}")
        try:
            return cls(
                backbone,
                operators=common.operators,
                schemes=common.schemes,
                rates=common.rates,
                layers=layers,
            )
        except SpaceError as error:
            raise SpaceError(f"{where}: {error}") from None

    def without(self, reasons: Mapping[str, Mapping[LayerChoice, str]]) -> SearchSpace:
        """This without some choices, by layer name, with the reason why. Raises SpaceError: a layer without any."""
        mapping(reasons, "without", keys=self.layer_names, noun="layer")
        space = copy.copy(self)
        space.__dict__.pop("size", None)  # cached, of this one
        space._layers = tuple(layer.without(reasons.get(layer.place.name, {})) for layer in self._layers)
        return space

    def __repr__(self) -> str:
        magnitude = math.log10(self.size)
        return f"SearchSpace({self.backbone.name!r}, {self.layers} layers, 10^{magnitude:.1f} architectures)"

    # What there is

    @property
    def layers(self) -> int:
        """Number of searchable layers."""
        return len(self._layers)

    @property
    def layer_names(self) -> tuple[str, ...]:
        return tuple(layer.place.name for layer in self._layers)

    @cached_property
    def size(self) -> int:
        """Number of distinct canonical architectures, exactly."""
        return math.prod(len(layer.choices) for layer in self._layers)

    def choices(self, layer_index: int) -> tuple[LayerChoice, ...]:
        """The legal choices of a layer, one for each distinct network, in an order that depends on the space alone."""
        return self._layers[layer_index].choices

    def __iter__(self) -> Iterator[Architecture]:
        """Every canonical architecture once, the last layer varying fastest. For small spaces."""
        return (Architecture(layers) for layers in itertools.product(*(layer.choices for layer in self._layers)))

    def __contains__(self, architecture: object) -> bool:
        """Whether this is one of the canonical architectures of the space."""
        return (
            isinstance(architecture, Architecture)
            and len(architecture.layers) == len(self._layers)
            and all(choice in layer.position for layer, choice in zip(self._layers, architecture.layers, strict=True))
        )

    # Legality and equality

    def why_illegal(self, layer_index: int, choice: LayerChoice) -> str | None:
        """Why a layer cannot become this, as a sentence; None if it can. Equal choices are equally legal."""
        layer = self._layers[layer_index]
        choice = plain(choice)
        if choice in layer.representative:
            return None
        if choice in layer.left_out:
            return layer.left_out[choice]
        return why_impossible(layer.place, choice) or why_not_allowed(layer.allowed, choice)

    def is_legal(self, architecture: Architecture) -> bool:
        """Whether it, or rather the canonical architecture that it equals, is in the space."""
        return len(architecture.layers) == len(self._layers) and self.canonical(architecture) in self

    def canonical(self, architecture: Architecture) -> Architecture:
        """The one architecture that stands for all equal networks; idempotent. Illegal choices stay as they are.

        Within one space, networks are equal iff the keys of their canonical architectures are: of equal choices the
        first scheme and the lowest rate that the space allows stands for all.
        Raises SpaceError if the number of layers is wrong.
        """
        self._check_length(architecture)
        return Architecture(
            tuple(
                layer.representative.get(plain(choice), plain(choice))
                for layer, choice in zip(self._layers, architecture.layers, strict=True)
            )
        )

    def validate(self, architecture: Architecture) -> Architecture:
        """The canonical architecture. Raises SpaceError: the layer, what was got and why not, the nearest legal one."""
        self._check_length(architecture)
        for index, choice in enumerate(architecture.layers):
            reason = self.why_illegal(index, choice)
            if reason is not None:
                name, nearest = self.layer_names[index], nearest_choice(plain(choice), self.choices(index))
                raise SpaceError(f"layer {index} ({name}): got {choice}: {reason}; nearest legal choice: {nearest}")
        return self.canonical(architecture)

    def parse(self, texts: Sequence[str]) -> Architecture:
        """An architecture of this space as it is written, such as ["3x3/filter@2", "skip"]; canonical.

        Raises SpaceError: the layer, what was got, what is expected and the nearest valid name.
        """
        if isinstance(texts, str) or not isinstance(texts, Sequence) or not all(isinstance(t, str) for t in texts):
            raise SpaceError(f"an architecture is a list of {self.layers} layer choices, got {str(texts)[:80]!r}")
        self._check_length(texts)
        named = zip(self.layer_names, texts, strict=True)
        return self.validate(
            Architecture(tuple(_parse(text, f"layer {index} ({name})") for index, (name, text) in enumerate(named)))
        )

    # Walking

    def sample(self, rng: np.random.Generator) -> Architecture:
        """One of the architectures, each with equal probability."""
        return Architecture(tuple(layer.choices[rng.integers(len(layer.choices))] for layer in self._layers))

    def neighbours(self, architecture: Architecture) -> Iterator[Architecture]:
        """All architectures that differ in exactly one layer, in order. Raises SpaceError (validate)."""
        layers = self.validate(architecture).layers
        for index, layer in enumerate(self._layers):
            for choice in layer.choices:
                if choice != layers[index]:
                    yield _replaced(layers, index, choice)

    def near_neighbours(self, architecture: Architecture) -> Iterator[Architecture]:
        """Those of the neighbours that are one small step away: see steps.py. Raises SpaceError (validate)."""
        layers = self.validate(architecture).layers
        for index, layer in enumerate(self._layers):
            for near in layer.near[layer.position[layers[index]]]:
                yield _replaced(layers, index, layer.choices[near])

    def mutate(self, architecture: Architecture, rng: np.random.Generator, *, near: bool = True) -> Architecture:
        """A random neighbour: a layer that has another choice, then one of its (near) other choices, uniformly.

        The only architecture of a space mutates into itself. Raises SpaceError (validate).
        """
        layers = self.validate(architecture).layers
        free = [index for index, layer in enumerate(self._layers) if len(layer.choices) > 1]
        if not free:
            return Architecture(layers)
        index = free[rng.integers(len(free))]
        layer = self._layers[index]
        here = layer.position[layers[index]]
        others = layer.near[here] if near else [other for other in range(len(layer.choices)) if other != here]
        return _replaced(layers, index, layer.choices[others[rng.integers(len(others))]])

    def crossover(self, first: Architecture, second: Architecture, rng: np.random.Generator) -> Architecture:
        """Every layer from one of the parents, by a fair coin. Raises SpaceError (validate)."""
        pairs = zip(self.validate(first).layers, self.validate(second).layers, strict=True)
        coins = rng.integers(2, size=len(self._layers))
        return Architecture(tuple(pair[coin] for pair, coin in zip(pairs, coins, strict=True)))

    def _check_length(self, architecture: Architecture | Sequence[str]) -> None:
        got = len(architecture.layers if isinstance(architecture, Architecture) else architecture)
        if got != len(self._layers):
            raise SpaceError(f"backbone {self.backbone.name!r} has {len(self._layers)} searchable layers, got {got}")


def _replaced(layers: tuple[LayerChoice, ...], index: int, choice: LayerChoice) -> Architecture:
    return Architecture((*layers[:index], choice, *layers[index + 1 :]))


def _parse(text: str, where: str) -> LayerChoice:
    """A layer choice as it is written. Raises SpaceError."""
    operator, _, pruning = text.partition("/")
    scheme, _, rate = pruning.partition("@")
    if not pruning:
        return LayerChoice(one_of(Operator, operator, where))
    try:
        number = float(rate)
    except ValueError:
        raise SpaceError(f"{where}: got {text!r}, expected operator/scheme@rate such as '3x3/filter@2'") from None
    return LayerChoice(one_of(Operator, operator, where), one_of(Scheme, scheme, where), number)
