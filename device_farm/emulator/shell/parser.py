"""A small POSIX shell language: what programs send through `adb shell`, no more.

Lists (`;`, `&`, newline), `&&`, `||`, `!`, pipes, redirections, `( )`, `{ }`, `if`, `while`, `until`, `for`, quotes,
`$name`, `${name:-word}`, `${name#pattern}`, `$(command)`, backquotes, `$((1 + 1))`, patterns of file names. Not there:
functions, `case`, here-documents, job control.
"""

from __future__ import annotations

from device_farm.emulator.shell.scanner import MAX_DEPTH
from device_farm.emulator.shell.tree import (
    Chain,
    Command,
    Compound,
    For,
    If,
    List,
    Loop,
    Pipeline,
    Redirection,
    Simple,
    SyntaxProblem,
    Variable,
    Word,
)
from device_farm.emulator.shell.words import WordParser

MAX_SCRIPT_CHARACTERS = 100_000

_RESERVED = frozenset({"if", "then", "elif", "else", "fi", "while", "until", "for", "do", "done", "{", "}", "!"})


def parse(text: str) -> List:
    """The tree of a script. Raises SyntaxProblem."""
    if len(text) > MAX_SCRIPT_CHARACTERS:
        raise SyntaxProblem(f"a script of {len(text)} characters, at most {MAX_SCRIPT_CHARACTERS} are read")
    parser = _Parser(text)
    script = parser.list_until(())
    if not parser.at_end():
        raise SyntaxProblem(f"unexpected {parser.rest()!r}")
    return script


class _Parser(WordParser):
    def nested(self, text: str) -> WordParser:
        return _Parser(text, depth=self._depth + 1)

    def list_until(self, closers: tuple[str, ...]) -> List:
        """Chains up to one of the words or to `)`, which is left for the caller."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise SyntaxProblem("nested too deeply")
        chains = []
        while True:
            self._skip_blank(newlines=True)
            if self.at_end() or self._peek(")") or (closers and self._peek_word() in closers):
                break
            chain = [("", self._pipeline())]
            while (operator := self._take_operator("&&", "||")) is not None:
                self._skip_blank(newlines=True)
                chain.append((operator, self._pipeline()))
            end = self._take_operator(";", "&", "\n")
            chains.append(Chain(tuple(chain), end == "&"))
            if end is None:
                self._skip_blank()
                break
        self._depth -= 1
        return List(tuple(chains))

    def _pipeline(self) -> Pipeline:
        negated = False
        while self._peek_word() == "!":
            self._expect_word("!")
            negated = not negated
        commands = [self._command()]
        while self._take_operator("|") is not None:
            self._skip_blank(newlines=True)
            commands.append(self._command())
        return Pipeline(negated, tuple(commands))

    def _command(self) -> Command:
        if self._take_operator("(") is not None:
            body = self.list_until(())
            if self._take_operator(")") is None:
                raise SyntaxProblem("expected ')'")
            return Compound(body, True, self._redirections())
        word = self._peek_word()
        if word == "{":
            self._expect_word("{")
            body = self.list_until(("}",))
            self._expect_word("}")
            return Compound(body, False, self._redirections())
        if word == "if":
            return self._if()
        if word in ("while", "until"):
            self._expect_word(word)
            condition = self.list_until(("do",))
            return Loop(condition, word == "until", self._body(), self._redirections())
        if word == "for":
            return self._for()
        if word in _RESERVED:
            raise SyntaxProblem(f"unexpected '{word}'")
        return self._simple()

    def _if(self) -> If:
        branches = []
        self._expect_word("if")
        while True:
            condition = self.list_until(("then",))
            self._expect_word("then")
            branches.append((condition, self.list_until(("elif", "else", "fi"))))
            if self._peek_word() != "elif":
                break
            self._expect_word("elif")
        otherwise = None
        if self._peek_word() == "else":
            self._expect_word("else")
            otherwise = self.list_until(("fi",))
        self._expect_word("fi")
        return If(tuple(branches), otherwise, self._redirections())

    def _for(self) -> For:
        self._expect_word("for")
        self._skip_blank()
        name = self._name()
        words: list[Word] = []
        self._skip_blank(newlines=True)
        if self._peek_word() == "in":
            self._expect_word("in")
            while (word := self._word()) is not None:
                words.append(word)
        else:
            words.append(Word((Variable("@", True),)))
        self._take_operator(";", "\n")
        return For(name, tuple(words), self._body(), self._redirections())

    def _body(self) -> List:
        self._skip_blank(newlines=True)
        self._expect_word("do")
        body = self.list_until(("done",))
        self._expect_word("done")
        return body

    def _simple(self) -> Simple:
        assignments: list[tuple[str, Word]] = []
        words: list[Word] = []
        redirections: list[Redirection] = []
        while True:
            redirection = self._redirection()
            if redirection is not None:
                redirections.append(redirection)
                continue
            if not words and (assignment := self._assignment()) is not None:
                assignments.append(assignment)
                continue
            word = self._word()
            if word is None:
                break
            words.append(word)
        if not (assignments or words or redirections):
            raise SyntaxProblem(f"expected a command, got {self.rest()!r}")
        return Simple(tuple(assignments), tuple(words), tuple(redirections))

    def _assignment(self) -> tuple[str, Word] | None:
        self._skip_blank()
        at = self._at
        name = self._name(optional=True)
        if not name or not self._peek("="):
            self._at = at
            return None
        self._at += 1
        adjacent = not self.at_end() and self._text[self._at] not in " \t\n;&|<>()"
        return name, (self._word() if adjacent else None) or Word(())

    def _redirections(self) -> tuple[Redirection, ...]:
        found = []
        while (redirection := self._redirection()) is not None:
            found.append(redirection)
        return tuple(found)

    def _redirection(self) -> Redirection | None:
        self._skip_blank()
        at = self._at
        digits = ""
        while not self.at_end() and self._text[self._at].isascii() and self._text[self._at].isdigit():
            digits += self._text[self._at]
            self._at += 1
        for operator in (">>", ">&", "<&", ">|", "<<", ">", "<"):
            if self._peek(operator):
                break
        else:
            self._at = at
            return None
        if operator == "<<":
            raise SyntaxProblem("here-documents are not emulated")
        self._at += len(operator)
        target = self._word()
        if target is None:
            raise SyntaxProblem(f"expected a file after '{operator}'")
        descriptor = int(digits[:3]) if digits else 0 if operator[0] == "<" else 1
        return Redirection(descriptor, ">" if operator == ">|" else operator, target)
