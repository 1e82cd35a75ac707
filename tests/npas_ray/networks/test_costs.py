from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from device_farm.compiler import compile_network, seeded_weights
from device_farm.compiler.element import Element
from device_farm.compiler.footprint import parameter_bytes
from device_farm.compiler.target import AVX2, AVX512, NEON, NEON_FP16, Target, host_target
from npas_ray.networks.backbone import DIGITS, Backbone, make_backbone
from npas_ray.networks.costs import EnergyModel, NetworkCosts
from npas_ray.networks.deploying import deploy
from npas_ray.networks.lowering import lower
from npas_ray.networks.masking import network_masks
from npas_ray.networks.module import build_module
from npas_ray.networks.operators import dense_architecture
from npas_ray.space.choices import Architecture, LayerChoice, Operator, Scheme
from npas_ray.space.search_space import SearchSpace

SMALL = make_backbone("small", input_shape=(3, 12, 12), stem=(16, 1), blocks=((16, 1), (40, 2), (40, 1)), classes=5)
HEAD = make_backbone("head", input_shape=(1, 8, 8), stem=(8, 1), blocks=((8, 1),), classes=10, searchable_head=True)


def costs_of(backbone: Backbone, *targets: Target) -> NetworkCosts:
    height = max(target.block_height for target in targets)
    units = {target.tap_unit for target in targets}
    return NetworkCosts(backbone, block_height=height, tap_unit=units.pop(), targets=targets)


@pytest.mark.parametrize("backbone", [DIGITS, SMALL, HEAD], ids=lambda backbone: backbone.name)
@pytest.mark.parametrize("target", [AVX512, AVX2, NEON, NEON_FP16], ids=lambda target: target.name)
def test_the_sum_over_layers_is_the_whole_network(backbone: Backbone, target: Target) -> None:
    costs, space, rng = costs_of(backbone, target), SearchSpace(backbone), np.random.default_rng(0)
    for _ in range(4):
        architecture = space.sample(rng)
        graph = lower(backbone, architecture, block_height=target.block_height, tap_unit=target.tap_unit)
        size = parameter_bytes(graph, target=target)
        assert costs.size_bytes(architecture) == size
        energy = EnergyModel().energy_uj(graph, element=target.element, weight_bytes=size)
        assert costs.energy_uj(architecture) == pytest.approx(energy, rel=1e-9)


def test_the_size_is_what_a_compiled_artifact_carries(cache_dir: Path, tmp_path: Path) -> None:
    """Real masks, real weights, a real executable: beside a benchmark artifact it is larger by the parameters alone."""
    target = host_target()
    architecture = Architecture(
        (
            LayerChoice(Operator.CONV3X3, Scheme.KERNEL_BLOCK, 3.0),
            LayerChoice(Operator.CONV1X1_DW3X3_CONV1X1, Scheme.BLOCK_BASED, 2.0),
            LayerChoice(Operator.CONV3X3, Scheme.FILTER, 2.0),
        )
    )
    network = build_module(SMALL, architecture)
    masks = network_masks(network, SMALL, architecture, block_height=target.block_height, tap_unit=target.tap_unit)
    graph, weights = deploy(
        network, SMALL, architecture, masks, block_height=target.block_height, tap_unit=target.tap_unit
    )
    size = costs_of(SMALL, target).size_bytes(architecture)
    plain = {"target": target, "cache_dir": cache_dir, "out_dir": tmp_path}
    shipped = compile_network(graph, weights=weights, **plain).path.read_bytes()  # type: ignore[arg-type]
    benchmark = compile_network(graph, **plain).path.read_bytes()  # type: ignore[arg-type]
    assert abs(len(shipped) - len(benchmark) - size) <= 8192  # a page to begin on, and symbols
    stored = sum(array.nbytes for name, array in weights.items() if name.endswith("bias"))
    assert size > stored
    assert sum(array.nbytes for array in seeded_weights(graph, seed=0).values()) > 0


def test_what_pruning_takes_is_not_shipped() -> None:
    target = AVX512
    costs = costs_of(DIGITS, target)
    pruned = [
        Architecture((LayerChoice(Operator.CONV3X3, Scheme.BLOCK_PUNCHED, rate),) * DIGITS.layers)
        for rate in (2.0, 5.0, 10.0)
    ]
    by_rate = [dense_architecture(DIGITS), *pruned]
    sizes = [costs.size_bytes(architecture) for architecture in by_rate]
    energies = [costs.energy_uj(architecture) for architecture in by_rate]
    assert sizes == sorted(sizes, reverse=True)
    assert energies == sorted(energies, reverse=True)
    assert sizes[1] > 2 * sizes[3]


def test_half_precision_is_about_half_and_the_largest_target_counts() -> None:
    dense = Architecture((LayerChoice(Operator.CONV1X1),) * DIGITS.layers)
    single = NetworkCosts(DIGITS, block_height=8, tap_unit=NEON.tap_unit, targets=(NEON,)).size_bytes(dense)
    both = NetworkCosts(DIGITS, block_height=8, tap_unit=NEON.tap_unit, targets=(NEON_FP16, NEON))
    half = NetworkCosts(DIGITS, block_height=8, tap_unit=NEON.tap_unit, targets=(NEON_FP16,))
    assert half.size_bytes(dense) < 0.65 * single
    assert both.size_bytes(dense) == single
    assert half.energy_uj(dense) < both.energy_uj(dense)


def test_the_proxy_is_its_formula() -> None:
    """One 1x1 convolution and a head, by hand."""
    backbone = make_backbone("one", input_shape=(2, 4, 4), stem=(2, 1), blocks=((2, 1),), classes=3)
    graph = lower(backbone, Architecture((LayerChoice(Operator.CONV1X1),)), block_height=8)
    macs = 16 * 2 * 18 + 16 * 2 * 2 + 2 * 3  # stem, block, head
    moved = 4 * ((32 + 32) + (32 + 32 + 32) + (32 + 2) + (2 + 3))  # stem, block with its residual, pool, head
    expected = 1e-6 * (4.6 * macs + 162.5 * 1000 + 12.5 * moved)
    assert EnergyModel().energy_uj(graph, element=Element.FLOAT32, weight_bytes=1000) == pytest.approx(expected)


def test_it_travels_and_refuses_what_does_not_fit() -> None:
    costs = costs_of(SMALL, NEON)
    architecture = dense_architecture(SMALL)
    assert pickle.loads(pickle.dumps(costs))(architecture) == costs(architecture)
    with pytest.raises(ValueError, match="2 layers"):
        costs.size_bytes(Architecture(architecture.layers[:2]))
