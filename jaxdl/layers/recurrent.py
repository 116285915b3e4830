"""Recurrent layers: Elman networks, LSTM and GRU, each layer and direction one scan over time.

The definitions, gate orders and two biases are those of PyTorch and cuDNN, so weights pass between them unchanged:

    Elman   h' = f(a + b)                                        f is tanh or ReLU
    LSTM    c' = sigmoid(f) c + sigmoid(i) tanh(g),  h' = sigmoid(o) tanh(c')         i, f, g, o = a + b
    GRU     h' = (1 - z) tanh(a_n + r b_n) + z h                 r = sigmoid(a_r + b_r), z = sigmoid(a_z + b_z)

with a = x W_x + b_x, one matrix product for all steps before the scan, and b = h W_h + b_h, one for each step in it.
Elman 1990, Finding structure in time. Hochreiter and Schmidhuber 1997, Long short-term memory, with the forget gates of
Gers et al. 2000 and without peepholes. Cho et al. 2014, arXiv:1406.1078, in the variant of its first version, which
applies the reset gate after the hidden matrix product; the published one has tanh(a_n + (r h) W_h).

Shapes: B examples, T steps, D inputs of a step, H hidden units, G gates, L layers, P directions (1 or 2).

>>> import jax, jax.numpy as jnp
>>> layer = Recurrent("lstm", hidden_size=5, num_layers=2, bidirectional=True)
>>> (outputs, (h, c)), _ = layer.init_with_output(jax.random.key(0), jnp.zeros((2, 7, 3)), train=False)
>>> outputs.shape, h.shape, c.shape
((2, 7, 10), (2, 4, 5), (2, 4, 5))
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdl.catalog import nearest
from jaxdl.errors import InputError
from jaxdl.layers.regularization import Dropout
from jaxdl.types import PositiveInt, Rate

State = tuple[jax.Array, ...]
"""What a step hands to the next: (h,), or (h, c) of an LSTM."""

CellName = Literal["rnn_tanh", "rnn_relu", "lstm", "gru"]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One step of a recurrent network.

    Attributes:
      num_gates: G, how often the input and hidden products hold H numbers.
      num_states: arrays in the state.
      update: `update(a, b, state) -> state`, with a and b [B, G * H] and every array of a state [B, H].
    """

    num_gates: int
    num_states: int
    update: Callable[[jax.Array, jax.Array, State], State]


def elman(activation: Callable) -> Callable[[jax.Array, jax.Array, State], State]:
    """The update of an Elman network with this activation."""
    return lambda a, b, state: (activation(a + b),)


def lstm(a: jax.Array, b: jax.Array, state: State) -> State:
    """The update of an LSTM: (h, c) to (h', c')."""
    i, f, g, o = jnp.split(a + b, 4, axis=-1)
    c = nn.sigmoid(f) * state[1] + nn.sigmoid(i) * jnp.tanh(g)
    return nn.sigmoid(o) * jnp.tanh(c), c


def gru(a: jax.Array, b: jax.Array, state: State) -> State:
    """The update of a GRU: (h,) to (h',)."""
    (a_r, a_z, a_n), (b_r, b_z, b_n) = jnp.split(a, 3, axis=-1), jnp.split(b, 3, axis=-1)
    z = nn.sigmoid(a_z + b_z)
    return ((1 - z) * jnp.tanh(a_n + nn.sigmoid(a_r + b_r) * b_n) + z * state[0],)


CELLS: dict[str, Cell] = {
    "rnn_tanh": Cell(1, 1, elman(jnp.tanh)),
    "rnn_relu": Cell(1, 1, elman(nn.relu)),
    "lstm": Cell(4, 2, lstm),
    "gru": Cell(3, 1, gru),
}


def find_cell(name: str) -> Cell:
    """The cell of that name. Raises InputError where there is none."""
    if name not in CELLS:
        raise InputError(f"no recurrent cell is called '{name}'.{nearest(name, CELLS)} There are: {', '.join(CELLS)}.")
    return CELLS[name]


def zero_state(cell: str, shape: tuple[int, ...], dtype=jnp.float32) -> State:
    """The state before the first step: zeros of this shape for every array that the cell keeps."""
    return (jnp.zeros(shape, dtype),) * find_cell(cell).num_states


def valid_steps(lengths: jax.Array, num_steps: int) -> jax.Array:
    """Which steps are no padding: bool [B, T] from lengths int [B]."""
    return jnp.arange(num_steps)[None, :] < lengths[:, None]


def scan_cell(
    cell: Cell,
    a: jax.Array,
    state: State,
    hidden_kernel: jax.Array,
    hidden_bias: jax.Array,
    *,
    lengths: jax.Array | None = None,
    segments: jax.Array | None = None,
    reverse: bool = False,
    unroll: int = 1,
) -> tuple[jax.Array, State]:
    """A cell over all steps of a sequence.

    Args:
      cell: of `CELLS`.
      a: [B, T, G * H], the input's products with their bias.
      state: before the first step, arrays [B, H].
      hidden_kernel: [H, G * H].
      hidden_bias: [G * H].
      lengths: int [B]; later steps are padding, which leaves the state as it is and gives zeros. None: no padding.
      segments: int [B, T]; where it changes from one step to the next the state begins anew, at zero. None: nowhere.
      reverse: from the last step to the first. Padding is still at the end: the first step taken is the last valid one.
      unroll: steps in one round of the compiled loop.

    Returns:
      outputs [B, T, H], in the order of the inputs, and the state after the last step taken.
    """
    num_steps = a.shape[1]
    valid = None if lengths is None else valid_steps(lengths, num_steps)
    starts = None if segments is None else _segment_starts(segments, reverse)

    def step(state, inputs):
        a, valid, starts = inputs
        if starts is not None:
            state = _where(starts, jax.tree.map(jnp.zeros_like, state), state)
        new = cell.update(a, state[0] @ hidden_kernel + hidden_bias[None], state)
        if valid is None:
            return new, new[0]
        return _where(valid, new, state), jnp.where(valid[:, None], new[0], 0)

    by_step = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), (a, valid, starts))
    state, outputs = jax.lax.scan(step, state, by_step, reverse=reverse, unroll=min(unroll, max(num_steps, 1)))
    return jnp.moveaxis(outputs, 0, 1), state


def _where(condition: jax.Array, ours: State, theirs: State) -> State:
    return tuple(jnp.where(condition[:, None], x, y) for x, y in zip(ours, theirs, strict=True))


def _segment_starts(segments: jax.Array, reverse: bool) -> jax.Array:
    """Bool [B, T]: which steps are the first of their segment in the direction of the scan; the very first is not."""
    changes = segments[:, 1:] != segments[:, :-1]
    return jnp.pad(changes, ((0, 0), (0, 1) if reverse else (1, 0)))


class RecurrentLayer(nn.Module):
    """One layer in one direction.

    All four parameters start from U(-1/sqrt(H), 1/sqrt(H)), as PyTorch's.

    Attributes:
      cell: rnn_tanh, rnn_relu, lstm or gru.
      hidden_size: H.
      reverse: whether it goes from the last step to the first.
      unroll: steps in one round of the compiled loop.
    """

    cell: CellName = "lstm"
    hidden_size: PositiveInt = 128
    reverse: bool = False
    unroll: PositiveInt = 1

    @nn.compact
    def __call__(self, inputs, state: State | None = None, lengths=None, segments=None):
        """As `scan_cell`, from inputs [B, T, D]; the state is zero where it is None."""
        cell, size = find_cell(self.cell), self.hidden_size
        width = cell.num_gates * size
        init = _uniform(1 / math.sqrt(size))
        parameters = (
            self.param("input_kernel", init, (inputs.shape[-1], width)),
            self.param("input_bias", init, (width,)),
            self.param("hidden_kernel", init, (size, width)),
            self.param("hidden_bias", init, (width,)),
        )
        inputs, input_kernel, input_bias, *hidden = nn.dtypes.promote_dtype(inputs, *parameters)
        a = inputs @ input_kernel + input_bias[None, None]
        if state is None:
            state = zero_state(self.cell, (inputs.shape[0], size))
        state = tuple(x.astype(a.dtype) for x in state)
        options = {"lengths": lengths, "segments": segments, "reverse": self.reverse, "unroll": self.unroll}
        return scan_cell(cell, a, state, *hidden, **options)


class Recurrent(nn.Module):
    """Layers on top of each other; with two directions, each layer sees both outputs of the one before.

    Bidirectional: Schuster and Paliwal 1997, Bidirectional recurrent neural networks. Dropout between layers and not
    along time: Zaremba et al. 2014, arXiv:1409.2329. In the state of all layers, L * P counts layers and in each layer
    directions, as in PyTorch, but with the batch axis first.

    Attributes:
      cell: rnn_tanh, rnn_relu, lstm or gru.
      hidden_size: H.
      num_layers: L.
      bidirectional: whether each layer also goes from the last step to the first.
      dropout_rate: probability of dropping an output of a layer on its way to the next.
      unroll: steps in one round of the compiled loop.
    """

    cell: CellName = "lstm"
    hidden_size: PositiveInt = 128
    num_layers: PositiveInt = 1
    bidirectional: bool = False
    dropout_rate: Rate = 0.0
    unroll: PositiveInt = 1

    @nn.compact
    def __call__(self, inputs, state: State | None = None, lengths=None, segments=None, *, train: bool):
        """The last layer's outputs at each step, and the state of all layers after the last.

        Args:
          inputs: [B, T, D].
          state: arrays [B, L * P, H] before the first step; None is zero.
          lengths: int [B]; later steps are padding: they change no state and their outputs are zero. None: no padding.
          segments: int [B, T]; where it changes the state begins anew, at zero. None: nowhere.
          train: whether dropout acts.

        Returns:
          outputs [B, T, P * H], the forward direction first, and the state, arrays [B, L * P, H].

        Raises:
          InputError: the state or the lengths have another shape.
        """
        directions = ("forward", "backward") if self.bidirectional else ("forward",)
        self._check(inputs, state, lengths, len(directions))
        x, finals = inputs, []
        for layer in range(self.num_layers):
            outputs = []
            for direction in directions:
                place = len(finals)
                initial = None if state is None else tuple(array[:, place] for array in state)
                scan = RecurrentLayer(
                    self.cell, self.hidden_size, direction == "backward", self.unroll, name=f"layer{layer}_{direction}"
                )
                output, final = scan(x, initial, lengths, segments)
                outputs.append(output)
                finals.append(final)
            x = jnp.concatenate(outputs, axis=-1)
            if layer < self.num_layers - 1:
                x = Dropout(self.dropout_rate, name=f"dropout{layer}")(x, train=train)
        return x, tuple(jnp.stack(arrays, axis=1) for arrays in zip(*finals, strict=True))

    def _check(self, inputs, state: State | None, lengths, num_directions: int):
        if inputs.ndim != 3:
            raise InputError(f"a recurrent layer takes inputs [B, T, D] and was given {list(inputs.shape)}.")
        if lengths is not None and lengths.shape != inputs.shape[:1]:
            raise InputError(f"lengths have the shape {list(lengths.shape)}; {[inputs.shape[0]]} was expected.")
        if state is None:
            return
        shape = (inputs.shape[0], self.num_layers * num_directions, self.hidden_size)
        expected = (shape,) * find_cell(self.cell).num_states
        given = tuple(array.shape for array in state)
        if given != expected:
            raise InputError(f"the state of '{self.cell}' has the shapes {given}; {expected} was expected.")


def _uniform(bound: float):
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)
