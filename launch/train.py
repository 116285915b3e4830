"""Trains one run: python -m launch.train --flagfile=experiments/quickstart.flags

Exit status: 0 done; 1 failed; 2 the flags or the input are wrong; 75 preempted, ask for me again; 130 Ctrl-C.
"""

from collections.abc import Sequence

from jaxdl.settings import help_text, parse
from launch import cli


def main(argv: Sequence[str]) -> int:
    """Runs, or shows `--help` (what these choices take) or `--helpfull` (what every choice takes)."""
    asked = {"--help", "-h", "--helpfull", "--helpshort"} & set(argv)
    if asked:
        print(help_text([argument for argument in argv if argument not in asked], full="--helpfull" in asked))
        return 0
    settings = parse(argv)
    from jaxdl import experiment  # imports JAX, which --help and a wrong flag need not wait for

    return experiment.run(settings).status


if __name__ == "__main__":
    cli.main(main)
