"""Lists what there is, by name: `python -m launch.catalog models`.

Sections: models (with parameters and forward FLOPs for one example of the given shape), datasets, tasks,
optimizers, schedules, augmentations, experiments. And of models that are named,

    python -m launch.catalog flops gpt2 resnet50

training FLOPs of one example, counted three ways: 6 N D, with all parameters (D is an example's tokens, or 1); the
matrix products and convolutions of the step, attention as the full square; and what XLA counts in the compiled step, in
which the body of a loop (a recurrent network's) counts once.
"""

import inspect
import math
import pathlib
from collections.abc import Iterator, Sequence

from jaxdl.catalog import Entry, nearest
from jaxdl.errors import InputError
from launch import cli

_COMPILED_BATCH = 2  # of one example a product with a matrix is one with a vector, which XLA writes as a sum

_EXPERIMENTS = pathlib.Path(__file__).resolve().parent.parent / "experiments"


def _models() -> Iterator[tuple[str, ...]]:
    from jaxdl.models import MODELS, create
    from jaxdl.scaling.flops import forward_flops, model_shapes, parameter_count

    yield "name", "input", "parameters", "forward FLOPs"
    for name, entry in MODELS.items():
        model = create(name)
        example = entry.input_shape, entry.input_dtype
        shapes = model_shapes(model, *example)
        flops = forward_flops(model, *example, shapes)
        yield (
            name,
            _input(entry),
            f"{parameter_count(shapes):,}",
            "unknown" if flops is None else f"{flops:,}",
        )


def _flops(*names: str) -> Iterator[tuple[str, ...]]:
    import jax

    from jaxdl.catalog import find
    from jaxdl.models import MODELS, create
    from jaxdl.scaling.flops import (
        embedding_count,
        model_shapes,
        parameter_count,
        product_flops,
        six_nd,
        training_step,
        xla_flops,
    )

    if not names:
        raise InputError("flops of which models? Such as: python -m launch.catalog flops gpt2 resnet50")
    entries = {name: find(MODELS, name, "model") for name in names}
    yield "name", "input", "parameters", "without embeddings", "6 N D", "products", "XLA, compiled"
    for name, entry in entries.items():
        model, example = create(name), (entry.input_shape, entry.input_dtype)
        variables = model_shapes(model, *example)
        parameters = parameter_count(variables)
        tokens = math.prod(entry.input_shape) if entry.input_dtype == "int32" and len(entry.input_shape) == 1 else 1
        step, arguments = training_step(model, *example, variables)
        products = product_flops(jax.make_jaxpr(step)(*arguments))
        step, arguments = training_step(model, *example, variables, batch_size=_COMPILED_BATCH)
        compiled = xla_flops(jax.jit(step).lower(*arguments).compile())
        counts = (parameters, parameters - embedding_count(variables), six_nd(parameters, tokens), products)
        told = "unknown" if compiled is None else f"{compiled // _COMPILED_BATCH:,}"
        yield name, _input(entry), *(f"{count:,}" for count in counts), told


def _input(entry: Entry) -> str:
    """The shapes of one example, without the batch axis."""
    from jaxdl.scaling.flops import example_inputs

    if entry.input_dtype == "graph":
        nodes, edges, *features = entry.input_shape
        return f"{nodes} nodes, {edges} edges, {'+'.join(map(str, features))} features"
    inputs = example_inputs(entry.input_shape, entry.input_dtype)
    return ", ".join("x".join(map(str, x.shape[1:])) or "1" for x in inputs)


def _entries(catalog: dict[str, Entry]) -> Iterator[tuple[str, ...]]:
    """Name and first line of the docstring of each entry, and what the name sets."""
    for name, entry in catalog.items():
        summary = (inspect.getdoc(entry.load()) or "").partition("\n")[0]
        settings = ", ".join(f"{field}={value}" for field, value in entry.fields.items())
        yield name, f"{summary} [{settings}]" if settings else summary


def _datasets():
    from jaxdl.data import DATASETS

    return _entries(DATASETS)


def _tasks():
    from jaxdl.tasks import TASKS

    return _entries(TASKS)


def _optimizers():
    from jaxdl.optimizers import OPTIMIZERS

    return _entries(OPTIMIZERS)


def _schedules():
    from jaxdl.schedules import SCHEDULES

    return _entries(SCHEDULES)


def _augmentations():
    from jaxdl.data import AUGMENTATIONS

    return _entries(AUGMENTATIONS)


def _experiments() -> Iterator[tuple[str, ...]]:
    """Path of each flag file, and the first line of the comment on its top."""
    for path in sorted(_EXPERIMENTS.rglob("*.flags")):
        first_line = path.read_text(encoding="utf-8").partition("\n")[0]
        comment = first_line.lstrip("# ") if first_line.startswith("#") else ""
        yield str(path.relative_to(_EXPERIMENTS.parent)), comment


SECTIONS = {
    "models": _models,
    "flops": _flops,
    "datasets": _datasets,
    "tasks": _tasks,
    "optimizers": _optimizers,
    "schedules": _schedules,
    "augmentations": _augmentations,
    "experiments": _experiments,
}


def _print_table(rows: list[tuple[str, ...]]) -> None:
    """Columns as wide as their widest cell; columns of numbers are set to the right."""
    for row in rows:
        cells = []
        for column, cell in enumerate(row):
            width = max(len(other[column]) for other in rows)
            is_number = rows[-1][column].replace(",", "").isdigit()
            cells.append(cell.rjust(width) if is_number else cell.ljust(width))
        print("  ".join(cells).rstrip())


def main(argv: Sequence[str]) -> int:
    """Prints the section that the first argument names; what follows are names of models, for `flops`."""
    if {"--help", "-h", "--helpfull"} & set(argv):
        print(__doc__)
        return 0
    asked, names = " ".join(argv), ()
    if argv and argv[0] == "flops":
        asked, *names = argv
    if asked not in SECTIONS:
        problem = f"no section is called '{asked}'.{nearest(asked, SECTIONS)}" if asked else "which section?"
        raise InputError(f"{problem} There are: {', '.join(SECTIONS)}.")
    rows = list(SECTIONS[asked](*names))
    if rows:
        _print_table(rows)
    else:
        print(f"There are no {asked}.")
    return 0


if __name__ == "__main__":
    cli.main(main)
