"""How every command ends: exit status 0 done; 1 failed; 2 the input was wrong; each error in one line."""

import sys
import threading
from collections.abc import Callable, Sequence

from absl import logging

from jaxdl.errors import InputError, RunError


def _quiet_libraries() -> None:
    """Leaves out what threads of Orbax and TensorBoard print when a write fails: the error reaches us, and is told."""
    logging.get_absl_logger().addFilter(lambda record: "orbax" not in record.pathname)
    for module, name in ((threading, "excepthook"), (sys, "unraisablehook")):
        usual = getattr(module, name)
        setattr(module, name, lambda told, usual=usual: None if isinstance(told.exc_value, OSError) else usual(told))


def main(command: Callable[[Sequence[str]], int | None]) -> None:
    """Calls a command with the arguments, and leaves with its exit status."""
    _quiet_libraries()
    try:
        status = command(sys.argv[1:])
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:  # before the loop has taken the signals over, nothing was begun
        status = 130
    except BrokenPipeError:
        sys.stderr.close()
        status = 1
    sys.exit(status)
