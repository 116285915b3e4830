"""absl flags derived from dataclass fields: type, default, bounds and help are said once, where the field is.

A part of a run (the model, the task, ...) is a dataclass. `fields_of` reads its fields; `define` makes a flag of
each (`--model.widths`); `values` gives the parsed ones back; `expand_flagfiles` reads flag files, nested ones too,
before absl sees the command line, so that a missing or circular file is an error and not a warning.
"""

import dataclasses
import functools
import math
import pathlib
import re
import shlex
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from jaxdl.catalog import nearest
from jaxdl.errors import InputError
from jaxdl.types import Bounds

_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


@dataclasses.dataclass(frozen=True)
class Field:
    """One flag-to-be. `kind` is the scalar type; `many` says comma-separated; `optional` accepts 'none'."""

    name: str
    default: Any
    help: str
    kind: type = str
    many: bool = False
    optional: bool = False
    bounds: Bounds | None = None
    choices: tuple[str, ...] | None = None

    def expected(self) -> str:
        """What a right value looks like, for messages and `--help`."""
        text = "one of " + ", ".join(self.choices) if self.choices else _NAMES[self.kind]
        if self.many:
            text = f"a comma-separated list, each {text}"
        if self.bounds:
            text += f", {self.bounds}"
        return text + (", or none" if self.optional else "")

    def parse(self, text: Any) -> Any:
        """The value that `text` says. Raises: ValueError."""
        if not isinstance(text, str):  # absl parses defaults, too
            return text
        if self.optional and text.strip().lower() == "none":
            return None
        if self.many:
            return tuple(self._scalar(part.strip()) for part in text.split(",") if part.strip())
        return self._scalar(text)

    def serialize(self, value: Any) -> str:
        """The text that `parse` turns into `value` again, exactly."""
        if value is None:
            return "none"
        if self.many:
            return ",".join(map(str, value))
        return str(value).lower() if self.kind is bool else str(value)

    def _scalar(self, text: str) -> Any:
        if self.kind is bool:
            if text.lower() not in ("true", "false", "1", "0"):
                raise ValueError(text)
            return text.lower() in ("true", "1")
        value = self.kind(text)
        if self.choices and value not in self.choices:
            raise ValueError(text)
        if self.kind is float and not math.isfinite(value):
            raise ValueError(text)
        if self.bounds and value not in self.bounds:
            raise ValueError(text)
        return value


class _Parser(flags.ArgumentParser):
    """Lets absl parse with a `Field`. Absl shares parsers of equal arguments unless they are given; this takes one."""

    def __init__(self, field: Field):
        super().__init__()
        self.field = field
        self.syntactic_help = field.expected()

    def parse(self, argument):
        try:
            return self.field.parse(argument)
        except ValueError:
            raise ValueError(f"expected {self.field.expected()}") from None

    def flag_type(self):
        return self.field.expected()


class _Serializer(flags.ArgumentSerializer):
    def __init__(self, field: Field):
        self.field = field

    def serialize(self, value):
        return self.field.serialize(value)


def fields_of(cls: type, overrides: Mapping[str, Any] | None = None) -> dict[str, Field]:
    """The fields of a dataclass that can be flags, in order. `overrides` replaces defaults.

    A field of another type (a function, a module) is no flag: it is set from Python alone.
    """
    fields = dict(_fields_of(cls))
    for name, default in (overrides or {}).items():
        if name in fields:
            many = fields[name].many and default is not None
            fields[name] = dataclasses.replace(fields[name], default=tuple(default) if many else default)
    missing = next((name for name, field in fields.items() if field.default is dataclasses.MISSING), None)
    if missing:
        raise TypeError(f"{cls.__name__}.{missing} needs a default to be a flag")
    return fields


@functools.cache  # a sweep parses thousands of times
def _fields_of(cls: type) -> Mapping[str, Field]:
    hints = typing.get_type_hints(cls, include_extras=True)
    helps = _attribute_help(cls)
    result = {}
    for field in dataclasses.fields(cls):
        if not field.init or field.name in ("parent", "name") and hasattr(cls, "apply"):  # Linen's own
            continue
        described = _describe(hints.get(field.name, field.type))
        if described is None:
            continue
        default = field.default
        if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if described["many"] and default not in (None, dataclasses.MISSING):
            default = tuple(default)
        result[field.name] = Field(field.name, default, helps.get(field.name, ""), **described)
    return result


def define(flag_values: flags.FlagValues, fields: Mapping[str, Field], prefix: str, module: str) -> None:
    """Defines one flag a field: `prefix.name`, or `name` where the prefix is empty."""
    for field in fields.values():
        name = f"{prefix}.{field.name}" if prefix else field.name
        if field.kind is bool and not field.many and not field.optional:
            flags.DEFINE_boolean(name, field.default, field.help, flag_values=flag_values, module_name=module)
        else:
            flags.DEFINE(
                _Parser(field), name, field.default, field.help, flag_values, _Serializer(field), module_name=module
            )


def values(flag_values: flags.FlagValues, fields: Mapping[str, Field], prefix: str) -> dict[str, Any]:
    """Parsed values by field name."""
    return {name: flag_values[f"{prefix}.{name}" if prefix else name].value for name in fields}


def parse(flag_values: flags.FlagValues, argv: Sequence[str], *, known_only: bool = False) -> list[str]:
    """Parses expanded arguments (without the program's name); gives back what is no flag.

    Raises:
      InputError: one line, for an unknown flag (with the nearest right one) or a wrong value (with what is right).
    """
    flag_values.set_gnu_getopt(True)
    try:
        rest = flag_values(["jaxdl", *argv], known_only=known_only)[1:]
    except flags.UnrecognizedFlagError as error:
        names = [name for name in flag_values]
        raise InputError(f"there is no flag --{error.flagname}.{_nearest_flag(error.flagname, names)}") from None
    except flags.IllegalFlagValueError as error:
        text = re.sub(r"^flag --", "--", str(error)).replace("\n", " ")
        raise InputError(re.sub(r"\('Non-boolean.*\)$", "expected true or false", text) + ".") from None
    except flags.Error as error:
        raise InputError(str(error).replace("\n", " ")) from None
    if rest and not known_only:
        raise InputError(f"'{rest[0]}' is no flag: every argument is --name=value.")
    return rest


def _nearest_flag(name: str, names: Sequence[str]) -> str:
    """The nearest flag by its whole name, or by what follows the dot (`--momentum` for `--optimizer.momentum`)."""
    tails = [full for full in names if full.rpartition(".")[2] == name.rpartition(".")[2]]
    if tails:
        return f" Did you mean '--{tails[0]}'?"
    found = nearest(name, names)
    return found.replace("'", "'--", 1) if found else " --help lists what these choices take."


def expand_flagfiles(argv: Sequence[str], folder: pathlib.Path | None = None, seen: tuple = ()) -> list[str]:
    """The arguments with each `--flagfile=PATH` replaced by the flags in it, nested ones too.

    Lines are flags; blank lines and those that begin with `#` or `//` are comments. A relative path in a flag file
    is relative to that file's folder; on the command line, to the current one.

    Raises:
      InputError: a file that is missing, unreadable, no text, or includes itself.
    """
    result = []
    arguments = iter(argv)
    for argument in arguments:
        matched = re.fullmatch(r"--?flagfile(?:=(.*))?", argument, re.DOTALL)
        if not matched:
            result.append(argument)
            continue
        name = matched[1] if matched[1] is not None else next(arguments, "")
        if not name:
            raise InputError("--flagfile needs a path: --flagfile=experiments/quickstart.flags.")
        path = pathlib.Path(name).expanduser()
        path = (folder / path if folder else path).resolve()
        if path in seen:
            chain = " -> ".join(str(p) for p in (*seen[seen.index(path) :], path))
            raise InputError(f"flag file includes itself: {chain}.")
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
            raise InputError(f"--flagfile={name}: {reason} ({path}).{_near_file(path)}") from None
        for number, line in enumerate(lines, 1):
            line = line.strip()
            if not line or line.startswith(("#", "//")):
                continue
            if not line.startswith("-"):
                raise InputError(f"{path}:{number}: '{line}' is no flag; a line is --name=value or a # comment.")
            result.extend(expand_flagfiles([line], path.parent, (*seen, path)))
    return result


def quote_command(arguments: Sequence[str]) -> str:
    """A command line that a shell reads back as exactly these arguments."""
    return " ".join(shlex.quote(argument) for argument in arguments)


def _near_file(path: pathlib.Path) -> str:
    siblings = [str(p.name) for p in path.parent.glob("*.flags")] if path.parent.is_dir() else []
    return nearest(path.name, siblings)


def _describe(hint: Any) -> dict[str, Any] | None:
    """What a type hint says of a flag; None where no flag can say it."""
    described: dict[str, Any] = {"kind": str, "many": False, "optional": False, "bounds": None, "choices": None}
    while True:
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin is typing.Annotated:
            found = [extra for extra in arguments[1:] if isinstance(extra, Bounds)]
            described["bounds"] = found[0] if found else described["bounds"]
            hint = arguments[0]
        elif origin in (typing.Union, types.UnionType):
            rest = [argument for argument in arguments if argument is not type(None)]
            if len(rest) != 1:
                return None
            described["optional"], hint = len(rest) < len(arguments), rest[0]
        elif origin in (tuple, Sequence) and not described["many"]:
            if origin is tuple and (len(arguments) != 2 or arguments[1] is not Ellipsis):
                return None
            described["many"], hint = True, arguments[0]
        elif origin is typing.Literal:
            if not all(isinstance(choice, str) for choice in arguments):
                return None
            return described | {"choices": arguments}
        elif hint in (int, float, str, bool):
            return described | {"kind": hint}
        else:
            return None


def _attribute_help(cls: type) -> dict[str, str]:
    """The texts of the `Attributes:` section of a docstring, those of base classes included."""
    helps: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        doc = base.__dict__.get("__doc__") or ""
        section = re.search(
            r"^[ \t]*Attributes:[ \t]*\n(.*?)(?=^[ \t]*(?:Args|Returns|Raises|Example)s?:|\Z)", doc, re.M | re.S
        )
        if not section:
            continue
        lines = section[1].splitlines()
        indent = min((len(l) - len(l.lstrip()) for l in lines if l.strip()), default=0)
        name = None
        for line in lines:
            entry = re.match(rf"^ {{{indent}}}(\w+)(?: \([^)]*\))?: *(.*)$", line)
            if entry:
                name = entry[1]
                helps[name] = entry[2].strip()
            elif name and line.strip() and len(line) - len(line.lstrip()) > indent:
                helps[name] += " " + line.strip()
            elif line.strip():
                name = None
    return helps
