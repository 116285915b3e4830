"""How every command ends: exit status 0 done; 1 failed; 2 the input was wrong; each error in one line."""

import sys
from collections.abc import Callable, Sequence

from absl import logging

from jaxdl.errors import InputError, RunError


def main(command: Callable[[Sequence[str]], int | None]) -> None:
    """Calls a command with the arguments, and leaves with its exit status."""
    # Orbax logs each failed write with the stacks of its threads; the error itself reaches us, and is told below.
    logging.get_absl_logger().addFilter(lambda record: "orbax" not in record.pathname)
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
