"""What all parts of a configuration have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the configuration: never changed, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")
