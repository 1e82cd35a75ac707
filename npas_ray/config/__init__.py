"""The configuration of a search: models, and the way from YAML to them."""

from npas_ray.config.devices import AdbDevice, FarmDevice, LocalDevice
from npas_ray.config.loader import load_config
from npas_ray.config.models import SearchConfig, difference

__all__ = ["AdbDevice", "FarmDevice", "LocalDevice", "SearchConfig", "difference", "load_config"]
