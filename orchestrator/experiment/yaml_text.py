"""YAML as people expect it: the scalars of YAML 1.2, and no key twice.

PyYAML follows YAML 1.1, in which 2e-4 is text, `no` is false, 010 is 8 and 1:30 is 90.
"""

import re
from collections.abc import Sequence
from typing import Any

import yaml

# The core schema of YAML 1.2.2, section 10.3.2, and `<<`, which lets sections share settings.
_SCALARS = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
    ),
    "merge": r"<<",
}
#: Characters of a file, and values in it.
MOST_CHARACTERS, MOST_VALUES = 2_000_000, 60_000
_MOST_DIGITS, _DEEPEST = 1000, 100
#: What an explicit tag may ask for: the kinds of values that an experiment is made of.
_TAGS = ("null", "bool", "int", "float", "str", "seq", "map")
_RESOLVERS = {
    None: [
        (f"tag:yaml.org,2002:{name}", re.compile(rf"^(?:{pattern})\Z"))
        for name, pattern in _SCALARS.items()
    ]
}


class _TooLarge(Exception):
    """A text that is longer than an experiment may be, or holds more values."""


def _check_text(text: str) -> None:
    """Raise _TooLarge, or RecursionError, for what would be read for too long: counted in C, before
    Python reads it.
    """
    if len(text) > MOST_CHARACTERS:
        raise _TooLarge(f"it has {len(text):,} characters, more than {MOST_CHARACTERS:,}")
    values = depth = 0
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            values += isinstance(event, yaml.NodeEvent)
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(
                event, yaml.CollectionEndEvent
            )
            if values > MOST_VALUES:
                raise _too_many(event.start_mark)
            if depth > _DEEPEST:
                raise RecursionError
    except (yaml.YAMLError, UnicodeError):
        return  # which Python tells better


def _check_size(root: Any) -> None:
    """Raise where aliases are in themselves, or make a small text endless; what is written once is
    counted once.
    """
    sizes: dict[int, int] = {}
    waiting, above = [root], set()
    while waiting:
        node = waiting[-1]
        inner = [] if isinstance(node, yaml.ScalarNode) else node.value
        if isinstance(node, yaml.MappingNode):
            inner = [each for pair in inner for each in pair]
        if id(node) not in sizes and id(node) not in above:
            above.add(id(node))
            waiting += [each for each in inner if id(each) not in sizes]
            if any(id(each) in above for each in inner):
                raise yaml.constructor.ConstructorError(
                    None, None, "an alias stands within itself", node.start_mark
                )
            continue
        waiting.pop()
        above.discard(id(node))
        sizes[id(node)] = 1 + sum(sizes[id(each)] for each in inner)
        if sizes[id(node)] > MOST_VALUES:
            raise _too_many(node.start_mark)


def _too_many(mark: Any) -> _TooLarge:
    return _TooLarge(
        f"it comes to more than {MOST_VALUES:,} values, aliases counted as what they stand for "
        f"(line {mark.line + 1})"
    )


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = _RESOLVERS
    yaml_constructors = {  # noqa: RUF012 - as PyYAML has it
        f"tag:yaml.org,2002:{name}": yaml.SafeLoader.yaml_constructors[f"tag:yaml.org,2002:{name}"]
        for name in _TAGS
    }

    def construct_plain(self, node: Any) -> Any:
        """An explicit tag of a scalar must fit what is written: `!!null x` is no null, `!!bool yes`
        no true.
        """
        name = node.tag.rpartition(":")[2]
        if not re.fullmatch(_SCALARS[name], self.construct_scalar(node)):
            raise ValueError(node.value)
        return yaml.SafeLoader.yaml_constructors[node.tag](self, node)

    def refuse_tag(self, node: Any) -> Any:
        name = node.tag.replace("tag:yaml.org,2002:", "!!")
        known = ", ".join(f"!!{tag}" for tag in _TAGS)
        problem = (
            f"could not determine a constructor for the explicit tag {name}, which is none of "
            f"{known}"
        )
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            identity = (key.tag, key.value)
            if identity in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice", key.start_mark
                )
            seen.add(identity)
        return node

    def get_single_node(self) -> Any:
        """The document, once it is known what it comes to when every alias is the content that it
        stands for.
        """
        node = super().get_single_node()
        if node is not None:
            _check_size(node)
        return node

    def construct_yaml_int(self, node: Any) -> int:
        text = self.construct_scalar(node)
        if len(text) > _MOST_DIGITS:
            problem = f"a number of {len(text):,} digits is too long"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)

    def construct_yaml_float(self, node: Any) -> float:
        return float(
            self.construct_scalar(node).lower().replace(".inf", "inf").replace(".nan", "nan")
        )


for _tag in ("null", "bool"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.construct_plain)
_Loader.add_constructor(None, _Loader.refuse_tag)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


class _Dumper(yaml.SafeDumper):
    """Quotes what `_Loader` would not read as text."""

    yaml_implicit_resolvers = _RESOLVERS


def load(text: str) -> Any:
    """The content of one YAML document; raises ValueError with one line that says what is wrong and
    where.
    """
    try:
        _check_text(text)
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        mark = error.problem_mark or error.context_mark
        line = f" (line {mark.line + 1})" if mark else ""
        raise ValueError(f"{problem}{line}") from error
    except yaml.YAMLError as error:
        raise ValueError(str(error).splitlines()[0]) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except _TooLarge as error:
        raise ValueError(str(error)) from error
    except (ValueError, LookupError, AttributeError) as error:
        raise ValueError("an explicit tag (!!) does not fit its value") from error


def written(text: str, path: Sequence[str | int]) -> str | None:
    """The scalar at a place of a document as it is written there: 007 and not 7; None where there
    is none.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError:
        return None
    for part in path:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
        elif isinstance(node, yaml.MappingNode):
            node = next((value for key, value in node.value if key.value == part), None)
        else:
            return None
    return str(node.value) if isinstance(node, yaml.ScalarNode) else None


def dump(content: Any) -> str:
    """YAML that `load` reads back as it was."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def fits(content: Any) -> bool:
    """Whether `load` would read what `dump` writes of it, as far as that is a matter of size."""
    values = characters = 0
    waiting = [content]
    while waiting and values <= MOST_VALUES:
        value = waiting.pop()
        values += 1
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            waiting += value
        else:
            characters += len(str(value))
    # Quotes, escapes, keys and indentation take room, too.
    return values <= MOST_VALUES and characters <= MOST_CHARACTERS // 10
