"""From a configuration to the pure objects that it describes."""

from __future__ import annotations

from npas_ray.config import SearchConfig
from npas_ray.networks.backbone import BACKBONES, Backbone
from npas_ray.search.reward import Objective
from npas_ray.space.search_space import SearchSpace


def backbone_of(config: SearchConfig) -> Backbone:
    """The frame that the search fills."""
    return BACKBONES[config.space.backbone]


def make_space(config: SearchConfig) -> SearchSpace:
    """The search space. Raises SpaceError: a layer has no legal choice."""
    return SearchSpace.from_spec(backbone_of(config), config.space.spec())


def make_objective(config: SearchConfig) -> Objective:
    """What is maximised; guessing is right once in as many times as there are classes."""
    objective = config.objective
    return Objective(objective.budgets_ms, alpha=objective.alpha, chance=1 / backbone_of(config).classes)
