"""A YAML text -> plain dicts, lists and scalars, and the line of every one of them.

Only data: no tags, no objects. Scalars are read as YAML 1.2 reads them ("yes" is text, 010 is ten, 1e-3 is a number),
keys are text and must not repeat, and size, depth and the expansion of aliases are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from npas_ray.config.words import Loc, dotted, printable, shown
from npas_ray.errors import ConfigError

MAX_BYTES = 256 * 1024
MAX_VALUES = 10_000  # after the expansion of aliases
MAX_DEPTH = 32


@dataclass(frozen=True)
class Document:
    """What a YAML text says. `lines` has the line (from 1) of every key and list item, by its location."""

    name: str
    data: dict[str, Any]
    lines: Mapping[Loc, int] = field(default_factory=dict)


def read_document(path: Path) -> Document:
    """The mapping in a file. Raises ConfigError for anything else: unreadable, too large, not UTF-8, not YAML."""
    name = printable(str(path))
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise ConfigError(f"{name}: expected a YAML file; got a directory") from None
    except FileNotFoundError:
        raise ConfigError(f"{name}: there is no such file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{name}: cannot be read: {reason}") from None
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{name}: expected at most {MAX_BYTES // 1024} KiB of YAML; got more")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{name}:{line}: expected UTF-8 text; got byte 0x{content[error.start]:02x}") from None
    value, lines = parse(text, name=name)
    if value is None:
        raise ConfigError(f"{name}: the file is empty; expected a configuration (see examples/demo.yaml)")
    if not isinstance(value, dict):
        raise ConfigError(f"{name}: expected a mapping (key: value); got {shown(value)}")
    return Document(name, value, lines)


def parse(text: str, *, name: str) -> tuple[Any, Mapping[Loc, int]]:
    """The value of a YAML text and the lines of its parts. Raises ConfigError, which begins with `name`."""
    loader = None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        code = f"U+{ord(text[error.position]):04X}"
        raise ConfigError(f"{name}:{line}: not YAML: the character {code} is not allowed") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        context = f"{error.context}: " if error.context else ""
        raise ConfigError(f"{where}: not YAML: {context}{printable(error.problem or 'syntax error')}") from None
    finally:
        if loader is not None:
            loader.dispose()
    if root is None:
        return None, {}
    builder = _Builder(name)
    value = builder.build(root, ())
    if builder.problems:
        raise ConfigError("\n".join(builder.problems))
    return value, builder.lines


class _Loader(yaml.SafeLoader):
    """Composes nodes; nothing is constructed by it."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.depth > MAX_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, f"nested more than {MAX_DEPTH} deep", mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


_TAG = "tag:yaml.org,2002:"
_SCALARS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+", list("-+0123456789")),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}
# of the class, by PyYAML's design; without this the words of YAML 1.1 would be inherited
_Loader.yaml_implicit_resolvers = {}
for _kind, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(_TAG + _kind, re.compile(rf"(?:{_pattern})\Z"), _first)


class _Builder:
    """Values out of nodes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[Loc, int] = {}
        self.problems: list[str] = []
        self._values = 0

    def build(self, node: yaml.Node, loc: Loc) -> Any:
        self._values += 1
        if self._values > MAX_VALUES:
            raise ConfigError(f"{self._at(node)}: more than {MAX_VALUES:,} values (aliases are counted each time)")
        if len(loc) > MAX_DEPTH:
            raise ConfigError(f"{self._at(node)}: nested more than {MAX_DEPTH} deep")
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return {key: self.build(value, (*loc, key)) for key, value in self._pairs(node, loc)}
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            values = []
            for index, item in enumerate(node.value):
                self.lines[(*loc, index)] = item.start_mark.line + 1
                values.append(self.build(item, (*loc, index)))
            return values
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        return self._unknown_tag(node)

    def _pairs(self, node: yaml.MappingNode, loc: Loc) -> Iterator[tuple[str, yaml.Node]]:
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(f"{self._at(key_node)}: expected a name as the key; got a list or a mapping")
                continue
            key = key_node.value
            if key in seen:
                where = dotted((*loc, key))
                self.problems.append(f"{self._at(key_node)}: {where}: given twice, first in line {seen[key]}")
                continue
            seen[key] = self.lines[(*loc, key)] = line
            yield key, value_node

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text: str = node.value
        kind = node.tag.removeprefix(_TAG)
        try:
            if kind == "str":
                return text
            if kind == "int":
                return int(text)
            if kind == "float":
                return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
        except ValueError:
            self.problems.append(f"{self._at(node)}: expected a number; got {shown(text)}")
            return None
        if kind == "null":
            return None
        if kind == "bool" and text.lower() in ("true", "false"):
            return text.lower() == "true"
        return self._unknown_tag(node)

    def _unknown_tag(self, node: yaml.Node) -> None:
        tag = node.tag.replace(_TAG, "!!")
        self.problems.append(f"{self._at(node)}: the tag {shown(tag)} is not allowed; only plain values are")

    def _at(self, node: yaml.Node) -> str:
        return f"{self.name}:{node.start_mark.line + 1}"
