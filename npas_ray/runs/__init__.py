"""A search from its first to its last second: its directory, its staff on Ray, resume, shipping, verification."""

from npas_ray.runs.search_run import run_search
from npas_ray.runs.verify import verify_run

__all__ = ["run_search", "verify_run"]
