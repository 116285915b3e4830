"""Shows what a trained model generates: python -m launch.sample --workdir=RUN [--checkpoint=best] [--seed=0]

What it generates, and how, are the flags of the run's task: --prompt, --temperature, --top_p and --beams of a language
model, for example; --workdir=RUN --help shows them. Texts are printed; texts and figures are written to RUN/samples/.
Other flags change the run's own where they have to: --data_dir, --mesh.
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence

from absl import flags

from jaxdl import config
from jaxdl.catalog import find
from jaxdl.errors import InputError
from jaxdl.tasks import TASKS
from jaxdl.types import Bounds
from launch import cli

FIELDS = {
    "workdir": config.Field("workdir", "", "The run directory."),
    "checkpoint": config.Field("checkpoint", "best", "Which checkpoint: best, latest, or a step."),
    "seed": config.Field("seed", 0, "Of what is drawn.", kind=int, bounds=Bounds(0, 2**32 - 1)),
}


def main(argv: Sequence[str]) -> int:
    """Prints and writes the samples of a run's model."""
    return run_on_sampler(FIELDS, argv, __doc__, {"workdir": "to sample from"}, _sample)


def run_on_sampler(fields, argv: Sequence[str], about: str, needed: Mapping[str, str], command: Callable) -> int:
    """A command with flags of its own, of the sampler of the run `--workdir`, and of that run; or shows `--help`.

    Args:
      fields: its own flags.
      about: what `--help` says before the flags.
      needed: those of them that must be given, each naming a run directory, and what for.
      command: called with its own values, the sampler, and the flags that change the run.
    """
    help_flags = {"--help", "-h", "--helpfull"} & set(argv)
    own, rest = parse_known(fields, [argument for argument in argv if argument not in help_flags])
    if help_flags:
        of_sampler = config.fields_of(sampler_of(own["workdir"])) if own["workdir"] else {}
        print(about)
        for field in [*fields.values(), *of_sampler.values()]:
            print(f"  --{field.name}={field.serialize(field.default)}\n      {field.help} ({field.expected()})")
        return 0
    for name, purpose in needed.items():
        if not own[name]:
            raise InputError(f"--{name} is not given: name the run directory {purpose}.")
    cls = sampler_of(own["workdir"])
    values, overrides = parse_known(config.fields_of(cls), rest)
    command(own, cls(**values), overrides)
    return 0


def parse_known(fields, argv: Sequence[str]) -> tuple[dict, list[str]]:
    """The values of these flags, and the arguments that are not among them."""
    flag_values = flags.FlagValues()
    config.define(flag_values, fields, "", "sample")
    rest = config.parse(flag_values, argv, known_only=True)
    return config.values(flag_values, fields, ""), rest


def sampler_of(workdir: str) -> type:
    """The sampler of the task of a run directory."""
    from jaxdl.train.record import read_flags

    path = pathlib.Path(workdir).expanduser()
    if not (path / "flags.txt").exists():
        raise InputError(f"--workdir={path} is no run directory: it has no flags.txt.")
    name = read_flags(path / "flags.txt")["task"]
    sampler = find(TASKS, name, "task").load().sampler
    if sampler is None:
        raise InputError(f"task '{name}' generates nothing: there is nothing to sample.")
    return sampler


def restore(own: dict, sampler, overrides: Sequence[str]):
    """The program of the run, the step of the checkpoint that was asked for, and its state.

    Raises:
      InputError: also for a flag that neither the run nor the sampler has.
    """
    from jaxdl import experiment

    try:
        _, program, _, step, state = experiment.restore(own["workdir"], own["checkpoint"], overrides)
    except InputError as error:
        if "there is no flag" not in str(error):
            raise
        names = ", ".join(f"--{name}" for name in config.fields_of(type(sampler)))
        raise InputError(f"{error} The sampler's flags are {names}.") from None
    return program, step, state


def _sample(own: dict, sampler, overrides: Sequence[str]) -> None:
    import jax

    from jaxdl.train.record import RunDirectory

    program, step, state = restore(own, sampler, overrides)
    variables = jax.device_get(program.variables(state))
    key = jax.random.key(own["seed"])
    samples = program.task.sample(sampler, program.model, variables, program.data, key)
    for name, content in samples.items():
        if isinstance(content, str):
            print(f"--- {name}\n{content}")
    record = RunDirectory(own["workdir"], tensorboard=False)
    for name, content in samples.items():
        record.sample(name, content, step)
    print(f"--- step {step}, written to {record.path / 'samples'}", flush=True)


if __name__ == "__main__":
    cli.main(main)
