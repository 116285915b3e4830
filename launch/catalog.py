"""Lists what there is, by name: `python -m launch.catalog models`.

Sections: models (with parameters and forward FLOPs for one example of the given shape), datasets, tasks,
optimizers, schedules, augmentations, experiments.
"""

import inspect
import pathlib
from collections.abc import Iterator, Sequence

from jaxdl.catalog import Entry, nearest
from jaxdl.errors import InputError
from launch import cli

_EXPERIMENTS = pathlib.Path(__file__).resolve().parent.parent / "experiments"


def _models() -> Iterator[tuple[str, ...]]:
    from jaxdl.models import MODELS, create
    from jaxdl.scaling.flops import example_inputs, forward_flops, model_shapes, parameter_count

    yield "name", "input", "parameters", "forward FLOPs"
    for name, entry in MODELS.items():
        model = create(name)
        example = entry.input_shape, entry.input_dtype
        shapes = model_shapes(model, *example)
        flops = forward_flops(model, *example, shapes)
        yield (
            name,
            ", ".join("x".join(map(str, x.shape[1:])) or "1" for x in example_inputs(*example)),
            f"{parameter_count(shapes):,}",
            "unknown" if flops is None else f"{flops:,}",
        )


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
    """Prints the section that the one argument names."""
    if {"--help", "-h", "--helpfull"} & set(argv):
        print(__doc__)
        return 0
    asked = " ".join(argv)
    if asked not in SECTIONS:
        problem = f"no section is called '{asked}'.{nearest(asked, SECTIONS)}" if asked else "which section?"
        raise InputError(f"{problem} There are: {', '.join(SECTIONS)}.")
    rows = list(SECTIONS[asked]())
    if rows:
        _print_table(rows)
    else:
        print(f"There are no {asked}.")
    return 0


if __name__ == "__main__":
    cli.main(main)
