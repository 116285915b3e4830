"""Trains an experiment's model for a few steps at several widths, and says whether its layers change alike at all.

    python -m launch.coordinate_check --model=mlp --model.widths=64,64 --dataset=digits --learning_rate=0.003 \\
        --parametrization=mup --base_width=64 --widths=64,128,256,512,1024 --out=coordinates.png

The flags are those of a run, and those below. The model of the flags is taken at each of --widths in proportion: all
layers of an MLP, a transformer's heads (their size stays, or their number with --base_num_heads). It is trained on one
batch, and of each layer the table has the power of the width with which the root mean square of its outputs' change
grows: about 0 with --parametrization=mup, and not so with the standard one.

Exit status: 0 all layers' powers are within --tolerance of 0; 1 some are not; 2 the flags are wrong.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from jaxdl import experiment, settings
from jaxdl.errors import InputError
from jaxdl.parametrization import at_width, named_multipliers
from jaxdl.types import PositiveFloat, PositiveInt
from launch import cli


@dataclasses.dataclass(frozen=True)
class CoordinateCheck:
    """Flags of this command; the others are those of a run.

    Attributes:
      widths: at which the model is trained, at least two.
      check_steps: steps of training, all on the first batch; the last is judged.
      seeds: initial values at each width, of which the mean counts.
      tolerance: the largest power of the width, above or below 0, that passes. The powers of wide networks come in
        halves; narrow ones drift.
      out: the PNG file of the plot; empty for the table alone.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)
    check_steps: PositiveInt = 3
    seeds: PositiveInt = 3
    tolerance: PositiveFloat = 0.35
    out: str = "coordinate_check.png"

    def run(self, argv: Sequence[str]) -> int:
        """Measures, prints the table and draws the plot; gives the exit status.

        Args:
          argv: the flags of the run.

        Raises:
          InputError: widths that the model cannot have, or wrong flags.
        """
        from jaxdl.scaling import coordinates

        widths = sorted(set(self.widths))
        if len(widths) < 2 or widths[0] < 1:
            raise InputError(f"--widths={','.join(map(str, self.widths))}: give at least two widths, all at least 1.")
        of_run = settings.parse([f"--steps={self.check_steps}", *argv])
        experiment.prepare_devices(of_run.trainer)
        program = experiment.build(of_run, check=False)
        chosen = of_run.make("parametrization")
        measured = []
        for model in [at_width(program.model, width, chosen.base_num_heads) for width in widths]:
            at = experiment.build(of_run, {"model": model, "dataset": program.data})
            factors = (
                named_multipliers(model, at_width(model, chosen.base_width, chosen.base_num_heads))
                if program.scales
                else {}
            )
            measured.append(
                coordinates.measure(at, of_run.trainer.batch_size, self.check_steps, range(self.seeds), factors)
            )
        layers = coordinates.join(measured)
        failed = coordinates.failures(layers, widths, self.tolerance)
        verdict = "fail" if failed else "pass"
        print("\n".join(_table(layers, widths, failed)))
        name = chosen.parametrization
        print(f"\n{name}: {verdict}, {len(layers) - len(failed)} of {len(layers)} layers within ±{self.tolerance:g}")
        if self.out:
            from jaxdl import plots

            title = f"{of_run.names['model']}, {name} parametrization: {verdict}"
            try:
                pathlib.Path(self.out).write_bytes(
                    plots.to_png(coordinates.figure(layers, widths, list(failed), title))
                )
            except OSError as error:
                raise InputError(f"--out={self.out} cannot be written: {error.strerror}.") from None
            print(f"plot: {self.out}")
        return 1 if failed else 0


def _table(layers, widths: Sequence[int], failed) -> list[str]:
    """Lines of aligned columns: a layer's change at the last step, narrowest and widest, and its power of the width."""
    rows = [("layer", f"change at {widths[0]}", f"at {widths[-1]}", "power of the width", "")]
    for layer in layers:
        power = f"{layer.exponent(widths):+.2f}" if layer.moves() else "still"
        changes = (f"{layer.changes[index, -1]:.3g}" for index in (0, -1))
        rows.append((layer.name, *changes, power, "fail" if layer.name in failed else ""))
    spaces = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(space) for cell, space in zip(row, spaces)).rstrip() for row in rows]


def main(argv: Sequence[str]) -> int:
    """Runs the command; gives back its exit status."""
    return cli.run_flags(CoordinateCheck, argv, __doc__, others=True)


if __name__ == "__main__":
    cli.main(main)
