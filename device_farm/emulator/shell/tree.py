"""What a script means: the tree that the parser makes and the interpreter runs."""

from __future__ import annotations

from dataclasses import dataclass


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
    chains: tuple[Chain, ...] = ()
