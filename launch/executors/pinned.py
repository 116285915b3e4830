"""Becomes a command, pinned to cores and bound to its parent: python -IS pinned.py PARENT CORES COMMAND...

PARENT is the process id of the parent, on whose death the command gets SIGTERM (Linux alone can do that); CORES is
0,1,... or - for all. The file is run by itself, with nothing but the standard library, and so takes some milliseconds.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: str, cores: str, *command: str) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):  # it died before that
            sys.exit(75)
    if cores != "-":
        os.sched_setaffinity(0, [int(core) for core in cores.split(",")])
    os.execv(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
