"""A YAML document as a tree in which every value knows the line it was written on.

Scalars follow the core schema of YAML 1.2: ``1e-3`` is a number, ``no`` and ``12:30`` are text.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from schemas.errors import Mistake
from schemas.masking import holds_secret, masked

_MOST_NODES = 100_000
"""Beyond this a document is refused: aliases of aliases grow without bounds."""

_REFERENCE = re.compile(r"\$\{(?P<name>[A-Za-z_]\w*)(?::-(?P<default>[^{}]*))?\}")
_INTEGER = re.compile(r"[-+]?[0-9]{1,30}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_WORDS: Mapping[str, bool | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip

Path = tuple[str | int, ...]
"""The way from the top of a document to a value: keys, and places in lists from 0."""


@dataclass(frozen=True)
class Node:
    """A value and where it was written."""

    value: "dict[str, Node] | list[Node] | str"
    """A mapping, a list, or a scalar's text before environment variables are expanded."""
    file: str
    line: int
    """Line of the key, or of the value where it has none; from 1."""
    plain: bool = True
    """Whether a scalar was written without quotes, and so may be a number or a word like true."""

    def child(self, key: str | int) -> "Node | None":
        """The value under a key or at a place of a list; none when there is none."""
        if isinstance(self.value, dict):
            return self.value.get(str(key))
        if isinstance(self.value, list) and isinstance(key, int) and key < len(self.value):
            return self.value[key]
        return None

    def find(self, path: Path) -> "Node":
        """The value at the end of ``path``, or the last one on the way there."""
        here = self
        for key in path:
            found = here.child(key)
            if found is None:
                break
            here = found
        return here

    def mistake(self, path: Path, what: str, *, got: str = "", allowed: str = "") -> Mistake:
        """A mistake on this value's line; credentials are masked."""
        return Mistake(
            self.file, self.line, masked(label(path)), masked(what), masked(got), allowed
        )


def label(path: Path) -> str:
    """A path as people write it: ``jobs.train.classes[1]``."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text or "the file"


def parse(text: str, file: str, path: Path = (), line: int = 0) -> tuple[Node, list[Mistake]]:
    """Read a YAML document; returns its tree and the mistakes of its form.

    ``path`` and ``line`` say where the text stands when it is no file of its own. A text that is
    no YAML at all gives an empty mapping and the one mistake that stopped the reading.
    """
    converter = _Converter(file, line)
    empty = Node({}, file, line or 1)
    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
        if root is None:
            return Node("", file, line or 1), []
        return converter.convert(root, root.start_mark.line, path), converter.mistakes
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Node("", file, line or (mark.line + 1 if mark else 1))
        problem = error.problem or error.context or "can't be read"
        if "got '{'" in problem:
            problem += "; within { } and [ ] a ${...} wants quotes"
        return empty, [place.mistake(path, f"is no YAML: {problem}")]
    except yaml.reader.ReaderError as error:
        place = Node("", file, line or text.count("\n", 0, error.position) + 1)
        return empty, [place.mistake(path, "is no YAML: it holds a control character")]
    except (RecursionError, _TooLargeError):
        return empty, [empty.mistake(path, "is nested too deeply or grows too large by aliases")]


class _TooLargeError(Exception):
    pass


@dataclass
class _Converter:
    """Turns PyYAML's nodes into ours and notes what is wrong with their form."""

    file: str
    fixed_line: int
    mistakes: list[Mistake] = field(default_factory=list)
    count: int = 0

    def convert(self, node: yaml.Node, line: int, path: Path) -> Node:
        self.count += 1
        if self.count > _MOST_NODES:
            raise _TooLargeError
        number = self.fixed_line or line + 1
        if not node.tag.startswith("tag:yaml.org,2002:"):
            self.mistakes.append(
                Node("", self.file, number).mistake(path, "has a tag", got=node.tag, allowed="none")
            )
        if isinstance(node, yaml.MappingNode):
            return Node(self._mapping(node, path), self.file, number)
        if isinstance(node, yaml.SequenceNode):
            items = [
                self.convert(item, item.start_mark.line, (*path, place))
                for place, item in enumerate(node.value)
            ]
            return Node(items, self.file, number)
        quoted = isinstance(node, yaml.ScalarNode) and node.style is not None
        return Node(str(node.value), self.file, number, plain=not quoted)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        for key, value in node.value:
            line = key.start_mark.line
            place = Node("", self.file, self.fixed_line or line + 1)
            if not isinstance(key, yaml.ScalarNode):
                self.mistakes.append(place.mistake(path, "has a key that is no text"))
                continue
            name = str(key.value)
            if name in entries:
                self.mistakes.append(
                    place.mistake(
                        (*path, name),
                        "is given twice",
                        allowed=f"once; the first is on line {entries[name].line}",
                    )
                )
                continue
            entries[name] = self.convert(value, line, (*path, name))
        return entries


def merge(base: Node, over: Node) -> Node:
    """``over`` on top of ``base``: mappings entry by entry, anything else replaced whole."""
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return over
    entries = dict(base.value)
    for key, node in over.value.items():
        entries[key] = merge(entries[key], node) if key in entries else node
    return Node(entries, base.file, base.line)


@dataclass
class Expansion:
    """Turns trees into plain values, expanding ``${NAME}`` and ``${NAME:-default}``.

    ``$${`` stands for a literal ``${``. What can't be expanded, is not finite or holds a secret
    becomes None, and its path is remembered in ``unknown``.
    """

    env: Mapping[str, str]
    undefined_is_mistake: bool = True
    mistakes: list[Mistake] = field(default_factory=list)
    unknown: set[Path] = field(default_factory=set)

    def value(self, node: Node, path: Path) -> Any:
        """The JSON value of a tree whose place is ``path``."""
        if isinstance(node.value, dict):
            return {key: self.value(child, (*path, key)) for key, child in node.value.items()}
        if isinstance(node.value, list):
            return [self.value(child, (*path, i)) for i, child in enumerate(node.value)]
        return self._scalar(node, path)

    def _scalar(self, node: Node, path: Path) -> Any:
        found = len(self.mistakes)
        text = self._expanded(node, path)
        if holds_secret(text):
            what, allowed = "holds a secret", "no credentials: they come from the environment"
            self.mistakes.append(node.mistake(path, what, got=text, allowed=allowed))
        value = _core_value(text) if node.plain else text
        if isinstance(value, float) and not math.isfinite(value):
            what, allowed = "is not finite", "a finite number"
            self.mistakes.append(node.mistake(path, what, got=text, allowed=allowed))
        if len(self.mistakes) > found:
            self.unknown.add(path)
        return None if path in self.unknown else value

    def _expanded(self, node: Node, path: Path) -> str:
        raw = str(node.value)
        if any("${" in _REFERENCE.sub("", piece) for piece in raw.split("$${")):
            what, allowed = "has a reference that can't be read", "${NAME} or ${NAME:-default}"
            self.mistakes.append(node.mistake(path, what, got=raw, allowed=allowed))
        for name in _undefined(raw, self.env):
            self.unknown.add(path)
            if self.undefined_is_mistake:
                what = f"the environment variable {name} is not defined"
                allowed = f"a defined variable, or a default: ${{{name}:-default}}"
                self.mistakes.append(node.mistake(path, what, got=raw, allowed=allowed))
        return expanded(raw, self.env)


def expanded(text: str, env: Mapping[str, str]) -> str:
    """``text`` with environment variables in place; those not defined become empty."""
    return "${".join(
        _REFERENCE.sub(lambda found: env.get(found["name"]) or found["default"] or "", piece)
        for piece in text.split("$${")
    )


def _undefined(text: str, env: Mapping[str, str]) -> list[str]:
    references = [one for piece in text.split("$${") for one in _REFERENCE.finditer(piece)]
    return [one["name"] for one in references if one["default"] is None and one["name"] not in env]


def _core_value(text: str) -> bool | int | float | str | None:
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _NOT_FINITE.fullmatch(text):
        return math.inf
    return text
