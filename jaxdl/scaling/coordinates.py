"""The coordinate check: how the sizes of a network's activations, and of their changes in training, go with its width.

Yang et al. 2022, Tensor Programs V, arXiv:2203.03466, appendix D.1. With maximal updates every layer's outputs change
in a few steps by as much at any width; otherwise some blow up with the width, and others stand still.

Shapes: S steps, W widths.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from jaxdl import plots
from jaxdl.errors import InputError
from jaxdl.paths import matches

OUTPUT = "the model's output"


@dataclasses.dataclass(frozen=True)
class Layer:
    """What a layer gives over widths and steps.

    Attributes:
      name: path of the module.
      sizes: root mean square of its outputs, [W, S + 1], step 0 being the start.
      changes: root mean square of its outputs' difference to the start's, [W, S + 1].
    """

    name: str
    sizes: np.ndarray
    changes: np.ndarray

    def exponent(self, widths: Sequence[int], step: int = -1) -> float:
        """The power of the width with which the change grows: a line's slope in the logarithms; NaN where it is 0."""
        changes = self.changes[:, step]
        if not np.all(np.isfinite(changes)) or not np.all(changes > 0):
            return float("nan")
        return float(np.polyfit(np.log(widths), np.log(changes), 1)[0])

    def moves(self) -> bool:
        return bool(np.any(self.changes != 0))


def activations(program, state, batch) -> dict[str, jax.Array]:
    """Each layer's output, by its path, in training mode on a raw batch.

    A layer is a module with parameters, its own or its submodules'; of a tuple that it gives, the first counts.
    """
    inputs = program.task.inputs(program.data.standardize(program.data.decode(batch)))
    mutable = [*state.model_state, "intermediates"]
    rngs = {"dropout": jax.random.key(0)}
    try:
        outputs, variables = program.model.apply(
            {"params": state.params, **state.model_state},
            *inputs,
            train=True,
            rngs=rngs,
            mutable=mutable,
            capture_intermediates=True,
        )
    except TypeError as error:
        raise InputError(f"{type(program.model).__name__} does not show its layers: {error}") from None
    trained = {part for path in _paths(state.params) for part in _above(path)}
    found = {path: calls[0] for path, calls in _calls(variables["intermediates"], ()) if "/".join(path) in trained}
    layers = {"/".join(path): jax.tree.leaves(value)[0] for path, value in found.items() if jax.tree.leaves(value)}
    return {**layers, OUTPUT: jax.tree.leaves(outputs)[0]}


def measure(
    program, batch_size: int, steps: int, seeds: Sequence[int], factors: Mapping[str, float] | None = None
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Sizes and changes [S + 1] of each layer's outputs on the first batch while it is trained on, mean over seeds.

    Args:
      factors: of the parametrization, that a layer's parameters hold for what comes after it
        (`parametrization.named_multipliers`); its outputs are divided by them.
    """
    batch = jax.tree.map(jnp.asarray, program.pipeline(batch_size).batch(0))
    init, step = jax.jit(program.init), jax.jit(lambda state: program.step(state, batch)[0])
    see = jax.jit(lambda state: _without(factors or {}, activations(program, state, batch)))
    size = jax.jit(lambda tree: jax.tree.map(lambda x: jnp.sqrt(jnp.mean(jnp.square(x.astype(jnp.float32)))), tree))
    found = []
    for seed in seeds:
        state = init(np.uint32(seed), batch)
        start, rows = see(state), []
        for index in range(steps + 1):
            state = step(state) if index else state
            now = see(state)
            rows.append(jax.device_get((size(now), size(jax.tree.map(jnp.subtract, now, start)))))
        found.append(rows)
    names = list(start)
    return {
        name: tuple(np.array([[r[kind][name] for r in rows] for rows in found]).mean(0) for kind in (0, 1))
        for name in names
    }


def _without(factors: Mapping[str, float], outputs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    def factor(path: str) -> float:
        return math.prod(factor for pattern, factor in factors.items() if matches(path, [pattern]))

    return {path: output / factor(path) for path, output in outputs.items()}


def join(measured: Sequence[Mapping[str, tuple[np.ndarray, np.ndarray]]]) -> list[Layer]:
    """What `measure` gave at each width, by layer; a module that gives what one of its submodules gives is left out."""
    layers: dict[bytes, Layer] = {}
    for name in measured[0]:
        sizes, changes = (np.array([of_width[name][kind] for of_width in measured]) for kind in (0, 1))
        key = sizes.tobytes() + changes.tobytes()
        layers.pop(key, None)
        layers[key] = Layer(name, sizes, changes)
    return list(layers.values())


def failures(layers: Sequence[Layer], widths: Sequence[int], tolerance: float) -> dict[str, float]:
    """The layers whose change goes with another power of the width than 0, by more than `tolerance`, and the power.

    The worst come first. A layer that is still at every width has none; one that is still at some, or is not finite,
    fails with NaN.
    """
    exponents = {layer.name: layer.exponent(widths) for layer in layers if layer.moves()}
    failed = {name: exponent for name, exponent in exponents.items() if not abs(exponent) <= tolerance}
    return dict(sorted(failed.items(), key=lambda item: -np.nan_to_num(abs(item[1]), nan=np.inf)))


def figure(layers: Sequence[Layer], widths: Sequence[int], failed: Sequence[str], title: str) -> Figure:
    """Sizes above and changes below over the width, a column a step; layers that fail have colours."""
    steps = layers[0].sizes.shape[1]
    drawn = Figure(figsize=(2.5 * steps + 0.6, 5.6), layout="constrained")
    panels = drawn.subplots(2, steps, sharex=True, sharey="row", squeeze=False)
    colors = {name: plots.PALETTE[(0, 1, 3, 2, 5)[index % 5]] for index, name in enumerate(failed)}
    for row, kind in enumerate(("sizes", "changes")):
        for step in range(steps):
            axes = panels[row, step]
            if row and not step:
                continue
            for layer in layers:
                values = getattr(layer, kind)[:, step]
                if not np.any(values > 0):
                    continue
                line = {"color": colors.get(layer.name, plots.GRAY), "marker": "o", "markersize": 3}
                line |= {"linewidth": 1.5} if layer.name in colors else {"linewidth": 0.8, "alpha": 0.5}
                line |= {"linestyle": "--"} if layer.name == OUTPUT else {}
                axes.plot(widths, values, **line)
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_xticks(widths, [str(width) for width in widths], rotation=45, fontsize=7)
            axes.minorticks_off()
            label = ("size of outputs", "change since step 0")[row] if step == row else ""
            plots.style(axes, "width" if row else "", label, "" if row else f"step {step}")
            axes.tick_params(labelleft=step == row)
    legend = panels[1, 0]
    legend.set_axis_off()
    for name in list(failed)[:12]:
        dashes = "--" if name == OUTPUT else "-"
        legend.plot([], [], color=colors[name], linestyle=dashes, marker="o", markersize=3, label=name)
    told = "layers that change with the width" if failed else "no layer changes with the width"
    legend.plot([], [], color=plots.GRAY, linewidth=0.8, label="the others" if failed else "a layer")
    if OUTPUT not in colors:
        legend.plot([], [], color=plots.GRAY, linewidth=0.8, linestyle="--", label=OUTPUT)
    legend.legend(frameon=False, fontsize=7, loc="center", title=told, title_fontsize=7)
    drawn.suptitle(title, fontsize=10)
    return drawn


def _paths(tree) -> list[str]:
    keys = [keys for keys, _ in jax.tree_util.tree_leaves_with_path(tree)]
    return [jax.tree_util.keystr(key, simple=True, separator="/") for key in keys]


def _above(path: str) -> list[str]:
    """The modules that a parameter is in."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _calls(tree: Mapping[str, Any], path: tuple[str, ...]):
    """(path of the module, what its calls gave), in the order in which modules first were called."""
    for name, value in tree.items():
        if name == "__call__":
            yield path, value
        elif isinstance(value, Mapping):
            yield from _calls(value, (*path, name))
