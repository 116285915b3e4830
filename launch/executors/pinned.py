"""Becomes a command, pinned to cores and bound to its parent: python -IS pinned.py PARENT CORES COMMAND...

PARENT is the process id of the parent, on whose death the command gets SIGTERM (Linux alone can do that); CORES is
0,1,... or - for all. The file needs nothing but the standard library, and so takes some milliseconds when it is run.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def bound(command, cores=()) -> tuple[str, ...]:
    """The command line that becomes this command as a child of the present process."""
    return (sys.executable, "-IS", __file__, str(os.getpid()), ",".join(map(str, cores)) or "-", *command)


def bind(parent: int, cores) -> None:
    """Binds this process to its parent, and pins it to cores, unless there are none."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before that
            sys.exit(75)
    if cores:
        os.sched_setaffinity(0, cores)


def main(parent: str, cores: str, *command: str) -> None:
    bind(int(parent), [] if cores == "-" else [int(core) for core in cores.split(",")])
    os.execv(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
