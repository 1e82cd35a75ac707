"""The spaces that the tables are of, and the digits task on each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from npas_ray.networks.backbone import DIGITS, Backbone, make_backbone
from npas_ray.space.choices import Operator
from npas_ray.space.search_space import SearchSpace

#: 20 blocks, with the stages and strides of MobileNetV2, narrow enough for an epoch of a second
MOBILE = make_backbone(
    "mobile-small",
    input_shape=(1, 16, 16),
    stem=(16, 1),
    blocks=tuple(
        (channels, stride if index == 0 else 1)
        for channels, repeats, stride in ((8, 1, 1), (12, 3, 2), (16, 4, 2), (24, 4, 1), (32, 4, 1), (48, 4, 2))
        for index in range(repeats)
    ),
    classes=10,
    expansion=3,
)

#: three stages of 3x3 convolutions at halving sizes, as in a small ResNet
RESNET = make_backbone(
    "resnet-small",
    input_shape=(1, 16, 16),
    stem=(16, 1),
    blocks=tuple(
        (channels, stride if index == 0 else 1)
        for channels, stride in ((16, 1), (32, 2), (64, 2))
        for index in range(4)
    ),
    classes=10,
)
MANY_RATES = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 10, 12)


@dataclass(frozen=True)
class TableSpace:
    """A space and what its backbone is; the task, its size and the way of training are the same everywhere."""

    name: str
    backbone: Backbone
    make: Callable[[], SearchSpace]

    @cached_property
    def space(self) -> SearchSpace:
        return self.make()


SPACES = {
    table.name: table
    for table in (
        TableSpace("digits", DIGITS, lambda: SearchSpace(DIGITS)),
        TableSpace("mobile", MOBILE, lambda: SearchSpace(MOBILE)),
        TableSpace(
            "resnet",
            RESNET,
            lambda: SearchSpace(RESNET, operators=(Operator.CONV3X3, Operator.SKIP), rates=MANY_RATES),
        ),
    )
}
