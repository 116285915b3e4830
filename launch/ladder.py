"""Writes the sweep of a scaling law: sizes of a GPT, and the compute, tokens and rates of each.

    python -m launch.ladder --base=experiments/scaling/byte_gpt.flags --kind=isoflop --budgets=6e10,1.2e11,2.4e11 \\
        --tokens_per_parameter=20 --num_sizes=5 > experiments/scaling/mine.sweep.flags
    python -m launch.sweep --flagfile=experiments/scaling/mine.sweep.flags --workdir=/tmp/mine
    python -m launch.scaling_law --runs=/tmp/mine --out=/tmp/mine/law

BASE is the flag file of a run of a GPT: its model in everything but size, its data and batch. The sweep, printed, takes
it in and is kept beside it. FLOPs are 6 N D, as `launch.scaling_law` counts them.

    isoflop        --budgets of FLOPs, each in several sizes; the tokens follow
    isotoken       --tokens, each seen by several sizes, for L(N)
    isoparameter   --sizes, each for several --tokens, for L(D)
    stable         one long run of each of --sizes at a constant learning rate, which keeps the checkpoints that
    branches       take over: isoparameter, where each run only decays by itself; --stable is the first sweep's workdir

The last two need --schedule=wsd in BASE, and its warm-up as --schedule.warmup_steps.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Literal

from jaxdl.errors import InputError
from jaxdl.types import PositiveFloat, PositiveInt, Probability
from launch import cli


@dataclasses.dataclass(frozen=True)
class Ladder:
    """Flags of this command.

    Attributes:
      base: the flag file of a run of a GPT.
      data_dir: as of a run, for the data of BASE.
      kind: which grid, see above.
      stable: of branches: the directory of the sweep that --kind=stable made.
      decay_fraction: of stable and branches: the share of each run that is decay.
      sizes: parameters of each size, embeddings included.
      budgets: training FLOPs of isoflop.
      tokens: of the others.
      tokens_per_parameter: of isoflop, in place of sizes: each budget has its own, around the one with so many.
      spacing: factor from one of these sizes to the next.
      num_sizes: how many of these.
      aspect_ratio: width over layers.
      head_dim: features of a head.
      rate: the learning rate: BASE's, which with --parametrization=mup in BASE serves all sizes; inverse_width, base_rate
        at base_width and falling as 1 / width; kaplan (arXiv 2001.08361, eq. D.1); deepseek (arXiv 2401.02954); or
        step_law (arXiv 2503.04715).
      base_rate: of inverse_width.
      base_width: of inverse_width.
      batch: the batch: BASE's; or by deepseek or step_law, to the nearest power of two of examples.
    """

    base: str = ""
    data_dir: str = ""
    kind: Literal["isoflop", "isotoken", "isoparameter", "stable", "branches"] = "isoflop"
    stable: str = ""
    decay_fraction: Probability = 0.2
    sizes: tuple[float, ...] = ()
    budgets: tuple[float, ...] = ()
    tokens: tuple[float, ...] = ()
    tokens_per_parameter: PositiveFloat | None = None
    spacing: PositiveFloat = 2.0
    num_sizes: PositiveInt = 5
    aspect_ratio: PositiveFloat = 64.0
    head_dim: PositiveInt = 16
    rate: Literal["base", "inverse_width", "kaplan", "deepseek", "step_law"] = "base"
    base_rate: PositiveFloat = 0.01
    base_width: PositiveInt = 32
    batch: Literal["base", "deepseek", "step_law"] = "base"

    def run(self) -> None:
        """Prints the flag file of the sweep.

        Raises:
          InputError: BASE is no run of a GPT, or the grid has nothing in it, or too little for a step.
        """
        if not self.base:
            raise InputError("whose ladder? --base=FILE, the flag file of a run of a GPT.")
        model, batch_size, length, schedule = read_base(self.base, self.data_dir)
        points = self._points(model)
        common = ["--flops_rule=6nd"] if self.kind == "isoflop" else []
        if self.kind in ("stable", "branches"):
            points, rows, common = self._stem(points, batch_size, length, schedule)
        else:
            rows = [self._row(point, batch_size, length) for point in points]
        print(f"# {len(points)} runs of {self.kind}, by launch.ladder. Parameters, tokens and FLOPs (6 N D):")
        for point, row in zip(points, rows):
            told = ", ".join(f"{name} {value}" for name, value in row.items())
            print(f"#   {point.shape.parameters:>14,} {point.tokens:>14,.0f} {point.flops:>10.3g}   {told}")
        print("\n".join([f"--flagfile={pathlib.Path(self.base).name}", *common, f"--sweep={zipped(rows)}"]))

    def _points(self, model) -> list:
        from jaxdl.scaling import ladder

        def shapes(sizes: Sequence[float]) -> list[ladder.Shape]:
            return ladder.distinct(
                [ladder.gpt_shape(model, size, self.aspect_ratio, self.head_dim) for size in sorted(sizes)]
            )

        needs = "budgets" if self.kind == "isoflop" else "tokens"
        for name in ("sizes", "budgets", "tokens"):
            if any(value <= 0 for value in getattr(self, name)):
                raise InputError(f"--{name}: every number must be positive.")
        if not getattr(self, needs):
            raise InputError(f"--kind={self.kind} takes --{needs}, such as --{needs}=1e11,1e12.")
        if self.tokens_per_parameter is not None and (self.sizes or self.kind != "isoflop"):
            raise InputError("--tokens_per_parameter stands in place of --sizes, and for --kind=isoflop alone.")
        if self.tokens_per_parameter is None and not self.sizes:
            raise InputError("which sizes? --sizes=2e4,1e5,5e5, or of isoflop --tokens_per_parameter=20.")
        if self.kind == "isoflop":
            around = (self.tokens_per_parameter, self.spacing, self.num_sizes)
            return ladder.isoflop(
                self.budgets,
                lambda budget: shapes(self.sizes or ladder.centred_sizes(budget, *around)),
            )
        sized = shapes(self.sizes)
        if self.kind == "isotoken":
            return ladder.isotoken(self.tokens, sized)
        return ladder.isoparameter(sized, self.tokens)

    def _stem(self, points, batch_size: int, length: int, schedule: str):
        """Points, rows and common flags of the long runs, or of their branches."""
        from jaxdl.scaling import ladder
        from launch.sweeps.plan import make_trial

        if schedule != "wsd":
            raise InputError(f"--kind={self.kind} needs --schedule=wsd in {self.base}, and it has {schedule}.")
        if self.batch != "base" or self.rate in ("deepseek", "step_law"):
            raise InputError(
                f"--kind={self.kind}: a long run serves many tokens, and no rule that depends on them fits."
            )
        if self.kind == "branches" and not self.stable:
            raise InputError("--kind=branches: branches of what? --stable=WORKDIR of the sweep of --kind=stable.")
        step_tokens = batch_size * length
        one = ladder.stem(self.tokens, step_tokens, self.decay_fraction)
        found = []
        for shape in dict.fromkeys(point.shape for point in points):
            row = {f"model.{name}": str(getattr(shape, name)) for name in ("num_layers", "num_heads", "width")}
            row |= self._rate(shape, {})
            if self.kind == "stable":
                found.append((ladder.Point(shape, one.steps * step_tokens), row))
                continue
            trial = pathlib.Path(self.stable).expanduser().absolute() / "trials" / make_trial(row).name
            found += [
                (
                    ladder.Point(shape, steps * step_tokens),
                    {**row, "steps": str(steps), "branch_step": str(begin), "branch_from": str(trial)},
                )
                for begin, steps in one.branches
            ]
        common = [f"--schedule.decay_fraction={self.decay_fraction:g}"]
        if self.kind == "stable":
            kept = one.steps // one.every
            common = ["--schedule.decay_fraction=0", f"--steps={one.steps}", f"--checkpoint_every={one.every}"]
            common += [f"--keep_checkpoints={kept}"]
        return [point for point, _ in found], [row for _, row in found], common

    def _row(self, point, batch_size: int, length: int) -> dict[str, str]:
        """The flags of a point's run."""
        from jaxdl.scaling import ladder

        shape = point.shape
        inner = shape.parameters - shape.embeddings
        rules = {"deepseek": ladder.deepseek(point.flops), "step_law": ladder.step_law(inner, point.tokens)}
        row = {f"model.{name}": str(getattr(shape, name)) for name in ("num_layers", "num_heads", "width")}
        if self.batch != "base":
            batch_size = ladder.power_of_two(rules[self.batch][1] / length)
            row["batch_size"] = str(batch_size)
        steps = point.steps(batch_size * length)
        if self.kind == "isoflop":
            row = {"flops_budget": f"{point.flops:.6g}", **row}
        else:
            row = {"steps": str(steps), **row}
        return row | self._rate(shape, {name: rate for name, (rate, _) in rules.items()})

    def _rate(self, shape, rates: dict[str, float]) -> dict[str, str]:
        """The flag of the learning rate; `rates` are those of rules that know the tokens."""
        from jaxdl.scaling import ladder

        if self.rate == "base":
            return {}
        rates = {
            "inverse_width": ladder.inverse_width_rate(shape.width, self.base_rate, self.base_width),
            "kaplan": ladder.kaplan_rate(shape.parameters - shape.embeddings),
            **rates,
        }
        return {"learning_rate": f"{rates[self.rate]:.3g}"}


def read_base(path: str, data_dir: str = ""):
    """The model of a flag file, with what its data fill in, its batch size, the tokens of an example, and its schedule.

    Raises:
      InputError: it is no run of a GPT on tokens.
    """
    from jaxdl import experiment
    from jaxdl.models.gpt import GPT

    where = [f"--data_dir={data_dir}"] if data_dir else []
    settings = experiment.parse([f"--flagfile={path}", *where, "--steps=1"])
    program = experiment.build(settings, check=False)
    if not isinstance(program.model, GPT) or not program.data.tokenizer:
        raise InputError(f"--base={path} is no run of a GPT on tokens: its model is {type(program.model).__name__}.")
    length = program.pipeline(1).example()["inputs"].shape[1]
    return program.model, settings.trainer.batch_size, length, settings.names["schedule"]


def zipped(rows: Sequence[dict[str, str]]) -> str:
    """Rows of equal flags as the text of one axis of a sweep."""
    return " with ".join(f"{flag}={','.join(row[flag] for row in rows)}" for flag in rows[0])


def main(argv: Sequence[str]) -> int:
    """Runs the command; gives back its exit status."""
    return cli.run_flags(Ladder, argv, __doc__)


if __name__ == "__main__":
    cli.main(main)
