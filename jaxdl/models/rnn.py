"""Recurrent networks: many inputs to one output or to one each, language models, and one input to many outputs.

The layers are those of `jaxdl.layers.recurrent`: Elman networks, LSTM and GRU, with PyTorch's definitions and parameter
counts; `from_torch` and `to_torch` carry weights over. Dropout as in Zaremba et al. 2014, arXiv:1409.2329: before,
between and after the layers, never along time. Shapes: B examples, T steps, H hidden units, L layers, V words.

>>> import jax, jax.numpy as jnp
>>> model, tokens, lengths = RNN(vocab_size=9, cell="gru", num_outputs=2), jnp.zeros((3, 7), int), jnp.array([7, 2, 5])
>>> model.init_with_output(jax.random.key(0), tokens, lengths, train=False)[0].shape
(3, 2)
"""

from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdl.errors import InputError
from jaxdl.layers.recurrent import CellName, Recurrent, State, valid_steps, zero_state
from jaxdl.layers.regularization import Dropout
from jaxdl.types import PositiveInt, Rate


class RNN(nn.Module):
    """A sequence to one vector of outputs (many-to-one), or to one at each step (many-to-many).

    Attributes:
      num_outputs: number of outputs: classes, or regression targets.
      vocab_size: size of the vocabulary when the inputs are tokens; none: they are numbers.
      embedding_size: numbers that stand for a token; none is hidden_size.
      cell: rnn_tanh or rnn_relu (Elman networks), lstm, or gru.
      hidden_size: units of a layer in one direction.
      num_layers: layers on top of each other.
      bidirectional: whether each layer also reads from the last step to the first.
      pooling: what the output sees: last, the state after the last valid step (of each direction); mean or max of the
        last layer's outputs over the valid steps; or none, each of them, for an output at each step.
      dropout_rate: probability of dropping an embedded number, or an output of a layer.
      unroll: steps in one round of the compiled loop; more compile longer, and were not faster on a CPU.
    """

    num_outputs: PositiveInt = 10
    vocab_size: PositiveInt | None = None
    embedding_size: PositiveInt | None = None
    cell: CellName = "rnn_tanh"
    hidden_size: PositiveInt = 128
    num_layers: PositiveInt = 1
    bidirectional: bool = False
    pooling: Literal["last", "mean", "max", "none"] = "last"
    dropout_rate: Rate = 0.0
    unroll: PositiveInt = 1

    @nn.compact
    def __call__(self, inputs, lengths=None, *, train: bool):
        """Sequences to outputs.

        Args:
          inputs: tokens int [B, T] where there is a vocabulary; else float [B, T, F], or images [B, H, W, C], whose
            rows are the steps.
          lengths: int [B], at least 1; later steps are padding. None: no padding.
          train: whether dropout acts.

        Returns:
          [B, num_outputs]; with pooling none [B, T, num_outputs], zero at padding.

        Raises:
          InputError: the inputs are of another kind than the fields say.
        """
        x = self._steps(inputs)
        if self.vocab_size is not None:
            x = nn.Embed(self.vocab_size, self.embedding_size or self.hidden_size, name="embedding")(x)
            x = Dropout(self.dropout_rate, name="embedding_dropout")(x, train=train)
        recurrent = Recurrent(
            *(self.cell, self.hidden_size, self.num_layers, self.bidirectional, self.dropout_rate, self.unroll),
            name="recurrent",
        )
        outputs, state = recurrent(x, lengths=lengths, train=train)
        x = pool(self.pooling, outputs, state, lengths, 1 + self.bidirectional)
        x = Dropout(self.dropout_rate, name="output_dropout")(x, train=train)
        x = nn.Dense(self.num_outputs, name="output")(x)
        if self.pooling == "none" and lengths is not None:
            x = jnp.where(valid_steps(lengths, x.shape[1])[..., None], x, 0)
        return x

    def _steps(self, inputs):
        """Tokens [B, T] as they are; numbers as [B, T, F]."""
        if jnp.issubdtype(inputs.dtype, jnp.integer):
            if self.vocab_size is None or inputs.ndim != 2:
                raise InputError(
                    f"whole numbers {list(inputs.shape)} are taken for tokens [B, T], and need --model.vocab_size."
                )
            return inputs
        for name in ("vocab_size", "embedding_size"):
            if getattr(self, name) is not None:
                raise InputError(f"--model.{name} is for tokens, and the inputs are {inputs.dtype}; leave it out.")
        if inputs.ndim not in (3, 4):
            raise InputError(f"a recurrent network takes [B, T, F] or [B, H, W, C], and the inputs are {inputs.shape}.")
        return inputs.reshape(*inputs.shape[:2], -1)


def pool(pooling: str, outputs, state: State, lengths, num_directions: int):
    """One vector for each example, or for each step.

    Args:
      pooling: last, mean, max or none.
      outputs: of the last layer, [B, T, P * H], zero at padding.
      state: of all layers, arrays [B, L * P, H].
      lengths: int [B], at least 1, or None.
      num_directions: P.

    Returns:
      [B, P * H]; for none, the outputs.

    Raises:
      InputError: there is no such pooling.
    """
    num_steps = outputs.shape[1]
    if pooling == "none":
        return outputs
    if pooling == "last":
        return state[0][:, -num_directions:].reshape(outputs.shape[0], -1)
    if pooling == "mean":
        count = num_steps if lengths is None else lengths[:, None].astype(outputs.dtype)
        return outputs.sum(axis=1) / count
    if pooling == "max":
        valid = True if lengths is None else valid_steps(lengths, num_steps)[..., None]
        return jnp.where(valid, outputs, -jnp.inf).max(axis=1)
    raise InputError(f"no pooling is called '{pooling}'. There are: last, mean, max, none.")


class RNNLanguageModel(nn.Module):
    """The next token from all before it. Mikolov et al. 2010, Recurrent neural network based language model.

    A sequence can be read in pieces, and continued token by token (`start` and `step`): the state is all it remembers.

    Attributes:
      vocab_size: size of the vocabulary, V.
      embedding_size: numbers that stand for a token; none is hidden_size.
      cell: rnn_tanh or rnn_relu (Elman networks), lstm, or gru.
      hidden_size: units of a layer, H.
      num_layers: layers on top of each other.
      tied_head: whether the output's weights are those of the embedding, which then has H numbers (Press and Wolf
        2017, arXiv:1608.05859); the output has a bias of its own.
      dropout_rate: probability of dropping an embedded number, or an output of a layer.
      unroll: steps in one round of the compiled loop; more compile longer, and were not faster on a CPU.
    """

    vocab_size: PositiveInt = 256
    embedding_size: PositiveInt | None = None
    cell: CellName = "rnn_tanh"
    hidden_size: PositiveInt = 128
    num_layers: PositiveInt = 1
    tied_head: bool = False
    dropout_rate: Rate = 0.0
    unroll: PositiveInt = 1

    def setup(self):
        size = self.embedding_size or self.hidden_size
        if self.tied_head and size != self.hidden_size:
            raise InputError(
                f"--model.tied_head needs an embedding of {self.hidden_size} numbers, the hidden size; "
                f"--model.embedding_size is {size}."
            )
        self.embedding = nn.Embed(self.vocab_size, size)
        self.embedding_dropout, self.output_dropout = Dropout(self.dropout_rate), Dropout(self.dropout_rate)
        self.recurrent = Recurrent(
            self.cell, self.hidden_size, self.num_layers, False, self.dropout_rate, unroll=self.unroll
        )
        if self.tied_head:
            self.output_bias = self.param("output_bias", nn.initializers.zeros, (self.vocab_size,))
        else:
            self.output = nn.Dense(self.vocab_size)

    def __call__(self, tokens, segments=None, *, train: bool):
        """Logits of the token after each.

        Args:
          tokens: int [B, T].
          segments: int [B, T], which document of a packed row each token is from; the state begins anew with each.
            None: each row is one.
          train: whether dropout acts.

        Returns:
          [B, T, V].
        """
        return self.continued(tokens, None, segments=segments, train=train)[0]

    def continued(self, tokens, state: State | None, lengths=None, segments=None, *, train: bool = False):
        """Logits [B, T, V] and the state after the tokens [B, T], from a state before them; None is the empty one.

        Steps from `lengths` [B] on are padding. States are arrays [B, L, H], one, or two of an LSTM.
        """
        x = self.embedding_dropout(self.embedding(tokens), train=train)
        x, state = self.recurrent(x, state, lengths, segments, train=train)
        return self._logits(self.output_dropout(x, train=train)), state

    def start(self, tokens, lengths, capacity: int):
        """Reads prompts, to generate what follows.

        Args:
          tokens: int [B, T], padded at the end.
          lengths: int [B], at least 1.
          capacity: tokens that a row may hold in all; a recurrent state is as large for any number.

        Returns:
          the state, arrays [B, L, H], and the logits [B, V] of the token after each prompt.
        """
        del capacity
        _, state = self.recurrent(self.embedding(tokens), None, lengths, train=False)
        return state, self._logits(state[0][:, -1])

    def step(self, carry: State, token):
        """Reads one token, int [B]: the new state, and the logits [B, V] of the token after it."""
        logits, carry = self.continued(token[:, None], carry)
        return carry, logits[:, 0]

    def _logits(self, x):
        if not self.tied_head:
            return self.output(x)
        x, bias = nn.dtypes.promote_dtype(x, self.output_bias)
        return self.embedding.attend(x) + bias.reshape((1,) * (x.ndim - 1) + bias.shape)


class Vec2Seq(nn.Module):
    """One vector to a sequence of numbers (one-to-many), each of which the network sees before it gives the next.

    Goodfellow, Bengio and Courville 2016, Deep Learning, figure 10.9: the vector is an input of every step, with the
    step's predecessor; they give it the right one in training, here it is the network's own, as in evaluation.
    `--task=regression` trains it: the targets [B, num_outputs] of an example are its sequence, step by step, with
    step_size of them at each step.

    Attributes:
      num_outputs: length of the whole sequence: steps times step_size.
      step_size: numbers at each step.
      cell: rnn_tanh or rnn_relu (Elman networks), lstm, or gru.
      hidden_size: units of a layer.
      num_layers: layers on top of each other.
      dropout_rate: probability of dropping an output of a layer.
    """

    num_outputs: PositiveInt = 10
    step_size: PositiveInt = 1
    cell: CellName = "gru"
    hidden_size: PositiveInt = 128
    num_layers: PositiveInt = 1
    dropout_rate: Rate = 0.0

    @nn.compact
    def __call__(self, inputs, *, train: bool):
        """Vectors [B, ...], flattened, to sequences [B, num_outputs]: all numbers of a step, then those of the next.

        Raises:
          InputError: step_size does not divide num_outputs.
        """
        if self.num_outputs % self.step_size:
            raise InputError(
                f"--model.step_size={self.step_size} does not divide the {self.num_outputs} numbers of a sequence."
            )
        batch_size = inputs.shape[0]
        vector = inputs.reshape(batch_size, -1)
        recurrent = Recurrent(
            self.cell, self.hidden_size, self.num_layers, dropout_rate=self.dropout_rate, name="recurrent"
        )
        dropout = Dropout(self.dropout_rate, name="output_dropout")
        output = nn.Dense(self.step_size, name="output")

        def step(model, carry, _):
            state, before = carry
            x, state = recurrent(jnp.concatenate([vector, before], axis=-1)[:, None], state, train=train)
            after = output(dropout(x[:, 0], train=train))
            return (state, after), after

        state = zero_state(self.cell, (batch_size, self.num_layers, self.hidden_size), vector.dtype)
        first = jnp.zeros((batch_size, self.step_size), vector.dtype)
        steps = nn.scan(
            step,
            variable_broadcast="params",
            split_rngs={"params": False, "dropout": True},
            length=self.num_outputs // self.step_size,
            out_axes=1,
        )
        _, outputs = steps(self, (state, first), None)
        return outputs.reshape(batch_size, self.num_outputs)


_TORCH_NAMES = {
    "input_kernel": "weight_ih",
    "input_bias": "bias_ih",
    "hidden_kernel": "weight_hh",
    "hidden_bias": "bias_hh",
}


def from_torch(arrays: Mapping[str, Any]) -> dict[str, dict[str, jax.Array]]:
    """The parameters of `Recurrent` (`params["recurrent"]` of a model) from a torch.nn.RNN, LSTM or GRU with biases.

    Args:
      arrays: its `state_dict()`, as NumPy arrays.

    Raises:
      InputError: an array is missing, or one has no place here (a projection of an LSTM).
    """
    rest = dict(arrays)
    params = {}
    for layer in range(sum(name.startswith("weight_ih_l") and not name.endswith("_reverse") for name in arrays)):
        for direction, suffix in (("forward", ""), ("backward", "_reverse")):
            if direction == "backward" and f"weight_ih_l{layer}_reverse" not in arrays:
                continue
            ours = params[f"layer{layer}_{direction}"] = {}
            for name, theirs in _TORCH_NAMES.items():
                key = f"{theirs}_l{layer}{suffix}"
                if key not in rest:
                    raise InputError(f"the weights have no array '{key}'.")
                ours[name] = jnp.asarray(rest.pop(key)).T
    if rest or not params:
        raise InputError(f"these are not the weights of a torch.nn.RNN, LSTM or GRU: {', '.join(rest) or 'no arrays'}.")
    return params


def to_torch(params: Mapping[str, Mapping[str, Any]]) -> dict[str, jax.Array]:
    """The inverse of `from_torch`: arrays by the names of PyTorch's `state_dict`."""
    arrays = {}
    for place, layer in params.items():
        index, _, direction = place.removeprefix("layer").partition("_")
        suffix = {"forward": "", "backward": "_reverse"}[direction]
        for name, array in layer.items():
            arrays[f"{_TORCH_NAMES[name]}_l{index}{suffix}"] = array.T
    return arrays
