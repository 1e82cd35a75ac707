"""Where a parser stands in the text of a script, and the small steps that it takes."""

from __future__ import annotations

from device_farm.emulator.shell.tree import SyntaxProblem

MAX_DEPTH = 30
OPERATORS = ("&&", "||", ";;", ";", "&", "|", "(", ")", "\n")


class Scanner:
    """`depth` is how deeply the text is nested in others."""

    def __init__(self, text: str, *, depth: int = 0) -> None:
        self._text = text
        self._at = 0
        self._depth = depth

    def at_end(self) -> bool:
        return self._at >= len(self._text)

    def rest(self) -> str:
        """The next few characters, for messages."""
        return self._text[self._at : self._at + 20]

    def _name(self, *, optional: bool = False) -> str:
        start = self._at
        while not self.at_end() and (self._text[self._at].isalnum() or self._text[self._at] == "_"):
            self._at += 1
        name = self._text[start : self._at]
        if not name.isidentifier():
            if not optional:
                raise SyntaxProblem(f"expected a name, got {self._text[start : start + 20]!r}")
            self._at = start
            return ""
        return name

    def _skip_blank(self, *, newlines: bool = False) -> None:
        while not self.at_end():
            if self._text[self._at] in (" \t\r\n" if newlines else " \t\r"):
                self._at += 1
            elif self._text.startswith("\\\n", self._at):
                self._at += 2
            elif self._text[self._at] == "#" and (self._at == 0 or self._text[self._at - 1] in " \t\r\n;&|("):
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
            else:
                return

    def _peek(self, text: str) -> bool:
        return self._text.startswith(text, self._at)

    def _peek_word(self) -> str | None:
        """The next word if it is plain."""
        self._skip_blank()
        end = self._at
        while end < len(self._text) and self._text[end] not in " \t\r\n;&|<>()'\"\\$`":
            end += 1
        return self._text[self._at : end] or None

    def _expect_word(self, word: str) -> None:
        if self._peek_word() != word:
            raise SyntaxProblem(f"expected '{word}', got {self.rest()!r}")
        self._at += len(word)

    def _expect(self, text: str) -> None:
        if not self._peek(text):
            raise SyntaxProblem(f"expected '{text}', got {self.rest()!r}")
        self._at += len(text)

    def _take_operator(self, *operators: str) -> str | None:
        self._skip_blank()
        for operator in OPERATORS:
            if self._peek(operator):
                if operator not in operators:
                    return None
                self._at += len(operator)
                return operator
        return None
