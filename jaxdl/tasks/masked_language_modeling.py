"""Masked language modelling: hidden tokens of a text are told from all the others.

Devlin et al. 2018, BERT (arXiv:1810.04805), task 1 and appendix A.1; the masks are drawn anew each time that an example
is seen, as in Liu et al. 2019, RoBERTa (arXiv:1907.11692), section 4.1. Shapes: B examples, T tokens, K predictions of
an example, V ids of the vocabulary.
"""

import dataclasses
from typing import Annotated, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import losses, metrics
from jaxdl.data.sources import read
from jaxdl.errors import InputError
from jaxdl.layers.batch_axis import evaluation_keys, example_keys
from jaxdl.tasks.base import Task, check_tokens
from jaxdl.types import Bounds, PositiveInt, Probability

MASK = "[MASK]"
"""What stands in a text, and in the vocabulary, for a hidden token."""

Share = Annotated[float, Bounds(0, 1, exclusive_minimum=True)]


class Masked(NamedTuple):
    """A batch with hidden tokens.

    Attributes:
      tokens: int32 [B, T], as the model sees them.
      positions: int32 [B, K], which of them are asked for.
      targets: int32 [B, K], what stood there.
      weight: float32 [B, K], 1 for a prediction and 0 for a place that a shorter example leaves over.
    """

    tokens: jax.Array
    positions: jax.Array
    targets: jax.Array
    weight: jax.Array


def hide_tokens(
    keys: jax.Array,
    tokens: jax.Array,
    real: jax.Array,
    *,
    size: int,
    mask_id: int,
    probability: float = 0.15,
    random_share: float | jax.Array = 0.1,
    keep_share: float | jax.Array = 0.1,
) -> Masked:
    """Chooses `probability` of the tokens of each example and hides them.

    Of n tokens max(1, round(probability * n)) are chosen, all choices being equally likely. A chosen token becomes
    any of the vocabulary, uniformly, with the probability `random_share`, stays with `keep_share`, and else becomes
    `mask_id`.

    Args:
      keys: random keys [B].
      tokens: int32 [B, T].
      real: bool [B, T]; False for padding, which is never chosen.
      size: V.
      mask_id: the id that hides a token.
      probability: in (0, 1); not traced, as it decides K.
      random_share: in [0, 1]; may be traced.
      keep_share: in [0, 1 - random_share]; may be traced.
    """
    length = tokens.shape[1]
    # From the number of real tokens to that of the chosen ones; none of none.
    chosen_of = np.array([max(1, round(probability * n)) if n else 0 for n in range(length + 1)], np.int32)
    places = int(chosen_of[-1])

    def one(key, tokens, real):
        choice_key, fate_key, random_key = jax.random.split(key, 3)
        rank = jnp.where(real, jax.random.uniform(choice_key, (length,)), -1.0)
        positions = jax.lax.top_k(rank, places)[1].astype(jnp.int32)
        weight = jnp.arange(places) < jnp.asarray(chosen_of)[real.sum()]
        targets = tokens[positions]
        fate = jax.random.uniform(fate_key, (places,))
        replacement = jnp.where(fate < random_share, jax.random.randint(random_key, (places,), 0, size), mask_id)
        stays = ~weight | (fate >= 1 - keep_share)
        seen = tokens.at[positions].set(jnp.where(stays, targets, replacement).astype(tokens.dtype))
        return Masked(seen, positions, targets, weight.astype(jnp.float32))

    return jax.vmap(one)(keys, tokens, real)


class Vocabulary(NamedTuple):
    """What hiding a token needs to know of the vocabulary: how many ids it has, and which of them is the mask."""

    size: int
    mask_id: int

    @classmethod
    def of(cls, data) -> "Vocabulary":
        """Raises InputError where the data has no vocabulary, or one without a mask."""
        if data.tokenizer is None:
            raise InputError("masked language modelling needs text, and the dataset has none; try --dataset=text.")
        # Bytes and characters have no tokens beside their text.
        mask_id = getattr(data.tokenizer, "token_id", lambda token: None)(MASK)
        if mask_id is None:
            raise InputError(
                f"the vocabulary has no {MASK}: take --dataset.tokenizer=word --dataset.special_tokens={MASK}, "
                "or a tokenizer file that has it."
            )
        return cls(data.tokenizer.vocab_size, mask_id)


@dataclasses.dataclass(frozen=True)
class FillMasks:
    """Fills the masks of a text.

    Attributes:
      text: a text with [MASK] in it, once or several times; empty: held-out texts of the data, with tokens hidden.
      num_samples: how many held-out texts.
      num_guesses: how many guesses are told for each mask.
    """

    text: str = ""
    num_samples: PositiveInt = 3
    num_guesses: PositiveInt = 5

    def sample(self, model, variables, data, key: jax.Array) -> dict[str, str]:
        """Each text with its masks, with the most probable tokens in their place, and the best guesses for each.

        Args:
          model: such as `MaskedBert`.
          variables: the model's.
          data: whose tokenizer the model was trained with.
          key: for what is hidden of the held-out texts.

        Raises:
          InputError: a text without a mask, or with what the vocabulary has not.
        """
        vocabulary = Vocabulary.of(data)
        examples = [self._given(data, vocabulary)] if self.text else self._held_out(data, vocabulary, key)
        apply = jax.jit(lambda variables, tokens: model.apply(variables, tokens, train=False))
        result = {}
        for index, (tokens, positions, targets) in enumerate(examples):
            logits = apply(variables, jnp.asarray(tokens[None], jnp.int32))[0, positions]
            result[str(index)] = self._told(
                data.tokenizer, tokens, positions, targets, np.asarray(jax.nn.softmax(logits))
            )
        return result

    def _given(self, data, vocabulary: Vocabulary):
        parts = self.text.split(MASK)
        if len(parts) == 1:
            raise InputError(f"--text={self.text!r} has no {MASK} to fill.")
        encoded = [data.tokenizer.encode(part) for part in parts]
        tokens = np.concatenate([piece for part in encoded for piece in ([vocabulary.mask_id], part)][1:])
        return tokens, np.flatnonzero(tokens == vocabulary.mask_id), None

    def _held_out(self, data, vocabulary: Vocabulary, key: jax.Array):
        source = next(data.splits[name] for name in ("validation", "test", "train") if name in data.splits)
        rows = np.arange(min(self.num_samples, len(source)))
        batch = {name: jnp.asarray(value) for name, value in read(source, rows, data.collate).items()}
        real = real_tokens(batch)
        masked = hide_tokens(
            jax.random.split(key, len(rows)),
            batch["inputs"],
            real,
            random_share=0,
            keep_share=0,
            **vocabulary._asdict(),
        )
        for tokens, positions, targets, weight, length in zip(
            *jax.device_get((*masked, real.sum(axis=1))), strict=True
        ):
            order = np.argsort(positions[weight > 0])
            yield tokens[:length], positions[weight > 0][order], targets[weight > 0][order]

    def _told(self, tokenizer, tokens, positions, targets, probabilities) -> str:
        filled = tokens.copy()
        filled[positions] = probabilities.argmax(axis=-1)
        pieces = np.split(tokens, np.stack([positions, positions + 1], axis=-1).ravel())
        words = [MASK if index % 2 else tokenizer.decode(piece) for index, piece in enumerate(pieces)]
        lines = ["hidden: " + " ".join(filter(None, words)), "filled: " + tokenizer.decode(filled)]
        for index, row in enumerate(probabilities):
            best = np.argsort(-row)[: self.num_guesses]
            guesses = ", ".join(f"{tokenizer.decode([token])} {row[token]:.2f}" for token in best)
            was = "" if targets is None else f"  (it was: {tokenizer.decode([targets[index]])})"
            lines.append(f"{index + 1}. {guesses}{was}")
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class MaskedLanguageModeling(Task):
    """Hidden tokens from what stands around them: inputs int32 [B, T] of a vocabulary that has [MASK].

    Attributes:
      mask_probability: share of the tokens that is asked for in training.
      evaluation_probability: the same in evaluation, where it is to be comparable.
      random_share: share of these that is replaced by any token of the vocabulary instead of the mask.
      keep_share: share of these that the model sees as they are.
      vocabulary: ids of the data's vocabulary, which `for_data` fills in.
    """

    mask_probability: Share = 0.15
    evaluation_probability: Share = 0.15
    random_share: Probability = 0.1
    keep_share: Probability = 0.1
    vocabulary: Vocabulary | None = None

    untraceable: ClassVar[tuple[str, ...]] = ("mask_probability", "evaluation_probability")
    sampler: ClassVar[type] = FillMasks

    def for_data(self, data) -> "MaskedLanguageModeling":
        return dataclasses.replace(self, vocabulary=Vocabulary.of(data))

    def model_fields(self, data) -> dict:
        return {"vocab_size": data.tokenizer.vocab_size}

    def check(self, data) -> None:
        if self.random_share + self.keep_share > 1:
            raise InputError(
                f"--task.random_share={self.random_share:g} and --task.keep_share={self.keep_share:g} "
                "are more than all together."
            )
        check_tokens(data, data.tokenizer)

    def loss(self, forward, batch, key, player="model"):
        masked = self.hide(example_keys(key, len(batch["inputs"])), batch, self.mask_probability)
        values, correct, weight = self._predict(forward, batch, masked)
        return losses.share_of_mean(values, weight), _metrics(values, correct, weight)

    def evaluate(self, forward, batch):
        return _metrics(*self._predict(forward, batch, self.hide_for_evaluation(batch)))

    def hide_for_evaluation(self, batch) -> Masked:
        """The batch with the tokens hidden that every evaluation hides of the examples `batch["index"]`, int32 [B]."""
        return self.hide(evaluation_keys(batch["index"]), batch, self.evaluation_probability)

    def hide(self, keys: jax.Array, batch, probability: float) -> Masked:
        """The batch with a share of the tokens hidden, drawn with keys [B]."""
        return hide_tokens(
            keys,
            batch["inputs"],
            real_tokens(batch),
            probability=probability,
            random_share=self.random_share,
            keep_share=self.keep_share,
            **self.vocabulary._asdict(),
        )

    def _predict(self, forward, batch, masked: Masked):
        """Loss, whether it is right, and weight of each prediction, all [B, K]."""
        lengths = batch.get("lengths")
        if lengths is None and "segments" not in batch and "token_weight" in batch:
            lengths = real_tokens(batch).sum(axis=1)
        logits = forward(masked.tokens, lengths, batch.get("segments"), positions=masked.positions)
        weight = masked.weight
        if "weight" in batch:
            weight = weight * batch["weight"][:, None]
        correct = metrics.top_k_correct(logits, masked.targets, k=1)
        return losses.softmax_cross_entropy(logits, masked.targets), correct, weight


def real_tokens(batch) -> jax.Array:
    """Which inputs are no padding, bool [B, T]: those of a segment, of the first `lengths`, or with a target."""
    if "segments" in batch:
        return batch["segments"] > 0
    if "lengths" in batch:
        return jnp.arange(batch["inputs"].shape[1])[None] < batch["lengths"][:, None]
    if "token_weight" in batch:
        return batch["token_weight"] > 0
    return jnp.ones(batch["inputs"].shape, bool)


def _metrics(values: jax.Array, correct: jax.Array, weight: jax.Array) -> dict[str, metrics.Metric]:
    return {
        "loss": metrics.Mean.of(values, weight),
        "perplexity": metrics.ExpMean.of(values, weight),
        "accuracy": metrics.Mean.of(correct, weight),
    }
