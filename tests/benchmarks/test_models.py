"""The benchmarked networks, small: module, ONNX Runtime and executable agree, dense and pruned."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks._harness import relative_error
from benchmarks._onnx import to_onnx
from benchmarks.models import MODELS, calibrate, initialised
from benchmarks.peers.onnxruntime import answer
from device_farm.compiler import compile_network, host_target
from device_farm.compiler.frontend import import_module, import_onnx
from device_farm.compiler.graph import Shape
from device_farm.compiler.passes import find_sparsity, prune_weights
from device_farm.compiler.testing import run_artifact

PIXELS = 64
TOLERANCE = 1e-4
PARAMETERS = {  # of the published definitions
    "efficientnet_b0": 5_288_548, "efficientnet_lite0": 4_652_008, "mobilenet_v2": 3_504_872,
    "mobilenet_v3_large": 5_483_032, "resnet18": 11_689_512, "resnet50": 25_557_032,
}  # fmt: skip


def test_every_network_has_as_many_parameters_as_its_original() -> None:
    with torch.device("meta"):
        counts = {name: sum(p.numel() for p in make().parameters()) for name, make in MODELS.items()}
    assert {name: counts[name] for name in PARAMETERS} == PARAMETERS


@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v3_large",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("efficientnet_b0", "resnet50", "efficientnet_lite0")),
    ],
)
def test_torch_onnx_runtime_and_the_executable_agree(name: str, cache_dir: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    target, shape = host_target(), Shape(PIXELS, PIXELS, 3)
    dense = import_module(calibrate(initialised(name), pixels=PIXELS), shape).graph
    image = torch.randn(1, 3, PIXELS, PIXELS, generator=torch.Generator().manual_seed(2))
    for rate in (1, 3):
        module = initialised(name)
        parameters = {key: parameter.detach().numpy() for key, parameter in module.named_parameters()}
        _, pruned = prune_weights(dense, parameters, rate, target.block_height)
        module.load_state_dict({key: torch.from_numpy(array) for key, array in pruned.items()}, strict=False)
        calibrate(module, pixels=PIXELS)  # else nothing of the image would be left at the output
        with torch.no_grad():
            exact = module(image).numpy()
        assert exact.std() > 0.1 * abs(exact).max()

        imported = import_module(module, shape)
        model = to_onnx(imported.graph, imported.weights)
        assert relative_error(answer(model, image.numpy()), exact) <= TOLERANCE
        assert [op.kind for op in import_onnx(model).graph.ops] == [op.kind for op in imported.graph.ops]
        graph = find_sparsity(imported.graph, imported.weights, target.block_height)
        assert graph.kept_macs < dense.macs / 2 or rate == 1
        artifact = compile_network(
            graph, target=target, out_dir=tmp_path, cache_dir=cache_dir, weights=imported.weights
        )
        actual = run_artifact(artifact, image.permute(0, 2, 3, 1).numpy(), scratch=tmp_path)
        assert relative_error(actual, exact) <= TOLERANCE
