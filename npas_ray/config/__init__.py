"""The configuration of a search: models, and the way from YAML to them."""

from npas_ray.config.loader import load_config
from npas_ray.config.models import LocalDevice, SearchConfig, difference

__all__ = ["LocalDevice", "SearchConfig", "difference", "load_config"]
