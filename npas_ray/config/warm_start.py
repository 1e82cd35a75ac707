"""Where a search may begin from: earlier runs and lists of architectures."""

from __future__ import annotations

from typing import Annotated

from pydantic import model_validator

from npas_ray.config.fields import listed, misplaced, text, whole
from npas_ray.config.section import Section

_Path = Annotated[str, text(r"[^\x00-\x1f]{1,4096}", "a path")]
_Key = Annotated[str, text(r"[0-9a-f]{16}", "a candidate's key, 16 hexadecimal digits as in candidates.csv")]


class WarmStartSource(Section):
    """A run (or some candidates of it, by their keys), or a file with a list of architectures."""

    run: _Path | None = None  # its directory
    architectures: _Path | None = None  # JSON or CSV
    keys: Annotated[tuple[_Key, ...], *listed("keys")] | None = None  # of the run: only these candidates
    # so many of its best are measured first; by default 5 of a run, and all of a list or of keys
    start_with: Annotated[int, whole(0, 10_000)] | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> WarmStartSource:
        if (self.run is None) == (self.architectures is None):
            got = "neither" if self.run is None else "both"
            raise misplaced((), "either run or architectures", got)
        if self.keys is not None and self.run is None:
            raise misplaced(("keys",), "no keys, as these are not of a run", "keys")
        return self

    @property
    def path(self) -> str:
        """Of the run's directory or the file."""
        return self.run or self.architectures or ""
