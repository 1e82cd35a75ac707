from __future__ import annotations

import torch
from torch import Tensor, nn

from npas_ray.networks.backbone import make_backbone
from npas_ray.networks.compacting import Compacted
from npas_ray.networks.masking import network_masks
from npas_ray.networks.module import Network, build_module
from npas_ray.pruning.one_shot import MaskedParameters
from npas_ray.space.choices import Architecture

BACKBONE = make_backbone("test", input_shape=(1, 9, 9), stem=(6, 1), blocks=((6, 1), (10, 2)), classes=4, expansion=4)
ARCHITECTURE = Architecture.from_json(["1x1+3x3dw+1x1/filter@3", "1x1+3x3dw+1x1/filter@5"])
IMAGES = torch.randn(32, 1, 9, 9, generator=torch.Generator().manual_seed(0))


def masked_network() -> tuple[Network, dict[str, Tensor], MaskedParameters]:
    torch.manual_seed(0)
    network = build_module(BACKBONE, ARCHITECTURE)
    masks = network_masks(network, BACKBONE, ARCHITECTURE, block_height=8)
    return network, masks, MaskedParameters(network.named_parameters(), masks)


def train(network: Network, masked: MaskedParameters | None) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for _ in range(4):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(IMAGES), torch.arange(32) % 4).backward()
        optimizer.step()
        if masked is not None:
            masked.enforce()


def test_training_compacted_is_training_under_masks() -> None:
    reference, _, masked = masked_network()
    train(reference, masked)

    network, masks, _ = masked_network()
    full = sum(p.numel() for p in network.parameters())
    compacted = Compacted(network, BACKBONE, ARCHITECTURE, masks)
    assert compacted.free == set(masks)
    assert sum(p.numel() for p in network.parameters()) < 0.6 * full
    train(network, None)
    compacted.restore()

    expected = reference.state_dict()
    for name, value in network.state_dict().items():
        alive = masks.get(name.replace("running_mean", "weight").replace("running_var", "weight"))
        kept = ... if alive is None or "running" not in name else alive  # the dead have no statistics
        assert torch.allclose(value[kept], expected[name][kept], rtol=1e-4, atol=1e-5), name
    for name, mask in masks.items():
        assert not network.get_parameter(name)[~mask].any(), name


def test_nothing_happens_to_other_schemes() -> None:
    architecture = Architecture.from_json(["1x1+3x3dw+1x1/block-based@2", "3x3/filter@2"])
    network = build_module(BACKBONE, architecture)
    masks = network_masks(network, BACKBONE, architecture, block_height=8)
    before = dict(network.named_modules())
    compacted = Compacted(network, BACKBONE, architecture, masks)
    assert dict(network.named_modules()) == before
    assert not compacted.free
