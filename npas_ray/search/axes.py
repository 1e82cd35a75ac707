"""What a front is drawn over, beside the accuracy: the costs of a network, each better when it is smaller.

An axis is a word: "latency:MODEL" (ms on a device model), "size" (bytes of the weights that ship) or "energy" (the
energy proxy, microjoules an image; a proxy, nothing measures it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from npas_ray.space.choices import Architecture

LATENCY, SIZE, ENERGY = "latency", "size", "energy"
#: size and energy of an architecture, by axis
Costs = Callable[[Architecture], Mapping[str, float]]


def latency_on(model: str) -> str:
    """The axis of the latency on a device model."""
    return f"{LATENCY}:{model}"


def model_of(axis: str) -> str | None:
    """The device model of a latency's axis; None for the axes that the architecture alone decides."""
    kind, colon, model = axis.partition(":")
    return model if kind == LATENCY and colon else None


def check_axis(axis: str) -> None:
    """Raises ValueError for a word that is no axis."""
    if not (axis in (SIZE, ENERGY) or model_of(axis)):
        raise ValueError(f"an axis is 'latency:MODEL', 'size' or 'energy', got {axis!r}")


def unit_of(axis: str) -> str:
    """In what its numbers are counted."""
    return {SIZE: "bytes", ENERGY: "µJ"}.get(axis, "ms")


def label_of(axis: str) -> str:
    """How people call it.

    >>> label_of("latency:pixel 4"), label_of("energy")
    ('latency on pixel 4', 'energy proxy')
    """
    model = model_of(axis)
    return f"latency on {model}" if model else {SIZE: "size of the weights", ENERGY: "energy proxy"}.get(axis, axis)
