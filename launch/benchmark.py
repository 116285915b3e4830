"""What jaxdl costs and what it saves: python -m launch.benchmark overhead|sweep|executor [--FLAG=value ...]

Exit status: 0 the numbers are as wanted; 1 they are not, or a run failed; 2 the flags are wrong.
"""

import inspect
from collections.abc import Sequence

from absl import flags

from jaxdl import config
from jaxdl.errors import InputError
from launch import cli
from launch.benchmarks import BENCHMARKS


def main(argv: Sequence[str]) -> int:
    """Runs the benchmark that the first argument names."""
    if {"--help", "-h"} & set(argv):
        print(help_text())
        return 0
    name, rest = (argv[0], argv[1:]) if argv else ("", [])
    if name not in BENCHMARKS:
        raise InputError(f"there is no benchmark '{name}'; python -m launch.benchmark {'|'.join(BENCHMARKS)}.")
    cls = BENCHMARKS[name].load()
    fields, values = config.fields_of(cls), flags.FlagValues()
    config.define(values, fields, "", "benchmark")
    others = config.parse(values, rest, known_only=True)
    return cls(**config.values(values, fields, "")).run(others)


def help_text() -> str:
    """What `--help` prints."""
    lines = [__doc__.strip()]
    for name, entry in BENCHMARKS.items():
        cls = entry.load()
        lines += ["", f"{name}: {inspect.getdoc(cls).partition('Attributes:')[0].strip()}"]
        lines += [
            f"  --{field.name}={field.serialize(field.default)}\n      {field.help} ({field.expected()})"
            for field in config.fields_of(cls).values()
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    cli.main(main)
