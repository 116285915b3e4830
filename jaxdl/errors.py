"""The two errors that a person is told in one line, without a traceback."""


class InputError(ValueError):
    """What was asked for cannot be done: flags, names, files. Nothing was written. Exit status 2."""


class RunError(RuntimeError):
    """A run that had begun had to stop: bad data midway, divergence, a full disk. Exit status 1."""
