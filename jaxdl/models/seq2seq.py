"""Sequence to sequence: a recurrent encoder, a recurrent decoder, and attention between them.

Sutskever, Vinyals and Le 2014, arXiv:1409.3215, without attention; Bahdanau, Cho and Bengio 2015, arXiv:1409.0473, for
additive scores; Luong, Pham and Manning 2015, arXiv:1508.04025, for the other scores and for how the parts stand
together (figures 2 and 4). Shapes: B examples, S source tokens, T target tokens, H units, V target words.

>>> import jax, jax.numpy as jnp
>>> model, source, target = Seq2Seq(vocab_size=7), jnp.zeros((2, 5), int), jnp.zeros((2, 3), int)
>>> model.init_with_output(jax.random.key(0), source, jnp.array([5, 2]), target, train=False)[0].shape
(2, 3, 7)
"""

import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdl.errors import InputError
from jaxdl.layers.batch_axis import example_keys
from jaxdl.layers.recurrent import CellName, Recurrent, valid_steps
from jaxdl.layers.regularization import Dropout, is_zero
from jaxdl.types import NonNegativeInt, PositiveInt, Probability, Rate

Score = Literal["dot", "scaled_dot", "bilinear", "additive", "cosine", "none"]


class Attention(nn.Module):
    """A query attends to the states of the source.

        weights = softmax over s of score(query, memory_s)     context = sum over s of weights_s memory_s

        dot         q . m                      Luong et al., eq. 8
        scaled_dot  q . m / sqrt(H)            Vaswani et al. 2017, arXiv:1706.03762, eq. 1
        bilinear    q . W m                    Luong et al., eq. 8, "general"
        additive    v . tanh(W q + U m)        Bahdanau et al., appendix A.1.2
        cosine      exp(b) q . m / (|q| |m|)   Graves et al. 2014, arXiv:1410.5401, eq. 5 and 6, with exp(b) learned

    Attributes:
      score: which of these.
      features: H, of queries and memory alike.
    """

    score: str = "additive"
    features: PositiveInt = 256

    def setup(self):
        if self.score in ("bilinear", "additive"):
            self.key = nn.Dense(self.features, use_bias=False)
        if self.score == "additive":
            self.query = nn.Dense(self.features, use_bias=False)
            self.vector = nn.Dense(1, use_bias=False)
        if self.score == "cosine":
            # A softmax over cosines alone is almost flat. 10 is where Swin v2 begins, too (arXiv:2111.09883).
            self.log_scale = self.param("log_scale", nn.initializers.constant(math.log(10)), ())

    def keys(self, memory):
        """What scores need of the memory [B, S, H], for all queries: [B, S, H]."""
        if self.score in ("bilinear", "additive"):
            return self.key(memory)
        return _unit(memory) if self.score == "cosine" else memory

    def scores(self, query, keys):
        """Queries [B, H] and keys [B, S, H] to scores [B, S]."""
        if self.score == "additive":
            return self.vector(jnp.tanh(self.query(query)[:, None, :] + keys))[..., 0]
        if self.score == "cosine":
            query = _unit(query) * jnp.exp(self.log_scale)
        if self.score == "scaled_dot":
            query = query / jnp.sqrt(self.features).astype(query.dtype)
        return jnp.einsum("bh,bsh->bs", query, keys)

    def __call__(self, query, memory, keys, mask):
        """The context [B, H] and the weights [B, S]; where the mask, bool [B, S], is False, weights are 0."""
        scores = self.scores(query, keys)
        scores = jnp.where(mask, scores.astype(jnp.float32), jnp.finfo(jnp.float32).min)
        weights = nn.softmax(scores).astype(query.dtype)
        return jnp.einsum("bs,bsh->bh", weights, memory), weights


def _unit(x):
    """Vectors of length 1 along the last axis; zero stays zero. The bound is one that half precision can hold."""
    square = jnp.square(x.astype(jnp.float32)).sum(axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, 1e-8)).astype(x.dtype)


class Seq2Seq(nn.Module):
    """Encoder and decoder, trained with the right tokens as the decoder's inputs (teacher forcing).

    Luong et al.: the decoder's state h attends to the source, and what predicts is tanh(W [context; h]) (eq. 5), which
    is an input of the next step, too (input feeding, section 3.3). Without attention, h itself predicts.

    Attributes:
      vocab_size: size of the source's vocabulary.
      target_vocab_size: size of the target's vocabulary, V; none is that of the source.
      start_token: the first input of the decoder; usually the token that ends the targets.
      cell: recurrent cell of encoder and decoder: rnn_tanh, rnn_relu, lstm or gru.
      hidden_size: units of a layer, H; a bidirectional encoder has half of them in each direction.
      embedding_size: numbers that stand for a token.
      num_layers: recurrent layers of the encoder, and of the decoder.
      bidirectional: whether the encoder reads the source from both ends.
      attention: score of the attention: dot, scaled_dot, bilinear (Luong's general), additive (Bahdanau's), cosine; or
        none: the decoder sees the encoder's last state alone.
      sampling_rate: scheduled sampling: the probability, in training, that an input of the decoder is what the model
        itself has just predicted in place of the right token. Bengio et al. 2015, arXiv:1506.03099, section 2.4; the
        task's `sampling_steps` lets it grow to this in the course of the training.
      dropout_rate: probability of dropping an embedded number, or an output of a layer.
    """

    vocab_size: PositiveInt = 256
    target_vocab_size: PositiveInt | None = None
    start_token: NonNegativeInt = 0
    cell: CellName = "lstm"
    hidden_size: PositiveInt = 256
    embedding_size: PositiveInt = 128
    num_layers: PositiveInt = 1
    bidirectional: bool = False
    attention: Score = "additive"
    sampling_rate: Probability = 0.0
    dropout_rate: Rate = 0.0

    def setup(self):
        if self.bidirectional and self.hidden_size % 2:
            raise InputError(f"--model.hidden_size={self.hidden_size} must be even: two directions share it.")
        target_vocab_size = self.target_vocab_size or self.vocab_size
        layers = {"cell": self.cell, "num_layers": self.num_layers, "dropout_rate": self.dropout_rate}
        self.source_embedding = nn.Embed(self.vocab_size, self.embedding_size)
        self.target_embedding = nn.Embed(target_vocab_size, self.embedding_size)
        encoder_size = self.hidden_size // (2 if self.bidirectional else 1)
        self.encoder = Recurrent(hidden_size=encoder_size, bidirectional=self.bidirectional, **layers)
        self.decoder = Recurrent(hidden_size=self.hidden_size, **layers)
        if self.attention != "none":
            self.attend = Attention(self.attention, self.hidden_size)
            self.combine = nn.Dense(self.hidden_size, use_bias=False)
        self.dropout = Dropout(self.dropout_rate)
        self.output = nn.Dense(target_vocab_size)

    def __call__(
        self,
        inputs,
        lengths,
        targets,
        *,
        train: bool,
        sampling_scale=None,
        free_running: bool = False,
        return_attention: bool = False,
    ):
        """The logits of every target token, given the source and, but for `free_running`, the tokens before it.

        Args:
          inputs: source tokens int32 [B, S]; what stands beyond the length is not looked at.
          lengths: int32 [B], at least 1.
          targets: int32 [B, T]; the decoder's inputs are `start_token` and these but the last.
          train: whether to drop, and to sample inputs by `sampling_rate`.
          sampling_scale: float [B], what the `sampling_rate` of each example is multiplied by; None is 1.
          free_running: the decoder's inputs are its own predictions, the most probable tokens; of `targets` nothing
            but the length counts. This is greedy decoding, without a stop at the end.
          return_attention: give the weights of the attention, too.

        Returns:
          float [B, T, V], or that and the weights, float [B, T, S], which are None without attention.
        """
        state, memory = self._encode(inputs, lengths, train)
        tokens = jnp.concatenate([jnp.full_like(targets[:, :1], self.start_token), targets[:, :-1]], axis=1)
        fed_back = self._fed_back(tokens, train, free_running, sampling_scale)
        logits, weights = self._decode(state, memory, tokens, fed_back, train)
        return (logits, weights) if return_attention else logits

    def start(self, tokens, lengths, capacity: int):
        """Begins to decode: source tokens int32 [B, S] and lengths [B] to the carry and the first logits, [B, V].

        A recurrent decoder needs no room, so `capacity`, the length of what is to be decoded, has no part in it.
        """
        state, memory = self._encode(tokens, lengths, train=False)
        return self.step((state, memory), jnp.full_like(tokens[:, 0], self.start_token))

    def step(self, carry, token):
        """One more token, int32 [B], to the carry and the logits of the next, [B, V]."""
        state, memory = carry
        state, (hidden, _) = self._advance(state, memory, token, train=False)
        return (state, memory), self.output(hidden)

    def _encode(self, inputs, lengths, train: bool):
        """What the decoder begins with, and what it attends to; arrays have the batch axis first."""
        values, state = self.encoder(
            self.dropout(self.source_embedding(inputs), train=train), None, lengths, train=train
        )
        # The two directions of a layer, each of half the width, become the one state of the decoder's layer.
        state = {"layers": tuple(x.reshape(len(x), self.num_layers, self.hidden_size) for x in state)}
        if self.attention == "none":
            return state, {}
        memory = {"values": values, "keys": self.attend.keys(values), "mask": valid_steps(lengths, inputs.shape[1])}
        return state | {"attentional": jnp.zeros_like(values[:, 0])}, memory

    def _advance(self, state: dict[str, Any], memory: dict[str, Any], token, train: bool):
        """One step: the new state, and what predicts, [B, H], with the attention's weights, [B, S] or None."""
        x = self.dropout(self.target_embedding(token), train=train)
        if memory:
            x = jnp.concatenate([x, state["attentional"]], axis=-1)
        outputs, layers = self.decoder(x[:, None], state["layers"], train=train)
        x = outputs[:, 0]
        if not memory:
            return {"layers": layers}, (self.dropout(x, train=train), None)
        context, weights = self.attend(x, memory["values"], memory["keys"], memory["mask"])
        x = jnp.tanh(self.combine(jnp.concatenate([context, x], axis=-1)))
        return {"layers": layers, "attentional": x}, (self.dropout(x, train=train), weights)

    def _fed_back(self, tokens, train: bool, free_running: bool, sampling_scale=None):
        """Which inputs of the decoder are its own predictions, bool [B, T]; None where none can be."""
        if free_running:
            chosen = jnp.ones(tokens.shape, bool)
        elif train and not is_zero(self.sampling_rate):
            keys = example_keys(self.make_rng("dropout"), tokens.shape[0])
            rate = self.sampling_rate if sampling_scale is None else (self.sampling_rate * sampling_scale)[:, None]
            chosen = jax.vmap(lambda key: jax.random.uniform(key, tokens.shape[1:]))(keys) < rate
        else:
            return None
        return chosen.at[:, 0].set(False)  # nothing has been predicted yet

    def _decode(self, state, memory, tokens, fed_back, train: bool):
        """Logits [B, T, V] and weights [B, T, S] (or None) for the decoder's inputs, int32 [B, T]."""

        def teacher_forced(model, state, token):
            return model._advance(state, memory, token, train)

        def sampled(model, carry, inputs):
            (state, predicted), (token, own) = carry, inputs
            state, (hidden, weights) = model._advance(state, memory, jnp.where(own, predicted, token), train)
            logits = model.output(hidden)
            return (state, logits.argmax(axis=-1).astype(token.dtype)), (logits, weights)

        def scan(body, carry, inputs):
            rngs = {"params": False, "dropout": True}
            return nn.scan(body, variable_broadcast="params", split_rngs=rngs, in_axes=1, out_axes=1)(
                self, carry, inputs
            )[1]

        if fed_back is not None:
            return scan(sampled, (state, tokens[:, 0]), (tokens, fed_back))
        hidden, weights = scan(teacher_forced, state, tokens)
        return self.output(hidden), weights
