"""The `npas` command. Importing it is cheap: what is heavy is imported by the sub-command that needs it."""

from npas_ray.cli.app import main

__all__ = ["main"]
