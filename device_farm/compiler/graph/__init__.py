"""The network that the compiler sees: operators, shapes and sparsity. No framework, no weights.

Activations are NHWC with batch 1, so a shape is (height, width, channels) and a vector is (1, 1, channels).
Weights travel beside the graph, by name, in torch's layout:

    Conv2d            "<name>.weight" [filters, channels/groups, kh, kw]   "<name>.bias" [filters]
    DepthwiseConv2d   "<name>.weight" [channels, 1, kh, kw]         "<name>.bias" [channels]
    ScatterChannels   "<name>.index"  int32 [input channels], strictly increasing

A fully connected layer is a Conv2d whose kernel covers the whole input without padding.
"""

from device_farm.compiler.graph.channels import Concat, ResizeChannels, ScatterChannels, ShuffleChannels, SliceChannels
from device_farm.compiler.graph.elementwise import Activate, Add, Multiply, Softmax
from device_farm.compiler.graph.graph import OPS, Graph
from device_farm.compiler.graph.op import Activation, Input, Op
from device_farm.compiler.graph.shapes import NO_PADDING, Padding, Shape
from device_farm.compiler.graph.windows import Conv2d, DepthwiseConv2d, Pool2d, PoolKind
from device_farm.compiler.sparsity import BlockSparsity, TapUnit

__all__ = [
    "NO_PADDING",
    "OPS",
    "Activate",
    "Activation",
    "Add",
    "BlockSparsity",
    "Concat",
    "Conv2d",
    "DepthwiseConv2d",
    "Graph",
    "Input",
    "Multiply",
    "Op",
    "Padding",
    "Pool2d",
    "PoolKind",
    "ResizeChannels",
    "ScatterChannels",
    "Shape",
    "ShuffleChannels",
    "SliceChannels",
    "Softmax",
    "TapUnit",
]
