"""What the benchmarks share: processes that are measured from start to exit, and how several runs are told."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from jaxdl import config
from jaxdl.errors import RunError


def run_process(command: Sequence[str], cache: str | os.PathLike | None = None) -> tuple[str, dict[str, float]]:
    """Runs a command; gives its output, its seconds, CPU seconds and peak resident memory.

    The CPU seconds are those of all processes that it started and waited for, too; the memory is that of the largest.

    Args:
      cache: JAX_COMPILATION_CACHE_DIR of the command; it has none where this is None.

    Raises:
      RunError: it did not exit with status 0.
    """
    began = time.monotonic()
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    if cache is not None:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(cache)
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        # Linux counts what this process held when it started the child, too, so nothing large may be imported here.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode:
        shown = config.quote_command(["python", *command[1:]])
        raise RunError(f"{shown} ended with status {process.returncode}: {text.strip()[-2000:]}")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    spent = usage.ru_utime + usage.ru_stime  # what it took from the machine, however busy others keep that
    return text, {"seconds": seconds, "CPU seconds": spent, "peak MiB": usage.ru_maxrss / unit}


def run_module(*command: str, cache: str | os.PathLike | None = None) -> tuple[str, dict[str, float]]:
    """`run_process` of `python -m COMMAND`."""
    return run_process([sys.executable, "-m", *command], cache)


def spread(values: list[float], form: str) -> str:
    """The median, the least and the most."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"
