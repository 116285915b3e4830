"""How every command ends: exit status 0 done; 1 failed; 2 the input was wrong; each error in one line."""

import sys
import threading
from collections.abc import Callable, Sequence

from absl import flags, logging

from jaxdl import config
from jaxdl.errors import InputError, RunError


def _quiet_libraries() -> None:
    """Leaves out what threads of Orbax and TensorBoard print when a write fails: the error reaches us, and is told.

    The flags of libraries stay as they are by default; unless that is said, Orbax fails to read one for each array.
    """
    flags.FLAGS.mark_as_parsed()
    logging.get_absl_logger().addFilter(lambda record: "orbax" not in record.pathname)
    for module, name in ((threading, "excepthook"), (sys, "unraisablehook")):
        usual = getattr(module, name)
        setattr(module, name, lambda told, usual=usual: None if isinstance(told.exc_value, OSError) else usual(told))


def run_flags(cls: type, argv: Sequence[str], about: str, others: bool = False) -> int:
    """A command that is a dataclass of flags with `run`: runs it, or shows `--help`; gives its exit status.

    Args:
      about: what `--help` says before the flags.
      others: whether `run` is given the flags that are not its own, such as those of a run, with flag files read in.
    """
    fields = config.fields_of(cls)
    if {"--help", "-h", "-help"} & set(argv):
        print(about)
        for name, field in fields.items():
            print(f"  --{name}={field.serialize(field.default)}: {field.help}")
        return 0
    values = flags.FlagValues()
    config.define(values, fields, "", cls.__module__)

    def command(argv: Sequence[str]) -> int:
        rest = config.parse(values, config.expand_flagfiles(argv) if others else argv, known_only=others)
        return cls(**config.values(values, fields, "")).run(*([rest] if others else [])) or 0

    return status(command, argv)


def status(command: Callable[[Sequence[str]], int | None], argv: Sequence[str]) -> int | None:
    """The exit status of a command; what was wrong is told in a line."""
    try:
        return command(argv)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def main(command: Callable[[Sequence[str]], int | None]) -> None:
    """Calls a command with the arguments, and leaves with its exit status."""
    _quiet_libraries()
    try:
        ended = status(command, sys.argv[1:])
    except KeyboardInterrupt:  # before the loop has taken the signals over, nothing was begun
        ended = 130
    except BrokenPipeError:
        sys.stderr.close()
        ended = 1
    sys.exit(ended)
