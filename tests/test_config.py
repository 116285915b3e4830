"""Flags from dataclass fields, and flag files."""

import dataclasses
from typing import Literal

import pytest
from absl import flags

from jaxdl import config
from jaxdl.errors import InputError
from jaxdl.types import PositiveInt, Rate


@dataclasses.dataclass(frozen=True)
class Part:
    """A part.

    Attributes:
      widths: Units of each layer,
        in order.
      rate: Share that is dropped.
    """

    widths: tuple[PositiveInt, ...] = (4, 5)
    rate: Rate = 0.25
    count: PositiveInt | None = None
    fast: bool = True
    kind: Literal["a", "b"] = "a"
    name_of: str = "x y"
    function: object = print  # no flag can say this: left to Python


FIELDS = config.fields_of(Part)


def parse(*argv):
    flag_values = flags.FlagValues()
    config.define(flag_values, FIELDS, "part", "part")
    config.parse(flag_values, argv)
    return config.values(flag_values, FIELDS, "part")


def test_fields():
    assert list(FIELDS) == ["widths", "rate", "count", "fast", "kind", "name_of"]
    assert FIELDS["widths"].help == "Units of each layer, in order."
    assert config.fields_of(Part, {"widths": (9,)})["widths"].default == (9,)


@pytest.mark.parametrize(
    "argv, name, value",
    [
        ([], "widths", (4, 5)),
        (["--part.widths=1,2,3"], "widths", (1, 2, 3)),
        (["--part.widths="], "widths", ()),
        (["--part.widths", "7"], "widths", (7,)),
        (["--part.rate=1e-3"], "rate", 1e-3),
        (["--part.count=3"], "count", 3),
        (["--part.count=3", "--part.count=none"], "count", None),
        (["--nopart.fast"], "fast", False),
        (["--part.fast=false"], "fast", False),
        (["--part.name_of=a=b, 'c' $HOME"], "name_of", "a=b, 'c' $HOME"),
    ],
)
def test_values_survive_being_written_and_read(argv, name, value):
    parsed = parse(*argv)
    assert parsed[name] == value
    again = [f"--part.{key}={FIELDS[key].serialize(parsed[key])}" for key in FIELDS]
    assert parse(*again) == parsed


@pytest.mark.parametrize(
    "argument, message",
    [
        ("--part.widths=1,x", "--part.widths=1,x: expected a comma-separated list, each a whole number, at least 1."),
        ("--part.widths=0", "each a whole number, at least 1"),
        ("--part.rate=1", "--part.rate=1: expected a number, at least 0 and less than 1."),
        ("--part.rate=nan", "expected a number"),
        ("--part.kind=c", "--part.kind=c: expected one of a, b."),
        ("--part.fast=maybe", "--part.fast=maybe: expected true or false."),
        ("--part.raet=1", "there is no flag --part.raet. Did you mean '--part.rate'?"),
        ("--rate=1", "Did you mean '--part.rate'?"),
        ("stray", "'stray' is no flag"),
    ],
)
def test_wrong_flags_are_told_in_one_line(argument, message):
    with pytest.raises(InputError) as caught:
        parse(argument)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_flag_files_nest_and_have_comments(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "base.flags").write_text("# base\n--a=1\n\n// also a comment\n--b=x # y\n")
    (tmp_path / "outer.flags").write_text("--flagfile=inner/base.flags\n--a=2\n")
    expanded = config.expand_flagfiles(["--z=0", f"--flagfile={tmp_path}/outer.flags", "--y", "1"])
    assert expanded == ["--z=0", "--a=1", "--b=x # y", "--a=2", "--y", "1"]
    assert config.expand_flagfiles(["--flagfile", f"{tmp_path}/inner/base.flags"]) == ["--a=1", "--b=x # y"]


def test_flag_file_that_includes_itself(tmp_path):
    (tmp_path / "a.flags").write_text("--flagfile=b.flags\n")
    (tmp_path / "b.flags").write_text("--flagfile=a.flags\n")
    with pytest.raises(InputError, match="includes itself: .*a.flags -> .*b.flags -> .*a.flags"):
        config.expand_flagfiles([f"--flagfile={tmp_path}/a.flags"])


@pytest.mark.parametrize("line, message", [("steps=3", "is no flag"), ("--flagfile=nowhere", "no such file")])
def test_wrong_lines_of_flag_files(tmp_path, line, message):
    (tmp_path / "a.flags").write_text(line)
    with pytest.raises(InputError, match=message):
        config.expand_flagfiles([f"--flagfile={tmp_path}/a.flags"])


def test_missing_flag_file_offers_the_nearest(tmp_path):
    (tmp_path / "quickstart.flags").write_text("")
    with pytest.raises(InputError, match="Did you mean 'quickstart.flags'"):
        config.expand_flagfiles([f"--flagfile={tmp_path}/quikstart.flags"])


def test_binary_flag_file(tmp_path):
    (tmp_path / "a.flags").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="a.flags"):
        config.expand_flagfiles([f"--flagfile={tmp_path}/a.flags"])


def test_commands_are_quoted():
    assert config.quote_command(["a b", "c$d"]) == "'a b' 'c$d'"
