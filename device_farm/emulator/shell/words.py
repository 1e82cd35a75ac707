"""Words of a script: quotes and what is to be expanded."""

from __future__ import annotations

from device_farm.emulator.shell.scanner import Scanner
from device_farm.emulator.shell.tree import Arithmetic, List, Substitution, SyntaxProblem, Text, Variable, Word

_SPECIAL_NAMES = "?$!#@*-0123456789"
_OPERATORS = (":-", ":+", "##", "%%", "-", "+", "#", "%")  # of ${name...}

Part = Text | Variable | Substitution | Arithmetic


class WordParser(Scanner):
    """Reads one word at a time. Commands inside of words are for the class that derives from this one."""

    def list_until(self, closers: tuple[str, ...]) -> List:
        """Commands up to one of the words or to `)`, which is left for the caller."""
        raise NotImplementedError

    def nested(self, text: str) -> WordParser:
        """A parser of a text within this one."""
        raise NotImplementedError

    def _word(self) -> Word | None:
        self._skip_blank()
        parts: list[Part] = []
        plain = ""
        while not self.at_end():
            c = self._text[self._at]
            if c in " \t\n;&|<>()":
                break
            if c in "'\"\\$`":
                if plain:
                    parts.append(Text(plain, False))
                    plain = ""
                parts += self._quoted_or_expanded(c)
            else:
                plain += c
                self._at += 1
        if plain:
            parts.append(Text(plain, False))
        return Word(tuple(parts)) if parts else None

    def _quoted_or_expanded(self, c: str) -> list[Part]:
        if c == "'":
            end = self._text.find("'", self._at + 1)
            if end < 0:
                raise SyntaxProblem("no closing quote")
            text = self._text[self._at + 1 : end]
            self._at = end + 1
            return [Text(text, True)]
        if c == '"':
            self._at += 1
            return self.double_quoted()
        if c == "\\":
            self._at += 2
            character = self._text[self._at - 1 : self._at]
            return [] if character == "\n" else [Text(character, True)]
        return [self._expansion(quoted=False)]

    def double_quoted(self) -> list[Part]:
        """What follows an opening double quote, and the closing one."""
        parts: list[Part] = []
        plain = ""
        while not self._peek('"'):
            if self.at_end():
                raise SyntaxProblem("no closing quote")
            c = self._text[self._at]
            if c in "$`":
                parts.append(Text(plain, True))
                plain = ""
                parts.append(self._expansion(quoted=True))
                continue
            if c == "\\" and self._text[self._at + 1 : self._at + 2] in ("$", "`", '"', "\\", "\n"):
                self._at += 1
                c = self._text[self._at]
                if c == "\n":
                    c = ""
            plain += c
            self._at += 1
        self._at += 1
        return [*parts, Text(plain, True)]

    def _expansion(self, *, quoted: bool) -> Part:
        if self._peek("`"):
            end = self._text.find("`", self._at + 1)
            if end < 0:
                raise SyntaxProblem("no closing backquote")
            inner = self.nested(self._text[self._at + 1 : end])
            self._at = end + 1
            script = inner.list_until(())
            if not inner.at_end():
                raise SyntaxProblem(f"unexpected {inner.rest()!r}")
            return Substitution(script, quoted)
        if self._peek("$(("):
            end = self._text.find("))", self._at)
            if end < 0:
                raise SyntaxProblem("expected '))'")
            inner = self.nested(self._text[self._at + 3 : end] + '"')
            self._at = end + 2
            return Arithmetic(Word(tuple(inner.double_quoted())), quoted)
        if self._peek("$("):
            self._at += 2
            body = self.list_until(())
            if not self._peek(")"):
                raise SyntaxProblem("expected ')'")
            self._at += 1
            return Substitution(body, quoted)
        self._at += 1
        if self._peek("{"):
            return self._braced(quoted)
        if not self.at_end() and self._text[self._at] in _SPECIAL_NAMES:
            self._at += 1
            return Variable(self._text[self._at - 1], quoted)
        name = self._name(optional=True)
        return Variable(name, quoted) if name else Text("$", quoted)

    def _braced(self, quoted: bool) -> Variable:
        self._at += 1
        if self._peek("#") and not self._peek("#}"):
            self._at += 1
            name = self._name()
            self._expect("}")
            return Variable(name, quoted, "length")
        if not self.at_end() and self._text[self._at] in _SPECIAL_NAMES:
            name = self._text[self._at]
            self._at += 1
        else:
            name = self._name()
        for operator in _OPERATORS:
            if self._peek(operator):
                self._at += len(operator)
                end = self._text.find("}", self._at)
                if end < 0:
                    raise SyntaxProblem("expected '}'")
                inner = self.nested(self._text[self._at : end])
                self._at = end + 1
                return Variable(name, quoted, operator, inner._operand())
        self._expect("}")
        return Variable(name, quoted)

    def _operand(self) -> Word:
        word = self._word() or Word(())
        if not self.at_end():
            raise SyntaxProblem(f"unexpected {self.rest()!r} between braces")
        return word
