"""Where actors live."""

from __future__ import annotations

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


def here() -> NodeAffinitySchedulingStrategy:
    """Keeps an actor on this node, because the run's directory is on it."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
