"""Weights in safetensors files, and Hugging Face's names for them.

Two lines take over the weights of a folder that `save_pretrained` wrote, or that was downloaded from the hub:

    model = create("gpt2")
    params = from_hugging_face(model, load_safetensors("gpt2/"))

`to_hugging_face` gives them back; `save_safetensors("model.safetensors", ...)` writes either, and
`--initialize_from=model.safetensors` reads either. The file must belong to the model's fields: they are not in it
(such as `norm_epsilon`, `rope_theta`; frequencies that Llama 3.1 and later rescale are not here).
"""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxdl.errors import InputError
from jaxdl.hugging_face import Family, family_of
from jaxdl.scaling.flops import model_shapes

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
_NAMED = 8  # arrays that differ in one message


def load_safetensors(path) -> dict[str, np.ndarray]:
    """The arrays of a .safetensors file, or of all those in a folder, by name.

    Raises:
      InputError: there is none, it is damaged, or it is a pickle, which could run any code.
    """
    path = pathlib.Path(path).expanduser()
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    arrays = {}
    for file in files:
        if file.suffix in _PICKLES:
            raise InputError(f"{file} is a pickle, which may run code when it is read; give a .safetensors file.")
        try:
            arrays |= safetensors.numpy.load_file(file)
        except (OSError, safetensors.SafetensorError) as error:
            raise InputError(f"{file} cannot be read as a safetensors file: {error}") from None
    if not files:
        pickles = [file.name for file in path.iterdir() if file.suffix in _PICKLES]
        hint = f"; {', '.join(pickles)} may run code when read and is refused" if pickles else ""
        raise InputError(f"{path} has no .safetensors file{hint}.")
    return arrays


def save_safetensors(path, arrays: Mapping[str, Any]) -> None:
    """Writes arrays by name, or a tree of them, whose keys are joined by slashes.

    Raises:
      InputError: the file's name does not end in .safetensors, or it cannot be written.
    """
    path = pathlib.Path(path).expanduser()
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: the name of a file of weights must end in .safetensors.")
    flat = {name: np.asarray(array, order="C") for name, array in flatten_dict(dict(arrays), sep="/").items()}
    try:
        safetensors.numpy.save_file(flat, path)
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path} cannot be written: {error}") from None


def load_parameters(path, model) -> dict[str, Any]:
    """The parameters in a file of ours (names are paths, with slashes) or of Hugging Face's, as a tree.

    Raises:
      InputError: as `load_safetensors` and `from_hugging_face` do.
    """
    arrays = load_safetensors(path)
    if any("/" in name for name in arrays):
        return unflatten_dict(arrays, sep="/")
    return from_hugging_face(model, arrays, needs_heads=False)


def from_hugging_face(model, arrays: Mapping[str, np.ndarray], *, needs_heads: bool = True) -> dict[str, Any]:
    """The parameters of `model`, whose fields must be those of the weights.

    Args:
      model: one of `jaxdl.hugging_face.FAMILIES`.
      arrays: theirs, by name.
      needs_heads: whether the head must be there; else it may be left out, whole, where the file has another or none.

    Returns:
      the tree `variables["params"]`: NumPy arrays, float32.

    Raises:
      InputError: arrays are missing, unknown, or of other shapes.
    """
    family = family_of(model)
    family = family if needs_heads else family.without_missing_heads(arrays)
    shapes = _shapes(model, family, arrays)
    arrays = _renamed(family, arrays, _export(model, family, shapes))
    flat = {}
    for rule in family.expanded(model.num_layers):
        parts = rule.take(arrays[rule.theirs], [shapes[path].shape for path in rule.ours])
        flat |= zip(rule.ours, (np.asarray(part, np.float32) for part in parts))
    return unflatten_dict(_stacked(flat) if model.scan_layers else flat, sep="/")


def to_hugging_face(model, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Parameters of `model` under Hugging Face's names, in its layout: the inverse of `from_hugging_face`.

    Raises:
      InputError: the model has no counterpart there.
    """
    flat = {path: np.asarray(array) for path, array in flatten_dict(dict(params), sep="/").items()}
    return _export(model, family_of(model), _unstacked(flat) if model.scan_layers else flat)


def _export(model, family: Family, flat: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    rules = family.expanded(model.num_layers)
    return {rule.theirs: rule.export([flat[path] for path in rule.ours]) for rule in rules}


def _shapes(model, family: Family, arrays) -> dict[str, np.ndarray]:
    """Arrays of the shapes of the model's parameters, unscanned, that take no memory."""
    shapes = model_shapes(model.clone(scan_layers=False), *family.example(model, arrays))["params"]
    return {path: np.broadcast_to(np.float32(0), leaf.shape) for path, leaf in flatten_dict(shapes, sep="/").items()}


def _renamed(family: Family, arrays, expected) -> dict[str, np.ndarray]:
    """Their arrays under the names of the rules. Raises: InputError, which names what differs."""
    full_names = {name.removeprefix(family.prefix): name for name in expected}
    arrays = {full_names.get(name, name): array for name, array in arrays.items()}
    arrays = {name: array for name, array in arrays.items() if not name.endswith(family.ignored)}
    for copy, original in family.copies.items():
        copied = arrays.pop(copy, None)
        if copied is not None and original in arrays and not np.array_equal(copied, arrays[original]):
            raise InputError(f"{copy} is not {original}: this is no model with a tied head; set tied_head=False.")
    different = [
        f"{name} is {_told(arrays, name)} there and {_told(expected, name)} here"
        for name in {**expected, **arrays}
        if name not in arrays or name not in expected or arrays[name].shape != expected[name].shape
    ]
    if different:
        more = f"; and {len(different) - _NAMED} more" if len(different) > _NAMED else ""
        raise InputError(f"the weights are another architecture's: {'; '.join(different[:_NAMED])}{more}.")
    return arrays


def _told(arrays, name: str) -> str:
    return str(list(arrays[name].shape)) if name in arrays else "absent"


def _stacked(flat: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`layers/block0/x`, `layers/block1/x`, ... as one array `layers/block/x` with a leading axis of layers."""
    stacked: dict[str, Any] = {}
    for path, array in flat.items():
        common, layers = re.subn(r"(^|/)layers/block\d+/", r"\1layers/block/", path)
        if layers:
            stacked.setdefault(common, []).append(array)
        else:
            stacked[path] = array
    return {path: np.stack(array) if isinstance(array, list) else array for path, array in stacked.items()}


def _unstacked(flat: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `_stacked`."""
    unstacked = {}
    for path, array in flat.items():
        prefix, found, name = path.partition("layers/block/")
        if found:
            unstacked |= {f"{prefix}layers/block{layer}/{name}": part for layer, part in enumerate(array)}
        else:
            unstacked[path] = array
    return unstacked
