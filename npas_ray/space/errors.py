"""What the search space raises."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SpaceError(ValueError):
    """A search space that cannot be, or an architecture that is not in it. The user's error; the message says where."""


def did_you_mean(got: str, names: Iterable[str]) -> str:
    """ ", did you mean 'x'?" with the nearest of the names, or nothing if none is near.

    A name that begins with what was typed is nearer than any other.

    >>> did_you_mean("3x3d", ["3x3", "3x3dw+1x1"])
    ", did you mean '3x3dw+1x1'?"
    """
    names = [str(name) for name in names]
    typed = "".join(got.lower().split()).replace("_", "-")
    near = [name for name in names if typed and name.startswith(typed)] or difflib.get_close_matches(
        typed, names, n=1, cutoff=0.5
    )
    return f", did you mean {near[0]!r}?" if near else ""
