"""A small POSIX shell language as a tree: what programs send through `adb shell`, no more.

Lists (`;`, `&`, newline), `&&`, `||`, `!`, pipes, redirections, `( )`, `{ }`, `if`, `while`, `until`, `for`, quotes,
`$name`, `${name:-word}`, `${name#pattern}`, `$(command)`, backquotes, `$((1 + 1))`, patterns of file names. Not there:
functions, `case`, here-documents, job control.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_DEPTH = 30
MAX_SCRIPT_CHARACTERS = 200_000

_OPERATORS = ("&&", "||", ";;", ";", "&", "|", "(", ")", "\n")
_RESERVED = frozenset({"if", "then", "elif", "else", "fi", "while", "until", "for", "do", "done", "{", "}", "!"})
_SPECIAL_NAMES = "?$!#@*-0123456789"


class SyntaxProblem(Exception):
    """The text is not of this language."""


@dataclass(frozen=True)
class Text:
    text: str
    quoted: bool


@dataclass(frozen=True)
class Variable:
    """`operator` is one of `:-`, `-`, `:+`, `+`, `#`, `##`, `%`, `%%`, `length` or empty."""

    name: str
    quoted: bool
    operator: str = ""
    operand: Word | None = None


@dataclass(frozen=True)
class Substitution:
    script: List
    quoted: bool


@dataclass(frozen=True)
class Arithmetic:
    expression: Word
    quoted: bool


@dataclass(frozen=True)
class Word:
    parts: tuple[Text | Variable | Substitution | Arithmetic, ...]

    @property
    def literal(self) -> str | None:
        """The text, if it is nothing else and not quoted."""
        if all(isinstance(part, Text) and not part.quoted for part in self.parts):
            return "".join(part.text for part in self.parts if isinstance(part, Text))
        return None


@dataclass(frozen=True)
class Redirection:
    """`operator` is one of `<`, `>`, `>>`, `>&`, `<&`."""

    descriptor: int
    operator: str
    target: Word


@dataclass(frozen=True)
class Simple:
    assignments: tuple[tuple[str, Word], ...]
    words: tuple[Word, ...]
    redirections: tuple[Redirection, ...]


@dataclass(frozen=True)
class Compound:
    """`( )` if it is a `subshell`, else `{ }`."""

    body: List
    subshell: bool
    redirections: tuple[Redirection, ...]


@dataclass(frozen=True)
class If:
    branches: tuple[tuple[List, List], ...]
    otherwise: List | None
    redirections: tuple[Redirection, ...]


@dataclass(frozen=True)
class Loop:
    condition: List
    until: bool
    body: List
    redirections: tuple[Redirection, ...]


@dataclass(frozen=True)
class For:
    name: str
    words: tuple[Word, ...]
    body: List
    redirections: tuple[Redirection, ...]


Command = Simple | Compound | If | Loop | For


@dataclass(frozen=True)
class Pipeline:
    negated: bool
    commands: tuple[Command, ...]


@dataclass(frozen=True)
class Chain:
    """Pipelines with what stands before each: "", "&&" or "||"."""

    pipelines: tuple[tuple[str, Pipeline], ...]
    background: bool


@dataclass(frozen=True)
class List:
    chains: tuple[Chain, ...] = field(default_factory=tuple)


def parse(text: str) -> List:
    """The tree of a script. Raises SyntaxProblem."""
    if len(text) > MAX_SCRIPT_CHARACTERS:
        raise SyntaxProblem(f"a script of {len(text)} characters, at most {MAX_SCRIPT_CHARACTERS} are read")
    parser = _Parser(text)
    script = parser.list_until(())
    if not parser.at_end():
        raise SyntaxProblem(f"unexpected {parser.rest()!r}")
    return script


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def at_end(self) -> bool:
        return self._at >= len(self._text)

    def rest(self) -> str:
        return self._text[self._at : self._at + 20]

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

    def _word(self) -> Word | None:
        self._skip_blank()
        parts: list[Text | Variable | Substitution | Arithmetic] = []
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

    def _quoted_or_expanded(self, c: str) -> list[Text | Variable | Substitution | Arithmetic]:
        if c == "'":
            end = self._text.find("'", self._at + 1)
            if end < 0:
                raise SyntaxProblem("no closing quote")
            text = self._text[self._at + 1 : end]
            self._at = end + 1
            return [Text(text, True)]
        if c == '"':
            self._at += 1
            return self._double_quoted()
        if c == "\\":
            self._at += 2
            character = self._text[self._at - 1 : self._at]
            return [] if character == "\n" else [Text(character, True)]
        return [self._expansion(quoted=False)]

    def _double_quoted(self) -> list[Text | Variable | Substitution | Arithmetic]:
        parts: list[Text | Variable | Substitution | Arithmetic] = []
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

    def _expansion(self, *, quoted: bool) -> Text | Variable | Substitution | Arithmetic:
        if self._peek("`"):
            end = self._text.find("`", self._at + 1)
            if end < 0:
                raise SyntaxProblem("no closing backquote")
            script = self._nested(self._text[self._at + 1 : end])
            self._at = end + 1
            return Substitution(script, quoted)
        if self._peek("$(("):
            end = self._text.find("))", self._at)
            if end < 0:
                raise SyntaxProblem("expected '))'")
            inner = _Parser(self._text[self._at + 3 : end] + '"')
            inner._depth = self._depth
            self._at = end + 2
            return Arithmetic(Word(tuple(inner._double_quoted())), quoted)
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
        for operator in (":-", ":+", "##", "%%", "-", "+", "#", "%"):
            if self._peek(operator):
                self._at += len(operator)
                end = self._text.find("}", self._at)
                if end < 0:
                    raise SyntaxProblem("expected '}'")
                inner = _Parser(self._text[self._at : end])
                self._at = end + 1
                return Variable(name, quoted, operator, inner._operand())
        self._expect("}")
        return Variable(name, quoted)

    def _operand(self) -> Word:
        word = self._word() or Word(())
        if not self.at_end():
            raise SyntaxProblem(f"unexpected {self.rest()!r} between braces")
        return word

    def _nested(self, text: str) -> List:
        inner = _Parser(text)
        inner._depth = self._depth
        script = inner.list_until(())
        if not inner.at_end():
            raise SyntaxProblem(f"unexpected {inner.rest()!r}")
        return script

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
        for operator in _OPERATORS:
            if self._peek(operator):
                if operator not in operators:
                    return None
                self._at += len(operator)
                return operator
        return None
