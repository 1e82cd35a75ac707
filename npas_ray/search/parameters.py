"""A search space as named parameters, for searchers that know nothing of layers.

Two ways to say it. By choice: one parameter for each layer, a name for each of its choices. By factor: operator, scheme
and rate of each layer apart, the rate in order; what is learned of a rate then holds for all operators. Combinations
that are no choice of the layer stand for the nearest that is one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from npas_ray.space.choices import Architecture, LayerChoice, Operator, Scheme
from npas_ray.space.search_space import SearchSpace
from npas_ray.space.steps import nearest_choice


class Parameters(StrEnum):
    """How a space is said."""

    CHOICES = "choices"
    FACTORS = "factors"


@dataclass(frozen=True)
class Parameter:
    """One of several values, known by their positions; `ordered` if positions that are near mean alike."""

    name: str
    values: tuple[str, ...]
    ordered: bool = False


class Parametrisation(ABC):
    """Architectures as positions in the values of each of `parameters`, by name. Every combination is legal."""

    parameters: tuple[Parameter, ...]

    @abstractmethod
    def positions(self, architecture: Architecture) -> dict[str, int]:
        """Of a canonical architecture of the space. `architecture` is the inverse of it."""

    @abstractmethod
    def architecture(self, positions: Mapping[str, int]) -> Architecture:
        """The canonical architecture that a combination stands for."""


def parametrised(space: SearchSpace, kind: Parameters) -> Parametrisation:
    """The space, said in one of the two ways; parameters are named after the layers."""
    return _ByChoice(space) if kind is Parameters.CHOICES else _ByFactor(space)


class _ByChoice(Parametrisation):
    def __init__(self, space: SearchSpace) -> None:
        self._choices = [space.choices(layer) for layer in range(space.layers)]
        self._position = [{choice: i for i, choice in enumerate(choices)} for choices in self._choices]
        self.parameters = tuple(
            Parameter(name, tuple(str(choice) for choice in choices))
            for name, choices in zip(space.layer_names, self._choices, strict=True)
        )

    def positions(self, architecture: Architecture) -> dict[str, int]:
        of_layers = zip(self.parameters, self._position, architecture.layers, strict=True)
        return {parameter.name: position[choice] for parameter, position, choice in of_layers}

    def architecture(self, positions: Mapping[str, int]) -> Architecture:
        of_layers = zip(self.parameters, self._choices, strict=True)
        return Architecture(tuple(choices[positions[parameter.name]] for parameter, choices in of_layers))


class _ByFactor(Parametrisation):
    def __init__(self, space: SearchSpace) -> None:
        choices = [space.choices(layer) for layer in range(space.layers)]
        self._layers = [_Factors(name, of) for name, of in zip(space.layer_names, choices, strict=True)]
        self.parameters = tuple(parameter for layer in self._layers for parameter in layer.parameters)

    def positions(self, architecture: Architecture) -> dict[str, int]:
        of_layers = zip(self._layers, architecture.layers, strict=True)
        return {name: position for layer, choice in of_layers for name, position in layer.positions(choice).items()}

    def architecture(self, positions: Mapping[str, int]) -> Architecture:
        return Architecture(tuple(layer.choice(positions) for layer in self._layers))


class _Factors:
    """Operator, scheme and rate of one layer. A dense choice has rate 1 and the first scheme that its operator has."""

    def __init__(self, layer: str, choices: tuple[LayerChoice, ...]) -> None:
        self._choices = choices
        self._operators = list(dict.fromkeys(choice.operator for choice in choices))
        self._schemes = list(dict.fromkeys(c.scheme for c in choices if c.scheme is not Scheme.DENSE))
        self._rates = sorted({choice.rate for choice in choices})
        self._names = [f"{layer}.{factor}" for factor in ("operator", "scheme", "rate")]
        values = (
            tuple(map(str, self._operators)),
            tuple(map(str, self._schemes)),
            tuple(f"{rate:g}" for rate in self._rates),
        )
        self.parameters = tuple(
            Parameter(name, of, ordered=name.endswith(".rate"))
            for name, of in zip(self._names, values, strict=True)
            if len(of) > 1
        )
        self._known: dict[tuple[int, int, int], LayerChoice] = {}

    def positions(self, choice: LayerChoice) -> dict[str, int]:
        own = [c.scheme for c in self._choices if c.operator is choice.operator and c.scheme is not Scheme.DENSE]
        scheme = own[0] if choice.scheme is Scheme.DENSE and own else choice.scheme
        found = (
            self._operators.index(choice.operator),
            self._schemes.index(scheme) if scheme in self._schemes else 0,
            self._rates.index(choice.rate),
        )
        return {p.name: found[self._names.index(p.name)] for p in self.parameters}

    def choice(self, positions: Mapping[str, int]) -> LayerChoice:
        operator, scheme, rate = (int(positions.get(name, 0)) for name in self._names)
        if (operator, scheme, rate) not in self._known:
            self._known[operator, scheme, rate] = self._nearest(operator, scheme, rate)
        return self._known[operator, scheme, rate]

    def _nearest(self, operator: int, scheme: int, rate: int) -> LayerChoice:
        wanted = LayerChoice(
            self._operators[operator],
            self._schemes[scheme] if self._rates[rate] > 1 and self._schemes else Scheme.DENSE,
            self._rates[rate],
        )
        if wanted.operator is Operator.SKIP:
            wanted = LayerChoice(Operator.SKIP)
        return wanted if wanted in self._choices else nearest_choice(wanted, self._choices)
