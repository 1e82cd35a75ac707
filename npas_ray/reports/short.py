"""Short names of layer choices, for narrow tables."""

from __future__ import annotations

from npas_ray.space.choices import LayerChoice, Operator, Scheme

OPERATORS = {
    Operator.CONV1X1: "1x1",
    Operator.CONV3X3: "3x3",
    Operator.DW3X3_CONV1X1: "dw",
    Operator.CONV1X1_DW3X3_CONV1X1: "ir",
    Operator.SKIP: "-",
    Operator.FC: "fc",
}
SCHEMES = {
    Scheme.DENSE: "",
    Scheme.FILTER: "f",
    Scheme.PATTERN: "p",
    Scheme.BLOCK_PUNCHED: "bp",
    Scheme.BLOCK_BASED: "bb",
    Scheme.KERNEL_BLOCK: "kb",
    Scheme.UNSTRUCTURED: "u",
}


def short(layer: LayerChoice) -> str:
    """3x3:bp5

    >>> short(LayerChoice(Operator.CONV3X3, Scheme.BLOCK_PUNCHED, 2.5))
    '3x3:bp2.5'
    """
    pruning = "" if layer.scheme is Scheme.DENSE else f":{SCHEMES[layer.scheme]}{layer.rate:g}"
    return OPERATORS[layer.operator] + pruning
