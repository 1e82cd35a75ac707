from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from device_farm.compiler.frontend import Imported, import_module
from device_farm.compiler.graph import Activation, Conv2d, DepthwiseConv2d, Padding, Pool2d, Shape
from device_farm.errors import InvalidGraph, UnsupportedOperator


class Function(nn.Module):
    """A module around a function of (module, image), with whatever layers it needs."""

    def __init__(self, function: Callable[[Any, Tensor], Any], **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.function(self, x)
        return result


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + x)
        return y


class InvertedResidual(nn.Module):
    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU6())
        self.depthwise = nn.Sequential(
            nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False), nn.BatchNorm2d(inner), nn.ReLU6()
        )
        self.project = nn.Sequential(nn.Conv2d(inner, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.project(self.depthwise(self.expand(x)))
        return y


def lively(module: nn.Module) -> nn.Module:
    """Batch-norm statistics and biases that would be seen if they were forgotten."""
    generator = torch.Generator().manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            spread = {"running_mean": (-0.5, 0.5), "running_var": (0.5, 2.0), "weight": (0.5, 1.5), "bias": (-0.5, 0.5)}
            for name, bounds in spread.items():
                tensor = getattr(part, name)
                if tensor is not None:
                    tensor.data.uniform_(*bounds, generator=generator)
    return module.eval()


def check(module: nn.Module, shape: Shape, evaluate: Any) -> Imported:
    """Import, and compare with torch to 1e-5 of the largest output; returns what was imported."""
    torch.manual_seed(0)
    module = lively(module)
    imported = import_module(module, shape)
    image = torch.randn(1, shape.channels, shape.height, shape.width)
    with torch.no_grad():
        expected = module(image)
    actual = evaluate(imported.graph, imported.weights, image).reshape(expected.shape)
    assert torch.isfinite(expected).all()
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert all(str(array.dtype) in ("float32", "int32") for array in imported.weights.values())
    return imported


def kinds(imported: Imported) -> list[str]:
    return [op.kind for op in imported.graph.ops[1:]]


def test_a_plain_network_becomes_convolutions_pooling_and_a_head(evaluate: Any) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 5),
    )  # fmt: skip
    imported = check(network, Shape(10, 12, 3), evaluate)
    assert kinds(imported) == ["conv2d", "conv2d", "pool2d", "conv2d"]
    assert [op.name for op in imported.graph.ops] == ["input", "0", "3", "5", "8"]
    conv = imported.graph.ops[1]
    assert isinstance(conv, Conv2d) and conv.activation is Activation.RELU


def test_residual_blocks_become_two_operators_each(evaluate: Any) -> None:
    imported = check(nn.Sequential(Residual(8), Residual(8)), Shape(6, 6, 8), evaluate)
    assert [(op.name, op.inputs) for op in imported.graph.ops[1:]] == [
        ("0.conv1", ("input",)),
        ("0.conv2", ("0.conv1", "input")),
        ("1.conv1", ("0.conv2",)),
        ("1.conv2", ("1.conv1", "0.conv2")),
    ]


def test_inverted_residual_with_relu6(evaluate: Any) -> None:
    imported = check(nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), InvertedResidual(8, 24)), Shape(16, 16, 3), evaluate)
    assert kinds(imported) == ["conv2d", "conv2d", "depthwise_conv2d", "conv2d"]
    expand, depthwise, project = imported.graph.ops[2:]
    assert isinstance(expand, Conv2d) and isinstance(depthwise, DepthwiseConv2d) and isinstance(project, Conv2d)
    assert (expand.activation, depthwise.activation, project.activation) == ("relu6", "relu6", "none")
    assert project.inputs == ("1.depthwise.0", "0")


@pytest.mark.parametrize(
    "layer",
    [
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.AvgPool2d(2),
        nn.AvgPool2d(3, 2, 1),
        nn.AdaptiveAvgPool2d((3, 1)),
        nn.Conv2d(4, 6, (3, 5), stride=(2, 1), padding=(0, 2), dilation=(2, 1)),
        nn.Conv2d(4, 4, 5, padding=2, groups=4),
        nn.Conv2d(4, 6, 3, padding=1, groups=2),
        nn.Conv2d(4, 8, 1, groups=4),
        nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)),
        nn.Sequential(nn.ZeroPad2d((1, 2, 0, 3)), nn.Conv2d(4, 5, 3)),
        nn.BatchNorm2d(4, affine=False),
        nn.Hardtanh(0.0, 6.0),
        nn.Identity(),
    ],
    ids=repr,
)
def test_single_layers(layer: nn.Module, evaluate: Any) -> None:
    imported = check(nn.Sequential(nn.Identity(), layer), Shape(9, 7, 4), evaluate)
    assert len(imported.graph.ops) <= 2


SELF_GATED = [
    ("hard_swish", lambda m, x: nn.functional.hardswish(m.conv(x))),
    ("hard_swish", lambda m, x: (lambda y: y * nn.functional.relu6(y + 3) / 6)(m.conv(x))),
    ("hard_swish", lambda m, x: (lambda y: (nn.functional.relu6(y + 3) / 6) * y)(m.conv(x))),
    ("hard_swish", lambda m, x: (lambda y: y * 0.5 * ((y + 3).clamp(0, 6) / 3))(m.conv(x))),
    ("hard_swish", lambda m, x: (lambda y: y * (y / 6 + 0.5).clamp(0, 1))(m.bn(m.conv(x)))),
    ("hard_swish", lambda m, x: (lambda y: y * nn.functional.hardsigmoid(y))(m.conv(x))),
    ("hard_sigmoid", lambda m, x: nn.functional.hardsigmoid(m.conv(x))),
    ("hard_sigmoid", lambda m, x: nn.functional.relu6(m.conv(x) + 3) * (1 / 6)),
    ("swish", lambda m, x: nn.functional.silu(m.conv(x))),
    ("swish", lambda m, x: (lambda y: torch.sigmoid(y) * y)(m.bn(m.conv(x)))),
    ("sigmoid", lambda m, x: torch.sigmoid(m.conv(x))),
]


@pytest.mark.parametrize(("activation", "function"), SELF_GATED)
def test_sigmoids_and_their_products_become_one_activation(
    activation: str, function: Callable[[Any, Tensor], Tensor], evaluate: Any
) -> None:
    layers = {"conv": nn.Conv2d(4, 4, 3, padding=1), "bn": nn.BatchNorm2d(4)}
    imported = check(Function(function, **layers), Shape(9, 7, 4), evaluate)
    assert [(op.name, getattr(op, "activation", None)) for op in imported.graph.ops[1:]] == [("conv", activation)]


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: nn.functional.relu6(m.conv(x) + 3),
        lambda m, x: nn.functional.relu6(m.conv(x) + 3) / 5,
        lambda m, x: m.conv(x) * torch.sigmoid(m.conv(x) + 1),
        lambda m, x: (lambda y: y * torch.sigmoid(1.702 * y))(m.conv(x)),
        lambda m, x: (lambda y: (y + 1) * torch.sigmoid(y))(m.conv(x)),
        lambda m, x: (lambda y: 3 * y * torch.sigmoid(y) / 2)(m.conv(x)),
        lambda m, x: torch.relu(torch.sigmoid(torch.relu(m.conv(x)))),
        lambda m, x: nn.functional.hardswish(x) + nn.functional.hardsigmoid(x),
    ],
)
def test_what_only_looks_like_a_known_gate_is_computed_as_it_is(function: Any, evaluate: Any) -> None:
    check(Function(function, conv=nn.Conv2d(4, 4, 3, padding=1)), Shape(9, 7, 4), evaluate)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("squeeze and excite", lambda m, x: x * torch.sigmoid(m.fc2(m.fc(x.mean((2, 3)))))[:, :, None, None]),
        ("the gate first", lambda m, x: x.amax((2, 3), keepdim=True) * m.conv(x)),
        ("hard gate", lambda m, x: x * nn.functional.relu6(x.mean((2, 3), keepdim=True) + 3) / 6),
        ("a product", lambda m, x: x * m.conv(x)),
        ("concat", lambda m, x: torch.cat([x, m.conv(x), x], 1)),
        ("concat of vectors", lambda m, x: torch.cat([x.mean((2, 3)), x.amax((2, 3))], -1)),
        ("other channels", lambda m, x: x[:, 1:3]),
        ("last channels", lambda m, x: x[:, -3:]),
        ("chunks", lambda m, x: torch.cat(m.point(x).chunk(2, 1)[::-1], 1)),
        ("uneven parts", lambda m, x: torch.cat(torch.split(x, [1, 3], 1)[::-1], 1)),
        ("channel shuffle", lambda m, x: m.conv(nn.functional.channel_shuffle(x, 2))),
        ("shuffle by hand", lambda m, x: x.view(1, 2, 2, 9, 7).transpose(1, 2).reshape(1, 4, 9, 7)),
        ("softmax", lambda m, x: torch.softmax(m.fc(x.mean((2, 3))), 1)),
        ("softmax of pixels", lambda m, x: x.softmax(1)),
        ("mean", lambda m, x: m.fc(x.mean((2, 3)))),
        ("mean, keeping dimensions", lambda m, x: m.fc(x.mean((-1, -2), keepdim=True).squeeze(3).squeeze(2))),
        ("amax", lambda m, x: m.fc(x.amax((2, 3)))),
        ("view", lambda m, x: m.fc(torch.nn.functional.avg_pool2d(x, (9, 7)).view(1, -1))),
        ("clamp", lambda m, x: x.clamp(min=0)),
        ("clamp to 6", lambda m, x: x.clamp(0, 6)),
        ("relu twice", lambda m, x: torch.relu(torch.relu(m.conv(x)))),
        ("scale", lambda m, x: 2.0 * m.conv(x) / 3.0 - 1.0),
        ("one minus", lambda m, x: 1.0 - m.conv(x)),
        ("negative", lambda m, x: -m.conv(x)),
        ("more channels", lambda m, x: nn.functional.pad(x, (0, 0, 0, 0, 0, 3))),
        ("channels on both sides", lambda m, x: nn.functional.pad(x, (0, 0, 0, 0, 1, 2))),
        ("fewer channels", lambda m, x: x[:, :3]),
        ("every second pixel", lambda m, x: x[:, :, ::2, ::3]),
        ("zeros behind", lambda m, x: torch.cat([x, torch.zeros(1, 2, 9, 7)], 1)),
        ("two readers", lambda m, x: torch.relu(m.conv(x)) + m.conv(x)),
        ("one layer twice", lambda m, x: m.conv(m.conv(x))),
        ("normalised before", lambda m, x: m.conv(m.bn(x))),
        ("normalised before 1x1", lambda m, x: m.point(m.bn(x))),
    ],
)  # fmt: skip
def test_functions(name: str, function: Callable[[Any, Tensor], Tensor], evaluate: Any) -> None:
    layers = {
        "fc": nn.Linear(4, 3),
        "fc2": nn.Linear(3, 4),
        "conv": nn.Conv2d(4, 4, 3, padding=1),
        "bn": nn.BatchNorm2d(4),
        "point": nn.Conv2d(4, 5, 1),
    }
    check(Function(function, **layers), Shape(9, 7, 4), evaluate)


def test_a_linear_layer_on_a_flattened_image_covers_it(evaluate: Any) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 5, 7), nn.ReLU(), nn.Linear(7, 2, bias=False))
    imported = check(network, Shape(4, 5, 3), evaluate)
    first, second = imported.graph.ops[1:]
    assert isinstance(first, Conv2d) and first.kernel == (4, 5) and first.activation is Activation.RELU
    assert isinstance(second, Conv2d) and second.kernel == (1, 1)


def test_a_zero_border_becomes_padding_of_the_convolution(evaluate: Any) -> None:
    network = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 4, 3, stride=2, bias=False), nn.BatchNorm2d(4))
    imported = check(network, Shape(8, 8, 3), evaluate)
    (conv,) = imported.graph.ops[1:]
    assert isinstance(conv, Conv2d) and conv.padding == Padding(0, 0, 1, 1)


def test_masked_weights_are_multiplied_out(evaluate: Any) -> None:
    class Masked(nn.Module):
        mask: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(6, 3, 3, 3))
            self.register_buffer("mask", (torch.arange(162) % 3 == 0).float().reshape(6, 3, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            return torch.conv2d(x, self.weight * self.mask)

    imported = check(Masked(), Shape(5, 5, 3), evaluate)
    (weight,) = (array for key, array in imported.weights.items() if key.endswith(".weight"))
    assert (weight != 0).sum() == 54


def test_a_module_that_is_being_pruned_by_torch_is_taken_as_pruned(evaluate: Any) -> None:
    conv = nn.Conv2d(3, 4, 3)
    prune.l1_unstructured(conv, "weight", 0.5)
    imported = check(nn.Sequential(conv), Shape(5, 5, 3), evaluate)
    (weight,) = (array for key, array in imported.weights.items() if key.endswith(".weight"))
    assert (weight != 0).sum() == 54


def test_a_layer_that_runs_twice_is_compiled_twice(evaluate: Any) -> None:
    module = Function(lambda m, x: torch.relu(m.conv(m.conv(x))), conv=nn.Conv2d(4, 4, 3, padding=1))
    assert [op.name for op in check(module, Shape(5, 5, 4), evaluate).graph.ops] == ["input", "conv", "conv#2"]


def test_an_exported_program_is_taken_as_it_is(evaluate: Any) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    program = torch.export.export(module, (torch.zeros(1, 3, 6, 6),))
    imported = import_module(program)
    image = torch.randn(1, 3, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(
            evaluate(imported.graph, imported.weights, image), module(image), rtol=1e-5, atol=1e-5
        )
    with pytest.raises(InvalidGraph, match=r"exported for \(1, 3, 6, 6\), input_shape asks for \(1, 3, 8, 8\)"):
        import_module(program, Shape(8, 8, 3))


def test_the_module_stays_as_it_was() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    import_module(module, Shape(6, 6, 3))
    assert all(part.training for part in module.modules())
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(nn.Conv2d(4, 4, 1), nn.Tanh()), r"layer '1': operator 'tanh' has no kernel; use ReLU"),
        (nn.Sequential(nn.Conv2d(4, 4, 1), nn.Softmax(2)), r"layer '1': operator 'nn.softmax' runs over axis 2 of"),
        (nn.Sequential(nn.PReLU()), r"layer '0': operator 'greater' has no kernel; use ReLU"),
        (nn.Sequential(nn.Hardtanh()), r"layer '0': operator 'clip' clips to \[-1, 1\]"),
        (nn.Sequential(nn.AdaptiveAvgPool2d(4)), r"layer '0'.*'nn.adaptive_avg_pool2d'.*must divide"),
        (nn.Sequential(nn.AvgPool2d(3, 2, 1, count_include_pad=False)), r"layer '0'.*does not count its padding"),
        (nn.Sequential(nn.Upsample(scale_factor=2)), r"layer '0': operator '.*' has no kernel"),
        (nn.Sequential(nn.Linear(7, 3)), r"layer '0'.*flatten"),
        (Function(lambda m, x: x * x[:, :1]), r"'multiply' multiplies .* by \(1, 1, 9, 7\); factors must have"),
        (Function(lambda m, x: torch.cat([x, x], 2)), r"'concat' joins along axis 2"),
        (Function(lambda m, x: torch.cat([x, torch.ones(1, 1, 9, 7)], 1)), r"'concat' joins along axis 1, or const"),
        (Function(lambda m, x: x[:, :, 1:]), r"'strided_slice' takes \[\(2, 1, .*a range of channels"),
        (Function(lambda m, x: torch.cat(torch.split(x, 3, 2)[::-1], 1)), r"'split' splits axis 2"),
        (Function(lambda m, x: x.permute(0, 2, 3, 1)), r"'permute_dims' permutes .* the compiler chooses"),
        (Function(lambda m, x: x.clamp(0, 1)), r"'clip' clips to \[0, 1\]"),
        (Function(lambda m, x: (x + 1).clamp(max=6)), r"'clip' is not behind a ReLU"),
        (Function(lambda m, x: x.reshape(1, 2, 2, 63)), r"'reshape' turns \(1, 4, 9, 7\) into \(1, 2, 2, 63\)"),
        (Function(lambda m, x: torch.special.bessel_j0(x)), r"front end does not know the operator.*bessel_j0"),
    ],
)  # fmt: skip
def test_an_operator_without_a_kernel_is_named_with_a_way_out(module: nn.Module, message: str) -> None:
    with pytest.raises(UnsupportedOperator, match=message):
        import_module(module, Shape(9, 7, 4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Conv2d(4, 4, 3).half(), "parameter 'weight' is torch.float16, expected torch.float32"),
        (lambda: nn.Conv2d(3, 4, 3), "could not trace Conv2d for an input of"),
        (lambda: Function(lambda m, x: x.relu() if x.sum() > 0 else x), "could not trace Function"),
        (lambda: Function(lambda m, x: x.flatten(1)), "flattened image of 4x9x7"),
        (lambda: Function(lambda m, x: (x, x.relu())), "one output .* has 2"),
    ],
)  # fmt: skip
def test_a_module_that_is_no_network_of_one_image_is_refused(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(InvalidGraph, match=message):
        import_module(make(), Shape(9, 7, 4))


def test_programs_for_batches_free_shapes_two_images_or_other_types_are_refused() -> None:
    conv = nn.Conv2d(3, 4, 3).eval()
    with pytest.raises(InvalidGraph, match=r"float32 \(2, 3, 6, 6\); expected float32 \(1, channels"):
        import_module(torch.export.export(conv, (torch.zeros(2, 3, 6, 6),)))
    free = {2: torch.export.Dim("height", min=4, max=64)}
    with pytest.raises(InvalidGraph, match="is not fixed; export the model with one fixed input shape"):
        import_module(torch.export.export(conv, (torch.zeros(1, 3, 6, 6),), dynamic_shapes=(free,)))
    with pytest.raises(InvalidGraph, match=r"reads torch.float64, expected torch.float32"):
        import_module(torch.export.export(nn.Conv2d(3, 4, 3).double().eval(), (torch.zeros(1, 3, 6, 6).double(),)))

    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    with pytest.raises(InvalidGraph, match="this one has 2 inputs: x, y"):
        import_module(torch.export.export(Two(), (torch.zeros(1, 3, 6, 6), torch.zeros(1, 3, 6, 6))))
    with pytest.raises(InvalidGraph, match="give input_shape"):
        import_module(conv)


def test_global_pooling_is_a_window_as_large_as_the_image(evaluate: Any) -> None:
    imported = check(nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1)), Shape(5, 6, 3), evaluate)
    pool = imported.graph.output
    assert isinstance(pool, Pool2d) and pool.kernel == (5, 6) and pool.name == "1"
