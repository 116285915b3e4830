"""A chunk of steps as one pure function: what a dispatch runs."""

from collections.abc import Callable

import jax
import numpy as np

from jaxdl.train.feed import DeviceFeed, HostFeed
from jaxdl.train.program import Metrics, Program, TrainState


def make_chunk(program: Program, feed: HostFeed | DeviceFeed) -> Callable:
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


def trace_step(program: Program, state: TrainState, batch) -> tuple[Metrics, bool]:
    """Looks at a step without compiling it. `state` and `batch` may be shapes.

    Returns:
      zeros in the shape of the step's metrics, which are neutral when metrics are merged; and whether a step has a
      convolution in it.
    """
    jaxpr, (_, metrics) = jax.make_jaxpr(program.step, return_shape=True)(state, batch)
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), metrics), "conv_general_dilated" in _primitives(jaxpr)


def _primitives(jaxpr) -> set[str]:
    """The names of the operations in a jaxpr, and in the functions that it calls."""
    names = set()
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        names.add(equation.primitive.name)
        for value in jax.tree.leaves(tuple(equation.params.values()), is_leaf=_is_jaxpr):
            names |= _primitives(value) if _is_jaxpr(value) else set()
    return names


def _is_jaxpr(value) -> bool:
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")
