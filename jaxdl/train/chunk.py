"""A chunk of steps as one pure function: what a dispatch runs."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

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
        return state, {name: window[name].merge(metric) for name, metric in metrics.items()}

    def chunk(state, window, resident, rows, first, count):
        if feed.most_steps == 1:
            state, window = body(resident, rows, first, state, window)
        else:
            step = lambda index, carry: body(resident, rows, index, *carry)
            state, window = jax.lax.fori_loop(first, first + count, step, (state, window))
        return state, window, (state.step, state.nonfinite_step)

    return chunk


def convolves(program: Program, state: TrainState, batch) -> bool:
    """Whether a step has a convolution in it."""
    return "conv_general_dilated" in str(jax.make_jaxpr(lambda *a: program.step(*a)[0])(state, batch))


def empty_window(program: Program, feed: HostFeed | DeviceFeed, state: TrainState, rows) -> Metrics:
    """Zeros in the shape of the step's metrics, which are neutral when metrics are merged."""
    step = lambda state, resident, rows: program.step(state, feed.batch(resident, rows, 0))[1]
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(step, state, feed.resident, rows))
