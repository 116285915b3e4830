"""What jaxdl costs and what it saves, measured: one file a benchmark, and the loops written by hand beside them."""

import pathlib

from jaxdl.catalog import Entry

BENCHMARKS: dict[str, Entry] = {
    "overhead": Entry("launch.benchmarks.overhead", "Overhead"),
    "sweep": Entry("launch.benchmarks.sweep", "Sweep"),
    "executor": Entry("launch.benchmarks.executor", "Executor"),
}
"""Each is a dataclass of flags with `run(others) -> exit status`; `others` are the arguments that are none of them."""

DIGITS = pathlib.Path(__file__).parents[2] / "experiments" / "foundations" / "mlp_digits.flags"
"""The flags of the trials that `sweep` and `executor` train."""
