"""Flags to settings, in two phases: first the names of the parts, then every flag that those parts declare."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from jaxdl import config
from jaxdl.catalog import Entry, find
from jaxdl.data import AUGMENTATIONS, DATASETS
from jaxdl.errors import InputError
from jaxdl.models import MODELS
from jaxdl.tasks import TASKS
from jaxdl.train.settings import LENGTHS, NOT_RECORDED, TrainerConfig

COMMON = {
    "trainer": Entry("jaxdl.train.settings", "TrainerConfig"),
    "update": Entry("jaxdl.optimizers", "Update"),
    "parametrization": Entry("jaxdl.parametrization", "Parametrization"),
}
"""Parts that every run has, and whose flags have no prefix."""


def _catalogs() -> dict[str, Mapping[str, Entry]]:
    from jaxdl.optimizers import OPTIMIZERS  # imports Optax
    from jaxdl.schedules import SCHEDULES

    return {"model": MODELS, "task": TASKS, "dataset": DATASETS, "optimizer": OPTIMIZERS, "schedule": SCHEDULES}


SELECTORS = {
    "model": config.Field(
        "model", None, "The architecture: a name of the catalog, or package.module:Class.", optional=True
    ),
    "task": config.Field("task", "classification", "What is optimised."),
    "dataset": config.Field("dataset", None, "What is learned from.", optional=True),
    "optimizer": config.Field("optimizer", "adam", "The direction of the update."),
    "schedule": config.Field("schedule", "constant", "The course of the learning rate."),
    "augment": config.Field("augment", (), "Augmentations on the device, in order, such as flip,crop.", many=True),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Parsed flags.

    Attributes:
      names: the selectors: which model, task, dataset, optimizer, schedule, and which augmentations.
      values: for each part, its fields by name; None where a field of the model is to follow from the data.
      classes: for each part, its dataclass.
      flags: every flag that belongs in flags.txt, as text.
      defaults: of each of them, as text, what it is where it is not given.
      title: what the run is called: its flag file's name, else its model and dataset.
    """

    names: Mapping[str, Any]
    values: Mapping[str, Mapping[str, Any]]
    classes: Mapping[str, type]
    flags: Mapping[str, str]
    defaults: Mapping[str, str]
    title: str

    @property
    def trainer(self) -> TrainerConfig:
        return TrainerConfig(**self.values["trainer"])

    def make(self, part: str) -> Any:
        """The object of a part, from its flags."""
        return self.classes[part](**self.values[part])

    def numbers(self) -> dict[tuple[str, str], float]:
        """The numbers that a compiled program can take as arguments, by part and field: floats other than zero.

        Zero is left out, as it often takes a part of the program away (no momentum is no state to keep it in), and so
        is what a class names in `untraceable`. The trainer's own fields shape the loop around the program, and the
        dataset's are used up when it is loaded.
        """
        return {
            (part, name): self.values[part][name]
            for part, cls in self.classes.items()
            if part not in ("trainer", "dataset")
            for name, field in config.fields_of(cls).items()
            if field.kind is float and not field.many and name not in getattr(cls, "untraceable", ())
            if self.values[part][name]
        }

    def with_numbers(self, numbers: Mapping[tuple[str, str], Any]) -> "Settings":
        """These settings with other numbers, which may be traced; `flags` stay as they are."""
        values = {part: dict(fields) for part, fields in self.values.items()}
        for (part, name), value in numbers.items():
            values[part][name] = value
        return dataclasses.replace(self, values=values)

    def program_key(self) -> tuple[tuple[str, Any], ...]:
        """Equal for two runs that can be one program: they differ in `numbers`, the seed and the workdir alone.

        Returns:
          what must be equal, by flag; of a number, that it is one.
        """
        numbers = self.numbers()
        free = {("trainer", "seed"), ("trainer", "workdir")}
        fixed = {
            ".".join((part, name)): "a number" if (part, name) in numbers else value
            for part, values in self.values.items()
            for name, value in values.items()
            if (part, name) not in free
        }
        return tuple({**self.names, **fixed}.items())


@dataclasses.dataclass(frozen=True)
class _Part:
    """A part that was chosen: its prefix on the command line, its dataclass, and its flags."""

    key: str
    prefix: str
    label: str
    cls: type
    fields: Mapping[str, config.Field]


def _parts(names: Mapping[str, Any], given: Sequence[str] = ()) -> list[_Part]:
    """The parts that these names choose, those that bring their own object left out."""
    parts = [_part(key, "", key, entry) for key, entry in COMMON.items()]
    catalogs = _catalogs()
    fills: tuple[str, ...] = ()
    kinds = [kind for kind in ("task", "dataset", "model", "optimizer", "schedule") if kind not in given]
    entries = {kind: find(catalogs[kind], names[kind], kind) for kind in kinds if names[kind] is not None}
    for kind in kinds:
        if kind not in entries:
            raise InputError(f"--{kind} is not given; `python -m launch.catalog {kind}s` lists them.")
        part = _part(kind, kind, f"{kind} {names[kind]}", entries[kind])
        if kind == "task":
            fills = part.cls.fills
        elif kind == "model":
            part = _open_fields(part, fills)
        parts.append(part)
    for name in names["augment"]:
        prefix = f"augment.{name}"
        parts.append(_part(prefix, prefix, f"augmentation {name}", find(AUGMENTATIONS, name, "augmentation")))
    if len({part.key for part in parts}) < len(parts):
        raise InputError(f"--augment={','.join(names['augment'])}: each augmentation can be named once.")
    return parts


def _part(key: str, prefix: str, label: str, entry: Entry) -> _Part:
    cls = entry.load()
    return _Part(key, prefix, label, cls, config.fields_of(cls, entry.fields))


def _open_fields(part: _Part, fills: Sequence[str]) -> _Part:
    """The model's fields that the task fills from the data: their flags may be none, and are by default."""
    opened = {
        name: dataclasses.replace(field, default=None, optional=True, help=f"{field.help} From the data if none.")
        for name, field in part.fields.items()
        if name in fills
    }
    return dataclasses.replace(part, fields={**part.fields, **opened})


def parse(argv: Sequence[str], given: Sequence[str] = ()) -> Settings:
    """Flags to settings.

    Args:
      argv: arguments without the program's name; `--flagfile` may stand among them.
      given: parts ("model", "dataset", "task") that `run` will get as objects, and that therefore have no flags.

    Raises:
      InputError: one line that says which flag is wrong and how to mend it.
    """
    expanded = config.expand_flagfiles(argv)
    names = _selected(expanded)
    parts = _parts(names, given)
    flag_values = flags.FlagValues()
    config.define(flag_values, SELECTORS, "", "jaxdl")
    for part in parts:
        config.define(flag_values, part.fields, part.prefix, part.label)
    try:
        config.parse(flag_values, expanded)
    except InputError as error:
        raise InputError(_explain_other_part(str(error), expanded, names, flag_values)) from None
    values = {part.key: config.values(flag_values, part.fields, part.prefix) for part in parts}
    for kind in given:
        names = {**names, kind: None}
    _latest_length(values["trainer"], expanded)
    for name in ("data_dir", "initialize_from", "branch_from"):
        if values["trainer"][name] is not None:
            values["trainer"][name] = os.path.abspath(os.path.expanduser(values["trainer"][name]))
    _check(TrainerConfig(**values["trainer"]))
    defaults = {part.key: {name: field.default for name, field in part.fields.items()} for part in parts}
    return Settings(
        names,
        values,
        {part.key: part.cls for part in parts},
        flags=_as_text(names, parts, values),
        defaults=_as_text(names, parts, defaults),
        title=_title(argv, names),
    )


def _selected(expanded: Sequence[str]) -> dict[str, Any]:
    """The first phase: the names of the parts, whatever else stands there."""
    flag_values = flags.FlagValues()
    config.define(flag_values, SELECTORS, "", "jaxdl")
    config.parse(flag_values, expanded, known_only=True)
    return config.values(flag_values, SELECTORS, "")


def _latest_length(trainer: dict[str, Any], expanded: Sequence[str]) -> None:
    """Of --steps, --epochs and --flops_budget the one given last counts, so that each overrides a flag file's."""
    names = [argument.lstrip("-").split("=")[0] for argument in expanded]
    said = [name for name in names if name in LENGTHS and trainer[name] is not None]
    for name in LENGTHS:
        if said and name != said[-1]:
            trainer[name] = None


def _check(trainer: TrainerConfig) -> None:
    """What no single flag can say of itself."""
    if all(getattr(trainer, name) is None for name in LENGTHS):
        raise InputError("give --steps, --epochs or --flops_budget, such as --epochs=10.")
    if trainer.profile_steps and (
        len(trainer.profile_steps) != 2 or trainer.profile_steps[0] >= trainer.profile_steps[1]
    ):
        raise InputError("--profile_steps: expected the first and the last step, such as 10,20.")


def _explain_other_part(message: str, expanded: Sequence[str], names, flag_values) -> str:
    """For `--optimizer.b1` with SGD: says which choice the flag would belong to."""
    prefix = "there is no flag --"
    if not message.startswith(prefix):
        return message
    flag = message[len(prefix) :].split(". ")[0].rstrip(".")
    kind, _, field = flag.partition(".")
    catalog = _catalogs().get(kind)
    if not field or catalog is None or any(name.startswith(f"{kind}.") and name in message for name in flag_values):
        return message
    owners = [name for name, entry in catalog.items() if field in config.fields_of(entry.load(), entry.fields)]
    if not owners:
        return message
    return (
        f"{kind} '{names[kind]}' has no flag --{flag}; {', '.join(owners[:4])} {'has' if len(owners) == 1 else 'have'}."
    )


def _as_text(names, parts: Sequence[_Part], values) -> dict[str, str]:
    text = {name: field.serialize(names[name]) for name, field in SELECTORS.items() if names[name] is not None}
    for part in parts:
        for name, field in part.fields.items():
            if not (part.key == "trainer" and name in NOT_RECORDED):
                text[f"{part.prefix}.{name}" if part.prefix else name] = field.serialize(values[part.key][name])
    return text


def _title(argv: Sequence[str], names) -> str:
    for argument in argv:
        if argument.lstrip("-").startswith("flagfile="):
            path = pathlib.Path(argument.partition("=")[2])
            return path.stem if path.name != "flags.txt" else path.absolute().parent.name
    return "-".join(str(name).rpartition(":")[2] for name in (names["model"], names["dataset"]) if name) or "run"


def help_text(argv: Sequence[str], full: bool = False) -> str:
    """The flags that these choices take; with `full`, those of every choice."""
    names = _selected(config.expand_flagfiles(argv))
    absent = [kind for kind in ("model", "dataset") if names[kind] is None]
    lines = ["A run: python -m launch.train --flagfile=FILE [--flag=value ...]", ""]
    lines += ["what is chosen, by name or as package.module:Class:", *map(_help_line, SELECTORS.values())]
    for part in _parts(names, absent):
        lines += _help_section(part)
    if full:
        for kind, catalog in {**_catalogs(), "augment": AUGMENTATIONS}.items():
            for name, entry in catalog.items():
                prefix = f"augment.{name}" if kind == "augment" else kind
                lines += _help_section(_part(kind, prefix, f"{kind} {name}", entry))
    elif absent:
        lines += ["", f"Choose --{' and --'.join(absent)} to see their flags; --helpfull shows those of every choice."]
    return "\n".join(lines)


def _help_section(part: _Part) -> list[str]:
    lines = [_help_line(field, f"{part.prefix}." if part.prefix else "") for field in part.fields.values()]
    return ["", f"{part.label}:", *lines] if lines else []


def _help_line(field: config.Field, prefix: str = "") -> str:
    return f"  --{prefix}{field.name}={field.serialize(field.default)}\n      {field.help} ({field.expected()})"
