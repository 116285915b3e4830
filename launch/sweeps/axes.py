"""The axes of a sweep: which flags vary, over what, and when.

    learning_rate=0.1,0.01                 a list; a value with commas stands in parentheses: augment=(),(flip,crop)
    seed=0..7   model.depth=2..10..2       whole numbers, both ends included, with a step
    learning_rate=log(1e-4,1e-1,8)         a logarithmic grid; lin(0,0.5,6) is a linear one
    model.depth=2,4 with learning_rate=0.1,0.03        zipped: these advance together
    model.heads=1,2,4 if model=vit,transformer and dataset=digits     conditional: only for trials of these values
    uniform(0,1) loguniform(1e-4,1) randint(1,9) choice(a,b)          drawn: with --trials=N

Grids and draws are rounded to six significant digits: the text in a trial's flags is the value.
"""

import dataclasses
import difflib
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from jaxdl.catalog import nearest
from jaxdl.errors import InputError

if TYPE_CHECKING:
    import numpy as np

Scale = Literal["linear", "log", "categorical"]

FORMS = {
    "log": "log(1e-4,1e-1,8)",
    "lin": "lin(0,0.5,6)",
    "uniform": "uniform(0,0.5)",
    "loguniform": "loguniform(1e-4,1e-1)",
    "randint": "randint(1,8)",
    "choice": "choice(relu,tanh)",
}
"""What can stand for a list of values, each with an example."""

_RANGE = re.compile(r"([-+\d.eE]+?)\.\.([-+\d.eE]+?)(?:\.\.([-+\d.eE]+))?")
_MOST_VALUES = 100_000


@dataclasses.dataclass(frozen=True)
class Distribution:
    """What a flag is drawn from: between `low` and `high`, both included where they are whole numbers."""

    kind: Literal["uniform", "loguniform", "randint"]
    low: float
    high: float

    def draw(self, rng: "np.random.Generator") -> str:
        """One value, as text."""
        if self.kind == "randint":
            return str(rng.integers(int(self.low), int(self.high), endpoint=True))
        if self.kind == "uniform":
            return self.text(rng.uniform(self.low, self.high))
        return self.text(math.exp(rng.uniform(math.log(self.low), math.log(self.high))))

    def text(self, value: float) -> str:
        """A value as the text of the flag, within the bounds, which rounding could leave."""
        if self.kind == "randint":
            return str(int(value))
        text = format_number(value)
        if self.low <= float(text) <= self.high:
            return text
        return repr(min(max(value, self.low), self.high))

    def ends(self) -> tuple[str, str]:
        """The two bounds, as text that says them exactly."""
        if self.kind == "randint":
            return str(int(self.low)), str(int(self.high))
        low, high = (
            format_number(end) if float(format_number(end)) == end else repr(end) for end in (self.low, self.high)
        )
        return low, high


@dataclasses.dataclass(frozen=True)
class Column:
    """One flag of an axis.

    Attributes:
      flag: its name, without dashes.
      values: the texts that it takes, in order; empty where it is drawn from a distribution.
      numeric: whether all of them are numbers.
      scale: how it is drawn: log for a logarithmic grid or draw, and for a list of positive numbers that spans a
        factor of ten; categorical for what is no number.
    """

    flag: str
    values: tuple[str, ...]
    numeric: bool
    scale: Scale


@dataclasses.dataclass(frozen=True)
class Axis:
    """What varies together.

    Attributes:
      text: as it was given.
      columns: its flags; several where they are zipped, all of one length.
      distribution: what its one flag is drawn from, or None where the values are listed.
      drawn: whether it was given as a draw (`uniform(...)`, `choice(...)`), which no grid can run through.
      conditions: for each flag that it depends on, the values for which the axis is there.
    """

    text: str
    columns: tuple[Column, ...]
    distribution: Distribution | None = None
    drawn: bool = False
    conditions: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    @property
    def flags(self) -> tuple[str, ...]:
        return tuple(column.flag for column in self.columns)

    @property
    def name(self) -> str:
        """Its flags as one name, as plots and studies call it."""
        return " with ".join(self.flags)

    @property
    def rows(self) -> list[dict[str, str]]:
        """The listed values, one dictionary of flags a point; empty where there is a distribution."""
        return [dict(zip(self.flags, row)) for row in zip(*(column.values for column in self.columns))]

    def holds(self, flags: Mapping[str, str]) -> bool:
        """Whether the axis is there for a trial with these flags."""
        return all(
            flag in flags and any(same_value(flags[flag], value) for value in values)
            for flag, values in self.conditions.items()
        )


def parse_axes(texts: Sequence[str], base: Sequence[str] = ()) -> list[Axis]:
    """The axes of a sweep, checked against each other.

    Args:
      texts: what stands after `--sweep=`, one text an axis.
      base: the expanded flags that every trial has.

    Raises:
      InputError: one line that says which axis is wrong and how to mend it.
    """
    if not texts:
        raise InputError("nothing varies: give an axis, such as --sweep=learning_rate=log(1e-4,1e-1,8).")
    axes = [parse_axis(text) for text in texts]
    owners: dict[str, Axis] = {}
    for axis in axes:
        for flag in axis.flags:
            if flag in owners:
                raise InputError(f"--sweep: {flag} varies twice, in '{owners[flag].text}' and in '{axis.text}'.")
            owners[flag] = axis
    given = given_flags(base)
    for axis in axes:
        for flag, values in axis.conditions.items():
            _check_condition(axis, flag, values, owners, given)
    in_dependency_order(axes)
    return axes


def parse_axis(text: str) -> Axis:
    """One axis. Raises: InputError."""
    body, *conditions = _split(text, r"\s+if\s+")
    if len(conditions) > 1:
        raise _wrong(text, "one 'if' an axis; further conditions follow 'and', as in 'if model=mlp and dataset=digits'")
    parts = _split(body, r"\s+with\s+")
    specs = [_parse_part(part, text) for part in parts]
    columns = tuple(column for column, _, _ in specs)
    if len(specs) > 1:
        drawn = [column.flag for column, _, drawn in specs if drawn]
        if drawn:
            raise _wrong(
                text, f"'with' needs listed values on both sides, and {drawn[0]} is drawn; give it an axis of its own"
            )
        lengths = ", ".join(f"{column.flag} has {len(column.values)}" for column in columns)
        if len({len(column.values) for column in columns}) > 1:
            raise _wrong(text, f"zipped axes need equally many values: {lengths}")
        if len({column.flag for column in columns}) < len(columns):
            raise _wrong(text, "a flag can stand in an axis once")
        rows = list(zip(*(column.values for column in columns)))
        if len(set(rows)) < len(rows):
            raise _wrong(text, f"{', '.join(_twice(rows))} stand together twice")
    elif columns[0].values and len(set(columns[0].values)) < len(columns[0].values):
        raise _wrong(
            text, f"the value {_twice(columns[0].values)} stands there twice; one with commas is written (A,B)"
        )
    return Axis(text, columns, specs[0][1], specs[0][2], _parse_conditions(conditions, text))


def given_flags(base: Sequence[str]) -> dict[str, str]:
    """The flags that expanded arguments give, by name, as text; of one given twice the later."""
    given = {}
    arguments = list(base)
    while arguments:
        name, equals, value = arguments.pop(0).lstrip("-").partition("=")
        if equals:
            given[name] = value
        elif arguments and not re.match(r"--?[A-Za-z]", arguments[0]):
            given[name] = arguments.pop(0)
        else:  # a boolean: --plots or --noplots
            given |= {name: "true", name.removeprefix("no"): "false"} if name.startswith("no") else {name: "true"}
    return given


def in_dependency_order(axes: Sequence[Axis]) -> list[Axis]:
    """The axes, each after those that its conditions ask for, and else in the order given.

    Raises:
      InputError: conditions that depend on each other in a circle.
    """
    owners = {flag: axis for axis in axes for flag in axis.flags}
    ordered: list[Axis] = []
    open_axes: list[Axis] = []

    def place(axis: Axis) -> None:
        if axis in ordered:
            return
        if axis in open_axes:
            chain = [*open_axes[open_axes.index(axis) :], axis]
            raise InputError(f"--sweep: conditions in a circle: {' if '.join(each.name for each in chain)}.")
        open_axes.append(axis)
        for flag in axis.conditions:
            if flag in owners:
                place(owners[flag])
        ordered.append(open_axes.pop())

    for axis in axes:
        place(axis)
    return ordered


def same_value(left: str, right: str) -> bool:
    """Whether two texts say the same value: 0.10 is 0.1, and True is true."""
    return left.lower() == right.lower() or (_number(left) is not None and _number(left) == _number(right))


def format_number(value: float) -> str:
    """A number as the text of a flag: six significant digits, and no more zeros than it needs."""
    text = f"{value:.6g}"
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa}e{int(exponent)}" if e else text


# The parts of an axis's text.


def _parse_part(part: str, text: str) -> tuple[Column, Distribution | None, bool]:
    """`flag=values`: its column, its distribution, and whether it is drawn."""
    flag, equals, values = part.partition("=")
    flag, values = flag.strip().lstrip("-"), values.strip()
    if not equals or not re.fullmatch(r"[A-Za-z_][\w.]*", flag):
        raise _wrong(text, "an axis is FLAG=VALUES, such as learning_rate=0.1,0.01")
    if not values:
        raise _wrong(text, f"{flag} has no values; give some, such as {flag}=A,B")
    call = re.fullmatch(r"([A-Za-z_]\w*)\((.*)\)", values, re.DOTALL)
    if call and len(_split(values, r",")) == 1:
        return _parse_call(flag, call[1], _split(call[2], r","), text)
    range_ = _RANGE.fullmatch(values)
    if range_:
        return _parse_range(flag, range_, text), None, False
    return _parse_list(flag, _split(values, r","), text), None, False


def _parse_call(flag: str, name: str, arguments: list[str], text: str) -> tuple[Column, Distribution | None, bool]:
    if name not in FORMS:
        raise _wrong(text, f"there is no {name}(...).{_nearest_form(name)} A value like this stands in parentheses")
    if name == "choice":
        return _parse_list(flag, arguments, text), None, True
    needed = 3 if name in ("log", "lin") else 2
    numbers = [_number(argument) for argument in arguments]
    if len(numbers) != needed or None in numbers:
        raise _wrong(text, f"{name} takes {needed} numbers, as in {flag}={FORMS[name]}")
    low, high = numbers[:2]
    if not low < high:
        raise _wrong(text, f"{name} goes from the smaller to the larger number, as in {flag}={FORMS[name]}")
    if "log" in name and low <= 0:
        raise _wrong(text, f"a logarithmic axis needs bounds above 0, as in {flag}={FORMS[name]}")
    if name == "randint":
        if low != int(low) or high != int(high):
            raise _wrong(text, f"randint goes between whole numbers, as in {flag}={FORMS[name]}")
        return Column(flag, (), True, "linear"), Distribution(name, low, high), True
    if needed == 2:
        return Column(flag, (), True, "log" if "log" in name else "linear"), Distribution(name, low, high), True
    count = numbers[2]
    if count != int(count) or not 2 <= count <= _MOST_VALUES:
        raise _wrong(text, f"the third number of {name} is how many values, at least 2, as in {flag}={FORMS[name]}")
    import numpy as np  # takes longer than all else that a command line needs

    points = np.geomspace(low, high, int(count)) if name == "log" else np.linspace(low, high, int(count))
    return Column(flag, tuple(map(format_number, points)), True, "log" if name == "log" else "linear"), None, False


def _parse_range(flag: str, matched: re.Match, text: str) -> Column:
    try:
        first, last, step = (int(end) if end else 1 for end in matched.groups())
    except ValueError:
        raise _wrong(text, f"a range has whole numbers, as in {flag}=0..7; for others there is lin(0,0.5,6)") from None
    if first > last or step < 1:
        raise _wrong(text, f"a range goes up: from, to and step as in {flag}=2..10..2")
    if (last - first) // step >= _MOST_VALUES:
        raise _wrong(text, f"a range has at most {_MOST_VALUES:,} values; randint({first},{last}) draws from it")
    return Column(flag, tuple(map(str, range(first, last + 1, step))), True, "linear")


def _parse_list(flag: str, parts: list[str], text: str) -> Column:
    for part in parts:
        if not part:
            raise _wrong(text, f"{flag} has an empty value; an empty text is written ()")
        if (call := re.match(r"([A-Za-z_]\w*)\(", part)) and call[1] in FORMS or _RANGE.fullmatch(part):
            raise _wrong(text, f"'{part}' stands alone, not in a list")
    values = tuple(part[1:-1] if _in_parentheses(part) else part for part in parts)
    numbers = [_number(value) for value in values]
    if None in numbers:
        return Column(flag, values, False, "categorical")
    wide = min(numbers) > 0 and max(numbers) >= 10 * min(numbers)
    return Column(flag, values, True, "log" if wide else "linear")


def _parse_conditions(conditions: Sequence[str], text: str) -> dict[str, tuple[str, ...]]:
    result: dict[str, tuple[str, ...]] = {}
    for part in _split(conditions[0], r"\s+and\s+") if conditions else ():
        flag, equals, values = part.partition("=")
        flag = flag.strip().lstrip("-")
        accepted = _split(values, r",")
        if not flag or not equals or not all(accepted):
            raise _wrong(text, "a condition is FLAG=VALUES, as in 'if model=mlp,cnn'")
        if flag in result:
            raise _wrong(text, f"give the values of {flag} in one condition: if {flag}=A,B")
        result[flag] = tuple(value[1:-1] if _in_parentheses(value) else value for value in accepted)
    return result


def _check_condition(axis: Axis, flag: str, accepted: Sequence[str], owners, given: Mapping[str, str]) -> None:
    """A condition on a flag that is set nowhere, or that never holds, would lose an axis in silence."""
    if flag not in owners and flag not in given:
        found = nearest(flag, [*owners, *given])
        raise _wrong(
            axis.text, f"the condition's {flag} is neither an axis nor given as --{flag}{'.' if found else ''}{found}"
        )
    possible = [given[flag]] if flag in given else []
    if flag in owners:
        distribution = owners[flag].distribution
        if distribution is not None and distribution.kind != "randint":
            raise _wrong(axis.text, f"a condition needs values that are met exactly, and {flag} is a drawn number")
        if distribution is not None and any(
            distribution.low <= (_number(v) or 0) <= distribution.high for v in accepted
        ):
            return
        possible += [row[flag] for row in owners[flag].rows] or ["..".join(distribution.ends())]
    if not any(same_value(value, wanted) for value in possible for wanted in accepted):
        raise _wrong(axis.text, f"{flag} is never {' or '.join(accepted)}; it is {', '.join(dict.fromkeys(possible))}")


def _split(text: str, separator: str) -> list[str]:
    """Splits at a regular expression outside of parentheses; the parts are stripped."""
    parts, start, depth, position = [], 0, 0, 0
    pattern = re.compile(separator)
    while position < len(text):
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        if depth < 0:
            break
        matched = pattern.match(text, position) if depth == 0 else None
        if matched:
            parts.append(text[start:position].strip())
            start = position = matched.end()
        else:
            position += 1
    if depth:
        raise _wrong(text, "its parentheses do not match")
    return [*parts, text[start:].strip()]


def _in_parentheses(text: str) -> bool:
    """Whether one pair of parentheses stands around the whole: (a,b), and not (a)(b)."""
    depths = list(itertools.accumulate({"(": 1, ")": -1}.get(character, 0) for character in text))
    return text.startswith("(") and depths.index(0) == len(text) - 1


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _nearest_form(name: str) -> str:
    found = difflib.get_close_matches(name.lower(), FORMS, n=1, cutoff=0.5)
    return f" Did you mean {FORMS[found[0]]}?" if found else f" There are {', '.join(FORMS)}."


def _twice(values: Sequence) -> object:
    return next(value for index, value in enumerate(values) if value in values[:index])


def _wrong(text: str, what: str) -> InputError:
    return InputError(f"--sweep={text}: {what}{'' if what.endswith('?') else '.'}")
