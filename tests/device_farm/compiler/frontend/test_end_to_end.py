"""A pruned torch module, imported, compiled and run: the executable answers as torch does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from device_farm.compiler import Target, compile_network
from device_farm.compiler.frontend import import_module
from device_farm.compiler.graph import Shape
from device_farm.compiler.passes import find_sparsity, prune_weights, sparsify
from device_farm.compiler.testing import Answer


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
        self.expand = nn.Sequential(nn.Conv2d(16, 48, 1, bias=False), nn.BatchNorm2d(48), nn.ReLU6())
        self.depthwise = nn.Sequential(
            nn.Conv2d(48, 48, 3, 1, 1, groups=48, bias=False), nn.BatchNorm2d(48), nn.ReLU6()
        )
        self.project = nn.Sequential(nn.Conv2d(48, 16, 1, bias=False), nn.BatchNorm2d(16))
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.project(self.depthwise(self.expand(x)))
        y: Tensor = self.head(nn.functional.max_pool2d(x, 2).mean((2, 3)))
        return y


def test_the_executable_of_a_pruned_module_answers_as_torch_does(
    native: Target, answer: Answer, cache_dir: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module = Network()
    shape = Shape(16, 16, 3)
    graph = import_module(module, shape).graph
    weights = {name: parameter.detach().numpy() for name, parameter in module.named_parameters()}
    _, pruned = prune_weights(graph, weights, 3, native.block_height)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in pruned.items()}, strict=False)
    with torch.no_grad():
        module(torch.randn(32, 3, 16, 16))  # statistics of the pruned network
    module.eval()

    imported = import_module(module, shape)
    found = find_sparsity(imported.graph, imported.weights, native.block_height)
    assert found == sparsify(graph, 3, native.block_height)
    artifact = compile_network(found, target=native, out_dir=tmp_path, cache_dir=cache_dir, weights=imported.weights)
    images = torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        expected = module(images).numpy()
    actual = answer(artifact, images.permute(0, 2, 3, 1).numpy())
    assert np.ptp(expected, axis=0).max() > 0.2 * np.abs(expected).max()  # the images make the difference
    assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()
