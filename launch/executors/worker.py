"""Becomes one of the commands in a file, on the machine where that is to run.

    python -m launch.executors.worker --jobs=FILE.json --index=3

FILE.json holds a list of {"name", "command", "log"}: the command is an argument list, and no shell sees it; the log,
to which its output is appended, may be left out. Without --index it is the number that Slurm or Kubernetes gives to
this process: SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX. The exit status is the command's; 2 where there is none.
"""

import argparse
import json
import os
from collections.abc import Sequence

from jaxdl.errors import InputError
from launch import cli

INDEX_VARIABLES = ("SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX")


def main(argv: Sequence[str]) -> None:
    """Does not come back.

    Raises:
      InputError: no such file, job, log or program.
    """
    parser = argparse.ArgumentParser(prog="launch.executors.worker", allow_abbrev=False)
    parser.add_argument("--jobs", required=True)
    parser.add_argument("--index", type=int)
    options = parser.parse_args(argv)
    index = _find_index() if options.index is None else options.index
    try:
        with open(options.jobs, encoding="utf-8") as file:
            jobs = json.load(file)
    except (OSError, ValueError) as error:
        raise InputError(f"--jobs={options.jobs} cannot be read: {error}.") from None
    if not 0 <= index < len(jobs):
        raise InputError(f"--index={index}: {options.jobs} has the jobs 0 to {len(jobs) - 1}.")
    command, log = jobs[index]["command"], jobs[index].get("log")
    try:
        if log:
            _print_into(log)
        os.execv(command[0], command)
    except OSError as error:
        raise InputError(f"{jobs[index]['name']}: {error.filename or command[0]}: {error.strerror}.") from None


def _find_index() -> int:
    for name in INDEX_VARIABLES:
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    raise InputError(f"which job? --index=0, or {' or '.join(INDEX_VARIABLES)} in the environment.")


def _print_into(log: str) -> None:
    """Standard output and error go there from now on, after what is there already."""
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for number in (1, 2):
        os.dup2(file, number)
    os.close(file)


if __name__ == "__main__":
    cli.main(main)
