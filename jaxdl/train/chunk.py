"""A chunk of steps as one pure function: what a dispatch runs, and the window of metrics that it carries."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from jaxdl.scaling.flops import bodies, product_flops
from jaxdl.train.feed import DeviceFeed, HostFeed
from jaxdl.train.program import Metrics, Program
from jaxdl.train.trials import Trials


def make_chunk(program: Program | Trials, feed: HostFeed | DeviceFeed) -> Callable:
    """`chunk(state, window, resident, rows, first, count) -> (state, window, (step, nonfinite_step))`.

    It is one program whatever `count`, so that where a chunk begins and ends, which a log, a signal or a resume
    decides, can change no bit.

    Args of the chunk:
      state: donated.
      window: training metrics since the last line of the log; donated.
      resident: the arrays that live on the device; empty when batches come from the host.
      rows: what the feed has taken: a batch, or the indices of several.
      first: int32 [], the first of `rows` to take.
      count: int32 [], how many steps to make.
    """

    def body(resident, rows, index, state, window):
        state, metrics = program.step(state, feed.batch(resident, rows, index))
        return state, program.merge(window, metrics)

    def chunk(state, window, resident, rows, first, count):
        if feed.most_steps == 1:
            state, window = body(resident, rows, first, state, window)
        else:
            step = lambda index, carry: body(resident, rows, index, *carry)
            state, window = jax.lax.fori_loop(first, first + count, step, (state, window))
        return state, window, (state.step, state.nonfinite_step)

    return chunk


class Traced(NamedTuple):
    """What is known of a step before it is compiled.

    Attributes:
      zeros: in the shape of its metrics; neutral when metrics are merged.
      convolves: whether it has a convolution in it.
      flops: of its matrix products and convolutions (`jaxdl.scaling.flops.product_flops`), over all devices.
    """

    zeros: Metrics
    convolves: bool
    flops: int


def trace_step(program: Program | Trials, batch_size: int) -> Traced:
    """Traces `init` and `step` without computing them. Raises what they raise of shapes that do not fit."""
    pipeline = program.pipeline(batch_size)
    state = jax.eval_shape(program.init, program.start, pipeline.example())
    jaxpr, (_, metrics) = jax.make_jaxpr(program.step, return_shape=True)(state, pipeline.batch(0))
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), metrics)
    return Traced(zeros, "conv_general_dilated" in _primitives(jaxpr), product_flops(jaxpr))


def pack(window: Metrics, run_axes: int) -> np.ndarray:
    """A window as one float32 array, for a checkpoint: Orbax takes half a millisecond for each of its scalars.

    Args:
      run_axes: axes that stand before a run's own: 1 for several trials, else 0.
    """
    leaves = [x.reshape(*x.shape[:run_axes], -1) for x in jax.tree.leaves(jax.device_get(window))]
    return np.concatenate(leaves, axis=-1, dtype=np.float32)


def unpack(packed: np.ndarray, zeros: Metrics, run_axes: int) -> Metrics:
    """The window, on the host, that `pack` made an array of."""
    leaves, structure = jax.tree.flatten(zeros)
    ends = np.cumsum([math.prod(x.shape[run_axes:]) for x in leaves])
    parts = np.split(packed, ends[:-1], axis=-1)
    restored = [part.reshape(x.shape).astype(x.dtype) for part, x in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(structure, restored)


def _primitives(jaxpr) -> set[str]:
    """The names of the operations in a jaxpr, and in the functions that it calls."""
    names = set()
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        names.add(equation.primitive.name)
        names.update(*map(_primitives, bodies(equation)))
    return names
