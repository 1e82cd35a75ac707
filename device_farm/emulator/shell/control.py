"""How a script leaves what it is in the middle of."""

from __future__ import annotations


class ShellExit(Exception):
    """`exit N`, or `exec` of a program that has ended."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class LoopControl(Exception):
    """`break` and `continue`."""

    def __init__(self, *, goes_on: bool) -> None:
        super().__init__(goes_on)
        self.goes_on = goes_on
