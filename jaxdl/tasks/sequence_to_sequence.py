"""Sequence to sequence: translation, and whatever else makes a sequence out of another.

Shapes: B examples, S source tokens, T target tokens, V words of the target's vocabulary. A batch has `inputs` int32
[B, S], `lengths` int32 [B], `targets` int32 [B, T], which end with the end-of-text token and are padded, and
`target_lengths` int32 [B], the end included. A model is called with the first three, and generates by the methods
`start` and `step`, as `jaxdl.models.seq2seq.Seq2Seq`.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import decoding, losses, metrics
from jaxdl.data.sequences import pad
from jaxdl.data.sources import read
from jaxdl.errors import InputError
from jaxdl.layers.regularization import is_zero
from jaxdl.tasks.base import Task, check_tokens
from jaxdl.types import NonNegativeFloat, NonNegativeInt, PositiveInt, Probability

MAX_MAPS = 6  # attention maps on the sheet
MAX_EXAMPLES = 12  # right ones in the table, and wrong ones
_CHECKED = ("inputs", "lengths", "targets", "target_lengths")


def text_of(tokenizer, ids) -> str:
    """The text before the first end-of-text token of `ids` [T]."""
    ids = np.asarray(ids)
    ends = np.flatnonzero(ids == tokenizer.end_of_text)
    return tokenizer.decode(ids[: ends[0]] if len(ends) else ids)


def pieces_of(tokenizer, ids) -> list[str]:
    """The text of each token up to the first end-of-text token, which is "end": the ticks of an attention map."""
    pieces = []
    for token in np.asarray(ids).tolist():
        if token == tokenizer.end_of_text:
            return [*pieces, "end"]
        pieces.append(tokenizer.decode([token]))
    return pieces


@dataclasses.dataclass(frozen=True)
class Decoding:
    """What `launch.sample` decodes, and how.

    Attributes:
      text: the source. Empty: held-out examples, shown with the right outputs.
      examples: how many of them.
      beams: width of the beam search; 1 is greedy decoding.
      length_penalty: of the beam search: 0 ranks by probability, 1 nearly by probability a token.
      length: the most tokens that are decoded; none is the length of the longest target of the training data.
    """

    text: str = ""
    examples: PositiveInt = 8
    beams: PositiveInt = 1
    length_penalty: NonNegativeFloat = 0.0
    length: PositiveInt | None = None

    def sample(self, model, variables, data, key) -> dict[str, Any]:
        """The decoded texts, `decoded`, and a heat map of the attention, `attention`, where the model has it.

        Raises:
          InputError: a text that has no token, or one that the vocabulary has not.
        """
        split = next(name for name in ("test", "validation", "train") if name in data.splits)
        example = data.splits[split][0]
        if self.text:
            ids = data.tokenizer.encode(self.text)
            if not len(ids):
                raise InputError(f"--text={self.text!r} has no token; give the text of a source.")
            inputs, lengths = pad([ids], 0, max(len(ids), len(example["inputs"])))
            sources, expected = [self.text], [None]
        else:
            batch = read(data.splits[split], np.arange(min(self.examples, len(data.splits[split]))), data.collate)
            inputs, lengths = np.asarray(batch["inputs"]), np.asarray(batch["lengths"])
            sources = [data.tokenizer.decode(row[:length]) for row, length in zip(inputs, lengths)]
            expected = [text_of(data.target_tokenizer, row) for row in batch["targets"]]
        tokens = self.decode(model, variables, inputs, lengths, data, self.length or len(example["targets"]))
        decoded = [text_of(data.target_tokenizer, row) for row in tokens]
        lines = [
            f"{source} → {text}" + (f"  (right: {right})" if right not in (None, text) else "")
            for source, text, right in zip(sources, decoded, expected)
        ]
        result: dict[str, Any] = {"decoded": "\n".join(lines)}
        if getattr(model, "attention", "none") != "none":
            shown = slice(0, MAX_MAPS)
            apply = jax.jit(lambda *arrays: model.apply(variables, *arrays, train=False, return_attention=True)[1])
            weights = np.asarray(apply(inputs[shown], lengths[shown], tokens[shown]))
            maps = [
                _Map(row, inputs[i, : lengths[i]], tokens[i], f"{sources[i]} → {decoded[i]}"[:40])
                for i, row in enumerate(weights)
            ]
            result["attention"] = _attention_figure(maps, data)
        return result

    def decode(self, model, variables, inputs, lengths, data, length: int) -> np.ndarray:
        """The best output of each source: int32 [B, length], the end-of-text token from the first one on."""
        end = data.target_tokenizer.end_of_text

        @jax.jit
        def run(variables, inputs, lengths):
            step = lambda carry, token: model.apply(variables, carry, token, method="step")
            carry, logits = model.apply(variables, inputs, lengths, length, method="start")
            if self.beams == 1:
                key = jax.random.key(0)  # greedy decoding draws nothing
                return decoding.sample(step, carry, logits, length, key, temperature=0.0, end=end)[0]
            options = {"beams": self.beams, "end": end, "length_penalty": self.length_penalty}
            return decoding.beam_search(step, carry, logits, length, **options)[0][:, 0]

        return np.asarray(run(variables, inputs, lengths))


@dataclasses.dataclass(frozen=True)
class SequenceToSequence(Task):
    """A target sequence for each source sequence, the tokens one after the other.

    Evaluation has the loss and the accuracy of the tokens given the right ones before them (teacher forcing), and
    `sequence_accuracy`: the share of examples whose greedy decoding is the target, its end included. It needs no
    decoding: greedy decoding gives the target exactly when every target token is the most probable one after the right
    ones before it.

    Attributes:
      label_smoothing: share of the right token's probability that is spread over the vocabulary.
      sampling_steps: steps of training in which the model's sampling_rate grows to its value, linearly from 0; 0: it is
        there from the beginning.
    """

    label_smoothing: Probability = 0.0
    sampling_steps: NonNegativeInt = 0

    fills: ClassVar[tuple[str, ...]] = ("vocab_size", "target_vocab_size", "start_token")
    sampler: ClassVar[type | None] = Decoding

    def model_fields(self, data) -> dict:
        return {
            "vocab_size": data.tokenizer.vocab_size,
            "target_vocab_size": data.target_tokenizer.vocab_size,
            "start_token": data.target_tokenizer.end_of_text,
        }

    def wrap(self, model):
        if self.sampling_steps and is_zero(getattr(model, "sampling_rate", 0)):
            raise InputError("--task.sampling_steps is for scheduled sampling: give --model.sampling_rate, too.")
        return model

    def check(self, data) -> None:
        example = data.splits["train"][0]
        missing = [name for name in _CHECKED if name not in example]
        if missing or data.tokenizer is None or data.target_tokenizer is None:
            has = ", ".join(example)
            raise InputError(
                f"sequence_to_sequence needs sources and targets of tokens, and this dataset has {has}; "
                "try --dataset=addition or --dataset=parallel_text."
            )
        if data.target_tokenizer.end_of_text is None:
            raise InputError("sequence_to_sequence needs targets whose tokenizer has an end-of-text token.")
        check_tokens(data, data.tokenizer)
        check_tokens(data, data.target_tokenizer, "targets", "target_lengths")

    def inputs(self, batch):
        return batch["inputs"], batch["lengths"], batch["targets"]

    def step(self, program, state, batch, key):
        """One step, told how far the scheduled sampling has come (Bengio et al. 2015, arXiv:1506.03099, section 2.4).

        Their linear decay of the probability of the right token, 1 - c i, i being the step.
        """
        if self.sampling_steps:
            scale = jnp.minimum(state.step / self.sampling_steps, 1.0)
            batch = {**batch, "sampling_scale": jnp.full(len(batch["inputs"]), scale, jnp.float32)}
        return super().step(program, state, batch, key)

    def loss(self, forward, batch, key, player="model"):
        scale = {name: batch[name] for name in ("sampling_scale",) if name in batch}
        logits, weight = forward(*self.inputs(batch), **scale), _token_weight(batch)
        values = losses.softmax_cross_entropy(logits, batch["targets"], self.label_smoothing)
        correct = metrics.top_k_correct(logits, batch["targets"], k=1)
        return losses.share_of_mean(values, weight), {
            "loss": metrics.Mean.of(values, weight),
            "token_accuracy": metrics.Mean.of(correct, weight),
        }

    def evaluate(self, forward, batch):
        logits, targets, weight = forward(*self.inputs(batch)), batch["targets"], _token_weight(batch)
        correct = metrics.top_k_correct(logits, targets, k=1)
        exact = ((correct > 0) | (weight == 0)).all(axis=1)
        return {
            "loss": metrics.Mean.of(losses.softmax_cross_entropy(logits, targets, self.label_smoothing), weight),
            "perplexity": metrics.ExpMean.of(losses.softmax_cross_entropy(logits, targets), weight),
            "token_accuracy": metrics.Mean.of(correct, weight),
            "sequence_accuracy": metrics.Mean.of(jnp.float32(exact), batch.get("weight")),
        }

    def figures(self, predict, batches, data):
        """Greedy decoding of every held-out example: a table of right and wrong ones, and maps of the attention."""
        from jaxdl.analysis.sequences import example_table

        maps, rows, count = [], {True: [], False: []}, {True: 0, False: 0}
        for batch in batches:
            logits, weights = predict(batch, free_running=True, return_attention=True)
            for i in np.flatnonzero(np.asarray(batch.get("weight", np.ones(len(logits)))) > 0):
                source = np.asarray(batch["inputs"])[i, : batch["lengths"][i]]
                tokens, target = logits[i].argmax(axis=-1), np.asarray(batch["targets"])[i]
                row = data.tokenizer.decode(source), *(text_of(data.target_tokenizer, ids) for ids in (target, tokens))
                right = row[1] == row[2]
                count[right] += 1
                if len(rows[right]) < MAX_EXAMPLES:
                    rows[right].append(row)
                if weights is not None and len(maps) < MAX_MAPS:
                    maps.append(_Map(weights[i], source, tokens, f"{row[0]} → {row[2]}"[:40]))
        if not rows[True] + rows[False]:
            return {}
        title = f"greedy decoding: {count[True]:,} of {sum(count.values()):,} right, {count[False]:,} wrong"
        figures = {"examples": example_table(rows[False] + rows[True], title)}
        return figures | ({"attention": _attention_figure(maps, data)} if maps else {})


@dataclasses.dataclass(frozen=True)
class _Map:
    """The attention of one example: weights [T, S], its source's ids, the decoded ids [T], and what it is called."""

    weights: np.ndarray
    source: np.ndarray
    tokens: np.ndarray
    title: str


def _attention_figure(maps: list[_Map], data):
    from jaxdl.analysis.sequences import attention_maps

    sources = [[data.tokenizer.decode([token]) for token in map_.source.tolist()] for map_ in maps]
    outputs = [pieces_of(data.target_tokenizer, map_.tokens) for map_ in maps]
    weights = [map_.weights[: len(o), : len(s)] for map_, s, o in zip(maps, sources, outputs)]
    return attention_maps(weights, sources, outputs, [map_.title for map_ in maps])


def _token_weight(batch) -> jax.Array:
    """1 for a target's tokens, 0 for padding and for examples of weight 0: float32 [B, T]."""
    real = jnp.arange(batch["targets"].shape[1])[None, :] < batch["target_lengths"][:, None]
    weight = batch.get("weight")
    return jnp.float32(real) if weight is None else real * weight[:, None]
