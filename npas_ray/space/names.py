"""The nearest valid name of what was typed, for error messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
