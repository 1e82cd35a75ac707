"""The words of the search space: operator, scheme, rate; a layer's choice; an architecture."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Operator(StrEnum):
    """What a searchable block computes (npas: filter types)."""

    CONV1X1 = "1x1"
    CONV3X3 = "3x3"
    DW3X3_CONV1X1 = "3x3dw+1x1"
    CONV1X1_DW3X3_CONV1X1 = "1x1+3x3dw+1x1"
    SKIP = "skip"
    FC = "fc"  # the one operator of a fully connected layer


class Scheme(StrEnum):
    """Which unit of weights is pruned (npas: pruning schemes)."""

    DENSE = "dense"  # nothing; always and only at rate 1
    FILTER = "filter"
    PATTERN = "pattern"  # positions shared by a filter group + connectivity
    BLOCK_PUNCHED = "block-punched"  # CONV 3x3
    BLOCK_BASED = "block-based"  # 1x1 CONV and FC
    KERNEL_BLOCK = "kernel-block"  # CONV 3x3: whole kernels shared by a filter group; Winograd goes on working
    UNSTRUCTURED = "unstructured"  # accuracy reference; never chosen unless asked for


RATES: tuple[float, ...] = (1.0, 2.0, 2.5, 3.0, 5.0, 7.0, 10.0)


@dataclass(frozen=True, order=True)
class LayerChoice:
    """What one searchable layer becomes. `rate` is weights before / weights kept."""

    operator: Operator
    scheme: Scheme = Scheme.DENSE
    rate: float = 1.0

    def __str__(self) -> str:
        return self.operator.value if self.scheme is Scheme.DENSE else f"{self.operator}/{self.scheme}@{self.rate:g}"

    @classmethod
    def parse(cls, text: str) -> LayerChoice:
        """Inverse of str(). Raises ValueError."""
        operator, _, pruning = text.partition("/")
        if not pruning:
            return cls(Operator(operator))
        scheme, _, rate = pruning.partition("@")
        return cls(Operator(operator), Scheme(scheme), float(rate))


@dataclass(frozen=True, order=True)
class Architecture:
    """One choice for every searchable layer, in the order of the network. Hashable."""

    layers: tuple[LayerChoice, ...]

    @property
    def key(self) -> str:
        """Short content hash. Canonical architectures (see SearchSpace.canonical) are equal iff their keys are."""
        return hashlib.sha256(json.dumps(self.to_json()).encode()).hexdigest()[:16]

    def to_json(self) -> list[str]:
        return [str(layer) for layer in self.layers]

    @classmethod
    def from_json(cls, data: Any) -> Architecture:
        """Inverse of `to_json`. Raises ValueError."""
        if not isinstance(data, list) or not all(isinstance(item, str) for item in data):
            raise ValueError(f"an architecture is a list of layer choices, got {str(data)[:80]}")
        return cls(tuple(LayerChoice.parse(item) for item in data))
