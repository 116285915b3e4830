"""Maximal update parametrization: initial values and learning rates with which widths share their best hyperparameters.

Yang et al. 2022, Tensor Programs V, arXiv:2203.03466. It is said relative to a base model, which is the same model
narrower (or wider), and trains as ever. Which axes of an array grow with the width is seen from its shapes in both
models; of the last two axes, the first is the fan-in and the last the fan-out. With their ratios i and o to the base
model's (1 where an axis stays), the model sees w = c u, and u is what is drawn and what the optimizer updates
(table 8, as in Microsoft's package `mup`):

    array                                    c    standard deviation of u    SGD's rate    Adam's rate
    o alone: inputs, embeddings, biases      1    the base model's           o             1
    both: hidden                             1    the base model's / √i      o / i         1 / i
    i alone: outputs                         1/i  the base model's           i             1
    neither                                  1    the base model's           1             1

What is stored is w, c included (table 3 says the same so), so no model's forward pass knows of this, and a model
trained by it is an ordinary one for `launch.evaluate`, `launch.sample` and other programs. Clipping, moments, Adam's
epsilon and weight decay see u. The decay is multiplied by the learning rate and not by the rates of the table: what a
step takes away of an array is the same share at every width.

Attention's logits are of 1/√d. Where the head size d is another than the base model's, the query's c takes the factor
√(d_base/d) more, which makes them 1/d (definition 4.1). A tied head has its c in the normalisation before it.

>>> from jaxdl.models.mlp import MLP
>>> init = lambda model: model.init(jax.random.key(0), np.zeros((1, 8), np.float32), train=False)["params"]
>>> maximal_update(init, MLP(widths=(256, 256)), MLP(widths=(64, 64)))["hidden1/kernel"].adam
0.25
"""

import dataclasses
import fractions
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from jaxdl.errors import InputError
from jaxdl.paths import map_paths, matches
from jaxdl.types import PositiveInt

SERVED = "mlp, resnet, gpt, vit and bert"


class Scale(NamedTuple):
    """Factors of one array: of what the model draws, of u in what the model sees, and of its learning rates."""

    init: float = 1.0
    multiplier: float = 1.0
    sgd: float = 1.0
    adam: float = 1.0


Scales = Mapping[str, Scale]
"""By the path of each parameter."""


@dataclasses.dataclass(frozen=True)
class Parametrization:
    """How initial values and learning rates depend on the model's width.

    Attributes:
      parametrization: standard, as the model and the optimizer have it; or mup, with which the learning rate that is
        best at one width is best at the others (maximal update parametrization, arXiv 2203.03466).
      base_width: The width at which mup is standard: of an MLP, its first layer's. Other widths follow it.
      base_num_heads: Attention heads at the base width; if none, as many as leave the head's size as it is.
    """

    parametrization: Literal["standard", "mup"] = "standard"
    base_width: PositiveInt | None = None
    base_num_heads: PositiveInt | None = None

    def scales(self, model, init: Callable[[Any], Any], update, optimizer) -> Scales | None:
        """The factors of each parameter; None for the standard parametrization.

        Args:
          model: the model to train, which names its `width_fields`.
          init: from a model to its initial parameters, by a fixed key; may be traced.
          update, optimizer: of `jaxdl.optimizers`, which are to be served.

        Raises:
          InputError: no base width, or one for nothing; a model that has no other widths, an optimizer without rule,
            or what has another meaning at each width.
        """
        if self.parametrization == "standard":
            for name in ("base_width", "base_num_heads"):
                if getattr(self, name) is not None:
                    raise InputError(f"--{name}={getattr(self, name)} needs --parametrization=mup.")
            return None
        if self.base_width is None:
            raise InputError("--parametrization=mup needs the width at which it is the standard one: --base_width=64.")
        _check_served(update, optimizer)
        base = at_width(model, self.base_width, self.base_num_heads)
        return maximal_update(init, model, base)


def _check_served(update, optimizer) -> None:
    if optimizer.mup is None:
        raise InputError(
            f"--parametrization=mup has no rule for {type(optimizer).__name__}; it has for sgd, and for adam, nadam, "
            "adamw, rmsprop and lion."
        )
    for name in ("l1_penalty", "l2_penalty", "clip_value", "clip_block_norm"):
        if getattr(update, name):
            raise InputError(
                f"--{name} has another meaning at each width, and none with --parametrization=mup; "
                f"{'--weight_decay' if 'penalty' in name else '--clip_norm'} has not."
            )


def width_of(model) -> int:
    """The width that `--base_width` means. Raises: InputError, where the model has none."""
    fields = getattr(model, "width_fields", ())
    value = getattr(model, fields[0]) if fields else None
    if not value:
        raise InputError(
            f"{type(model).__name__} does not say how it is at another width (`width_fields`); {SERVED} do."
        )
    return value[0] if isinstance(value, tuple) else value


def at_width(model, width: int, num_heads: int | None = None):
    """The same model at another width: all its `width_fields` in proportion, the number of heads among them.

    Args:
      num_heads: attention heads; by default the head's size stays, and the number of heads is in proportion.

    Raises:
      InputError: a model that has no other widths, or sizes that would not be whole.
    """
    ratio = fractions.Fraction(width, width_of(model))
    head_ratio = ratio
    if num_heads is not None:
        if "num_heads" not in model.width_fields:
            raise InputError(f"--base_num_heads={num_heads}: {type(model).__name__} has no attention heads.")
        head_ratio = fractions.Fraction(num_heads, model.num_heads)

    def scaled(name: str):
        value, by = getattr(model, name), head_ratio if name.endswith("heads") else ratio
        sizes = value if isinstance(value, tuple) else () if value is None else (value,)
        for size in sizes:
            if (size * by).denominator != 1:
                hint = " or give --base_num_heads" if name.endswith("heads") and num_heads is None else ""
                raise InputError(
                    f"{name}={size} of width {width_of(model)} would be {float(size * by):g} at width {width}: "
                    f"choose widths for which it is whole{hint}."
                )
        whole = tuple(int(size * by) for size in sizes)
        return whole if isinstance(value, tuple) else whole[0] if whole else None

    return dataclasses.replace(model, **{name: scaled(name) for name in model.width_fields})


def maximal_update(init: Callable[[Any], Any], model, base) -> dict[str, Scale]:
    """The factors of each of a model's parameters.

    Args:
      init: from a model to its initial parameters, by a fixed key; may be traced.
      model, base: the model and the base model.

    Raises:
      InputError: an initialiser whose standard deviations cannot be told.
    """
    shapes, base_shapes = (_by_path(jax.eval_shape(lambda m=m: init(m))) for m in (model, base))
    if list(shapes) != list(base_shapes):
        raise InputError("--parametrization=mup: the model has other parameters at its base width.")
    factors = named_multipliers(model, base)
    draws = _first_rows(init, model, shapes, base_shapes), _first_rows(init, base, shapes, base_shapes)
    scales = {}
    for path, shape in shapes.items():
        scale = _scale(*(_ratio(shape.shape, base_shapes[path].shape, axis) for axis in (-2, -1)))
        drawn = _relative_deviation(path, *(rows.get(path) for rows in draws))
        multiplier = scale.multiplier * np.prod([f for pattern, f in factors.items() if matches(path, [pattern])])
        scales[path] = scale._replace(init=float(scale.init * multiplier / drawn), multiplier=float(multiplier))
    return scales


def scale_initial(params, scales: Scales):
    """Initial parameters as the model draws them, with these scales."""
    return map_paths(lambda path, array: array * scales[path].init, params)


def _scale(i: float | None, o: float | None) -> Scale:
    """The table above; None is an axis that does not grow. `init` is that of u, relative to the base model."""
    if i is None:
        return Scale(sgd=o or 1.0)
    if o is None:
        return Scale(multiplier=1 / i, sgd=i)
    return Scale(init=i**-0.5, sgd=o / i, adam=1 / i)


def _ratio(shape: tuple[int, ...], base: tuple[int, ...], axis: int) -> float | None:
    if shape[:-2] != base[:-2]:
        raise InputError(f"--parametrization=mup: an array of shape {base} at the base width is {shape} at this one.")
    if len(shape) < -axis or shape[axis] == base[axis]:
        return None
    return shape[axis] / base[axis]


def named_multipliers(model, base) -> dict[str, float]:
    """Factors of c beyond the table, by path pattern: those that a model names in `multipliers`, and the query's."""
    factors = model.multipliers(width_of(model) / width_of(base)) if hasattr(model, "multipliers") else {}
    if "num_heads" in model.width_fields:
        factors = {**factors, "*/query": (_head_size(model) / _head_size(base)) ** -0.5}
    return factors


def _head_size(model) -> int:
    return getattr(model, "head_dim", None) or model.width // model.num_heads


def _by_path(tree) -> dict[str, Any]:
    found: dict[str, Any] = {}
    map_paths(lambda path, leaf: found.__setitem__(path, leaf), tree)
    return found


def _first_rows(init, model, shapes, base_shapes) -> dict[str, np.ndarray]:
    """The first draws of each array whose shape differs: as many of its first row as both models have."""

    def rows():
        return {
            path: array.reshape(-1)[: min(array.shape[-1], shapes[path].shape[-1], base_shapes[path].shape[-1])]
            for path, array in _by_path(init(model)).items()
            if shapes[path].shape != base_shapes[path].shape
        }

    return jax.device_get(jax.jit(rows)())


def _relative_deviation(path: str, ours: np.ndarray | None, bases: np.ndarray | None) -> float:
    """The standard deviation of an array's initial values over that of the base model's.

    JAX draws a number by its key and its place in the array, whatever the array's size
    (`jax_threefry_partitionable`). So the first rows hold the same draws, each times its own deviation.
    """
    if ours is None or not np.any(ours) and not np.any(bases):
        return 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = (ours.astype(np.float64) / bases)[bases != 0]
    if not len(ratios) or not np.allclose(ratios, ratios[0], rtol=1e-3, atol=0) or not ratios[0] > 0:
        raise InputError(
            f"--parametrization=mup: the initial values of {path} are not one deviation times independent draws; "
            "take another initializer (orthogonal is none that serves)."
        )
    return float(np.median(ratios))
