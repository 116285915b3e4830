"""Language modelling: the next token from all before it, and texts that go on from a prompt.

Shapes: B examples, T tokens, V ids of the vocabulary, S samples.
"""

import dataclasses
import functools
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import decoding, losses, metrics
from jaxdl.errors import InputError
from jaxdl.tasks.base import Task, check_tokens
from jaxdl.types import NonNegativeFloat, NonNegativeInt, PositiveInt, Probability, Rate

FIGURE_LOGITS = 2**28
"""Logits that are computed for the figures at most: with a large vocabulary they are of a part of the split."""

PASSAGE = 512
"""Tokens of the text whose surprisal is drawn."""


@dataclasses.dataclass(frozen=True)
class TextSampler:
    """Texts that go on from a prompt.

    A model whose positions are limited reads on from the later half of what it can see whenever that is full.

    Attributes:
      prompt: the beginning of the text. Empty: the end-of-text token, after which a text begins, or a line break.
      num_samples: how many texts.
      max_tokens: tokens of each, without the prompt.
      temperature: divides the logits; below 1 prefers the probable, and 0 takes the most probable token.
      top_k: draw among so many of the most probable tokens; 0 is all.
      top_p: draw among the most probable tokens that have at least this probability together.
      beams: search so many beams for the most probable texts rather than draw; num_samples of them are given.
      context: tokens that the model sees at most; none is its max_length, where it has one.
      stop_at_end: whether a text ends with the end-of-text token.
    """

    prompt: str = ""
    num_samples: PositiveInt = 3
    max_tokens: PositiveInt = 500
    temperature: NonNegativeFloat = 0.8
    top_k: NonNegativeInt = 0
    top_p: Probability = 1.0
    beams: NonNegativeInt = 0
    context: PositiveInt | None = None
    stop_at_end: bool = True

    def sample(self, model, variables, data, key: jax.Array) -> dict[str, str]:
        """The texts, prompt included: `sample_0`, ...; beams best first.

        Args:
          model: with `start` and `step`, as `jaxdl.models.gpt.GPT` has them.
          variables: the model's.
          data: whose tokenizer the model was trained with.
          key: of the draws.

        Raises:
          InputError: a model that cannot generate, a prompt that is too long, or characters that are not in the
            vocabulary.
        """
        if not (hasattr(model, "start") and hasattr(model, "step")):
            raise InputError(f"model {type(model).__name__} cannot generate: it has no methods start and step.")
        tokenizer = data.tokenizer
        prompt = self._prompt(tokenizer)
        context = self.context or getattr(model, "max_length", None) or math.inf
        if len(prompt) > context:
            raise InputError(
                f"the prompt of {len(prompt)} tokens is longer than the {context} that the model can see; shorten it."
            )
        end = tokenizer.end_of_text if self.stop_at_end else None
        generate = jax.jit(functools.partial(self._generate, model, end), static_argnames="count")
        if self.beams:
            rows = self._search(generate, variables, prompt, context, key)
        else:
            rows = self._draw(generate, variables, prompt, context, key, end)
        return {f"sample_{number}": tokenizer.decode(_until(row, end, len(prompt))) for number, row in enumerate(rows)}

    def _prompt(self, tokenizer) -> np.ndarray:
        if self.prompt:
            prompt = tokenizer.encode(self.prompt)
        elif tokenizer.end_of_text is not None:
            prompt = np.array([tokenizer.end_of_text], np.int32)
        else:
            try:
                prompt = tokenizer.encode("\n")
            except InputError:
                prompt = np.zeros(0, np.int32)
        if not len(prompt):
            raise InputError(
                "the prompt is empty, and the model needs a token to begin with: give --prompt, such as a word "
                "of the training text."
            )
        return prompt

    def _generate(self, model, end, variables, tokens, key, count: int):
        """`count` tokens more of each row of `tokens` [S, T]: [S, count], or of beams [1, K, count]."""
        capacity = tokens.shape[1] + count - 1  # the last token is not read
        lengths = jnp.full(len(tokens), tokens.shape[1], jnp.int32)
        carry, logits = model.apply(variables, tokens, lengths, capacity, method="start")
        step = lambda carry, token: model.apply(variables, carry, token, method="step")
        if self.beams:
            return decoding.beam_search(step, carry, logits, count, beams=self.beams, end=end)[0]
        options = {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p}
        return decoding.sample(step, carry, logits, count, key, end=end, **options)[0]

    def _search(self, generate, variables, prompt, context, key) -> np.ndarray:
        if len(prompt) + self.max_tokens - 1 > context:
            raise InputError(
                f"a beam search sees prompt and text as a whole, and {len(prompt)} + {self.max_tokens} tokens are more "
                f"than the {context} that the model can see: lower --max_tokens."
            )
        found = np.asarray(generate(variables, prompt[None], key, count=self.max_tokens))[0, : self.num_samples]
        return np.concatenate([np.broadcast_to(prompt, (len(found), len(prompt))), found], axis=1)

    def _draw(self, generate, variables, prompt, context, key, end) -> np.ndarray:
        rows = np.broadcast_to(prompt, (self.num_samples, len(prompt)))
        total = len(prompt) + self.max_tokens
        while rows.shape[1] < total and not _ended(rows, end, len(prompt)):
            seen = rows if rows.shape[1] < context else rows[:, -max(1, context // 2) :]
            count = min(total - rows.shape[1], context - seen.shape[1] + 1)
            new = generate(variables, seen, jax.random.fold_in(key, rows.shape[1]), count=count)
            rows = np.concatenate([rows, np.asarray(new)], axis=1)
        return rows


@dataclasses.dataclass(frozen=True)
class LanguageModeling(Task):
    """The next token of a text: inputs, targets int32 [B, T], token_weight float32 [B, T], segments where packed.

    Attributes:
      label_smoothing: part of the probability that the target gives to all tokens evenly.
    """

    label_smoothing: Rate = 0.0

    sampler: ClassVar[type] = TextSampler

    def model_fields(self, data) -> dict:
        if data.tokenizer is None:
            raise InputError("language modelling needs text, and the dataset has none; try --dataset=text.")
        return {"vocab_size": data.tokenizer.vocab_size}

    def check(self, data) -> None:
        for split, source in data.splits.items():
            found = source[0]
            if not {"inputs", "targets", "token_weight"} <= set(found):
                raise InputError(
                    f"language modelling needs inputs, targets and token_weight, and split '{split}' has "
                    f"{', '.join(found)}; --dataset=text, tfds_text and stdlib have them."
                )
        for name in ("inputs", "targets"):
            check_tokens(data, data.tokenizer, name)

    def inputs(self, batch) -> tuple:
        return tuple(batch[name] for name in ("inputs", "segments") if name in batch)

    def loss(self, forward, batch, key, player="model"):
        logits, weight = forward(*self.inputs(batch)), _weight(batch)
        values = self._losses(logits, batch["targets"])
        return losses.share_of_mean(values, weight), {
            "loss": metrics.Mean.of(values, weight),
            "accuracy": metrics.Mean.of(logits.argmax(axis=-1) == batch["targets"], weight),
        }

    def evaluate(self, forward, batch):
        logits, targets, weight = forward(*self.inputs(batch)), batch["targets"], _weight(batch)
        nll = losses.softmax_cross_entropy(logits, targets)
        result = {
            "loss": metrics.Mean.of(self._losses(logits, targets), weight),
            "perplexity": metrics.ExpMean.of(nll, weight),
            "accuracy": metrics.Mean.of(logits.argmax(axis=-1) == targets, weight),
        }
        if "num_bytes" in batch:
            bits = jnp.where(weight > 0, nll * weight, 0.0).sum() / math.log(2)
            num_bytes = (batch["num_bytes"] * batch.get("weight", 1.0)).sum()
            result["bits_per_byte"] = metrics.Mean.of_sums(bits, num_bytes)
        return result

    def figures(self, predict, batches, data):
        from jaxdl import plots

        total, count, tokens, bits, computed = 0.0, 0.0, [], [], 0
        for batch in batches:
            logits = np.asarray(predict(batch), np.float32)
            nll = np.asarray(losses.softmax_cross_entropy(logits, batch["targets"]))
            weight = np.asarray(_weight(batch))
            total, count = total + (nll * weight).sum(axis=0), count + weight.sum(axis=0)
            if len(tokens) < PASSAGE:
                tokens += np.asarray(batch["targets"])[weight > 0].tolist()
                bits += (nll[weight > 0] / math.log(2)).tolist()
            computed += logits.size
            if computed > FIGURE_LOGITS:
                break
        if not tokens:
            return {}
        pieces = [data.tokenizer.decode([token]) for token in tokens[:PASSAGE]]
        return {
            "loss_by_position": plots.loss_by_position(total, count),
            "surprisal": plots.surprisal(pieces, np.array(bits[:PASSAGE])),
        }

    def _losses(self, logits, targets):
        return losses.softmax_cross_entropy(logits, targets, self.label_smoothing)


def _weight(batch) -> jax.Array:
    """The weight of each target, [B, T]: 0 for padding within an example, and for examples that fill up a batch."""
    return batch["token_weight"] if "weight" not in batch else batch["token_weight"] * batch["weight"][:, None]


def _until(row: np.ndarray, end: int | None, start: int) -> np.ndarray:
    """The row up to the first `end` at `start` or later."""
    ends = np.flatnonzero(row[start:] == end) if end is not None else ()
    return row[: start + ends[0]] if len(ends) else row


def _ended(rows: np.ndarray, end: int | None, start: int) -> bool:
    return end is not None and bool((rows[:, start:] == end).any(axis=1).all())
