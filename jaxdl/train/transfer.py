"""Parameters to begin with: those of another run, or of a safetensors file (`--initialize_from`).

What is taken over is whole: every top-level subtree of the parameters (and of the model's other collections) that both
have, such as the encoder of a BERT that gets another head. The rest begins anew.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxdl.errors import InputError
from jaxdl.paths import map_paths
from jaxdl.train import vocabulary
from jaxdl.train.checkpoints import choose, read_arrays
from jaxdl.train.record import read_json

Variables = dict[str, dict[str, Any]]
"""Collection -> top-level name -> subtree."""

PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")


def load(path: str, model, variables: Mapping[str, Mapping[str, Any]], data) -> tuple[Variables, str]:
    """What `variables` have in common with what stands at `path`.

    Args:
      path: a run directory, of which the best checkpoint is taken, or else the latest; or a .safetensors file.
      model: whose variables they are; it says what the arrays of a file are called.
      variables: the shapes of the new run's, all collections.
      data: the new run's, whose vocabulary must be that of the other run.

    Returns:
      the subtrees to begin with, and a line that says what they are.

    Raises:
      InputError: neither of the two, a pickle, another vocabulary, arrays of other shapes, or nothing in common.
    """
    place = pathlib.Path(path).expanduser().absolute()
    if place.suffix in PICKLES:
        raise InputError(
            f"--initialize_from={path}: a pickle may run code when it is read, and is never loaded; "
            "save the weights as .safetensors."
        )
    if place.is_dir():
        found, name = _read_run(place, data)
    elif place.suffix == ".safetensors" and place.is_file():
        found, name = {"params": _read_safetensors(place, model)}, str(place)
    else:
        raise InputError(f"--initialize_from={path} is no run directory and no .safetensors file.")
    taken: Variables = {}
    for collection, subtrees in variables.items():
        shared = [top for top in subtrees if top in found.get(collection, {})]
        taken[collection] = {
            top: _same(found[collection][top], subtrees[top], f"{collection}/{top}", name) for top in shared
        }
    names = list(taken["params"])
    if not names:
        raise InputError(
            f"--initialize_from={path} has nothing in common with this model: it has {', '.join(found['params'])}, "
            f"and the model {', '.join(variables['params'])}."
        )
    fresh = [top for top in variables["params"] if top not in names]
    return taken, f"taken from {name}: {', '.join(names)}" + (f"; begun anew: {', '.join(fresh)}" if fresh else "")


def _read_run(place: pathlib.Path, data) -> tuple[Variables, str]:
    if not (place / "flags.txt").exists():
        raise InputError(f"--initialize_from={place} is no run directory: it has no flags.txt.")
    vocabulary.check(place, data)
    best = (read_json(place / "status.json") or {}).get("best_step")
    step = choose(place, "best", best)
    state = read_arrays(place, step)
    params = state["params"] if state.get("ema") is None else state["ema"]
    return {"params": params, **(state.get("model_state") or {})}, f"step {step} of {place}"


def _read_safetensors(place: pathlib.Path, model) -> dict[str, Any]:
    from jaxdl.weights import load_parameters

    return load_parameters(place, model)


def _same(found: Any, ours: Any, where: str, source: str) -> Any:
    """`found`, when its arrays are those of `ours` in path and shape. Raises: InputError, which says where not."""
    theirs, mine = _shapes(found), _shapes(ours)
    if theirs != mine:
        paths = [path for path in {**mine, **theirs} if theirs.get(path) != mine.get(path)]
        names = ["/".join(filter(None, (where, path))) for path in paths[:3]]
        shapes = [(_told(theirs, path), _told(mine, path)) for path in paths[:3]]
        told = [f"{name} is {a} there and {b} in this model" for name, (a, b) in zip(names, shapes, strict=True)]
        more = f", and {len(paths) - 3} more differ" if len(paths) > 3 else ""
        raise InputError(f"the weights of {source} are another architecture's: {'; '.join(told)}{more}.")
    return jax.tree.map(lambda found, ours: np.asarray(found, ours.dtype), found, ours)


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    map_paths(lambda path, leaf: shapes.__setitem__(path, tuple(leaf.shape)), tree)
    return shapes


def _told(shapes: Mapping[str, tuple[int, ...]], path: str) -> str:
    return str(list(shapes[path])) if path in shapes else "absent"
