"""What a candidate costs beside time: bytes that ship and an energy proxy, from its architecture alone. No torch.

Both are sums over layers, exactly (checked over whole networks in tests), so each choice of a layer is costed once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from device_farm.compiler.element import Element
from device_farm.compiler.footprint import parameter_bytes
from device_farm.compiler.graph import Graph, Input
from device_farm.compiler.sparsity import TapUnit
from device_farm.compiler.target import Target
from npas_ray.networks.backbone import Backbone
from npas_ray.networks.lowering import lower
from npas_ray.space.choices import Architecture, LayerChoice, Operator


@dataclass(frozen=True)
class EnergyModel:
    """Picojoules of what an inference does. Numbers of a 45 nm chip at 0.9 V (horowitz, ISSCC 2014, figure 1.1.9).

    A proxy: nothing is measured, and absolute values mean little on another process. It ranks networks by work and
    traffic together, with the ratio of the two that the paper names. Weights come from DRAM once for every image, as on
    a phone that does other things in between; activations are written and read in a cache of a megabyte.

    Attributes:
        mac_pj: a multiply and an add, by number type (3.7 + 0.9 in float32, 1.1 + 0.4 in float16).
        weight_byte_pj: a byte from DRAM (1.3 nJ for 8 bytes, the lower end).
        activation_byte_pj: a byte written to or read from a cache of 1 MB (100 pJ for 8 bytes).
    """

    mac_pj: Mapping[Element, float] = field(default_factory=lambda: {Element.FLOAT32: 4.6, Element.FLOAT16: 1.5})
    weight_byte_pj: float = 162.5
    activation_byte_pj: float = 12.5

    def energy_uj(self, graph: Graph, *, element: Element, weight_bytes: int) -> float:
        """Microjoules of one image, by proxy: the multiply-accumulates that pruning keeps, and the bytes moved."""
        moved = 0
        for op in graph.ops:
            written = 0 if isinstance(op, Input) else graph.shapes[op.name].elements
            moved += element.bytes * (written + sum(shape.elements for shape in graph.input_shapes(op)))
        picojoules = (
            self.mac_pj[element] * graph.kept_macs
            + self.weight_byte_pj * weight_bytes
            + self.activation_byte_pj * moved
        )
        return 1e-6 * picojoules


@dataclass(frozen=True)
class NetworkCosts:
    """Size and energy proxy of any architecture of a backbone; called with one it is the `costs` of an Objective.

    Args:
        block_height, tap_unit: of the masks, as `lower` takes them.
        targets: that it ships for. With several, each cost is that of the target where it is largest.
        energy: what the proxy is made of.

    >>> from device_farm.compiler.target import NEON
    >>> from npas_ray.networks.backbone import DIGITS
    >>> from npas_ray.networks.operators import dense_architecture
    >>> costs = NetworkCosts(DIGITS, block_height=NEON.block_height, tap_unit=NEON.tap_unit, targets=(NEON,))
    >>> costs.size_bytes(dense_architecture(DIGITS)) > 4 * 288_000
    True
    """

    backbone: Backbone
    block_height: int
    tap_unit: TapUnit
    targets: tuple[Target, ...]
    energy: EnergyModel = EnergyModel()
    _known: dict[tuple[int, LayerChoice] | None, tuple[tuple[int, float], ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __call__(self, architecture: Architecture) -> dict[str, float]:
        """By the axes' names: {"size": bytes, "energy": microjoules}. Raises ValueError as `lower` does."""
        return {"size": float(self.size_bytes(architecture)), "energy": self.energy_uj(architecture)}

    def size_bytes(self, architecture: Architecture) -> int:
        """Weights, biases, tap lists and pointers of the artifact that ships. Raises ValueError as `lower` does."""
        return max(size for size, _ in self._sums(architecture))

    def energy_uj(self, architecture: Architecture) -> float:
        """The energy proxy of one image, microjoules. Raises ValueError as `lower` does."""
        return max(energy for _, energy in self._sums(architecture))

    def _sums(self, architecture: Architecture) -> list[tuple[int, float]]:
        """(size, energy) on every target."""
        if len(architecture.layers) != self.backbone.layers:
            lower(self.backbone, architecture, block_height=self.block_height)  # which says what is wrong
        frame = self._costed(None)
        layers = [self._costed((index, choice)) for index, choice in enumerate(architecture.layers)]
        sums = []
        for target, (size, energy) in enumerate(frame):
            sizes, energies = zip(*(layer[target] for layer in layers), strict=True) if layers else ((), ())
            sums.append((size + sum(s - size for s in sizes), energy + sum(e - energy for e in energies)))
        return sums

    def _costed(self, changed: tuple[int, LayerChoice] | None) -> tuple[tuple[int, float], ...]:
        """(size, energy) on every target of the network whose layers are left out but for one."""
        if changed not in self._known:
            layers = [LayerChoice(Operator.SKIP)] * len(self.backbone.blocks)
            if self.backbone.searchable_head:
                layers.append(LayerChoice(Operator.FC))
            if changed is not None:
                layers[changed[0]] = changed[1]
            graph = lower(
                self.backbone, Architecture(tuple(layers)), block_height=self.block_height, tap_unit=self.tap_unit
            )
            costed = []
            for target in self.targets:
                size = parameter_bytes(graph, target=target)
                energy = self.energy.energy_uj(graph, element=target.element, weight_bytes=size)
                costed.append((size, energy))
            self._known[changed] = tuple(costed)
        return self._known[changed]
