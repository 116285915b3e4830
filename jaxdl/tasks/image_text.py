"""Images and texts that belong together: contrastive pretraining, retrieval, and classification by sentences.

Radford et al. 2021, Learning transferable visual models from natural language supervision, arXiv:2103.00020 (CLIP).

A batch has `inputs`, images [B, H, W, C], `captions` int32 [B, K, T] and `caption_lengths` int32 [B, K], 0 where an
image has fewer than K; and `labels` int32 [B] where images have classes (`jaxdl.data.image_captions`). A model gives
[B, 2, D] for images, tokens and lengths, and has `encode_image` and `encode_text`, as `jaxdl.models.clip.CLIP`.

Shapes: B examples, N of all shards, K captions of an image, T tokens, D features of the common space, L classes.
"""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import losses, metrics
from jaxdl.analysis import neighbors
from jaxdl.data.sequences import pad
from jaxdl.data.sources import read
from jaxdl.data.tokenizers import WordTokenizer
from jaxdl.errors import InputError
from jaxdl.layers.batch_axis import batch_gather, example_keys, gathered_positions
from jaxdl.tasks.base import Task
from jaxdl.types import PositiveInt

RECALLS = (1, 5, 10)
_BATCH = 100  # examples that the sampler encodes at a time


@dataclasses.dataclass(frozen=True)
class Retrieval:
    """Which images a text finds, and how often images and texts find their own.

    Attributes:
      text: a sentence whose images are shown. Empty: captions of the split.
      count: images shown for a text.
      split: where images and captions are from; none is test, validation or train, the first that there is.
      examples: so many images of the split, from its beginning, are searched.
    """

    text: str = ""
    count: PositiveInt = 5
    split: str | None = None
    examples: PositiveInt = 1000

    def sample(self, model, variables, data, key: jax.Array, sentences=None) -> dict[str, Any]:
        """`retrieval`, a text of recall@K beside chance; `retrieved`, a sheet of texts and the images that they find.

        Args:
          model: with `encode_image` and `encode_text`.
          variables: the model's.
          data: with captions, and labels where images have classes.
          key: nothing is drawn.
          sentences: a sentence for each class as tokens [L, T] and lengths [L], for `zero_shot`, its accuracy.

        Raises:
          InputError: no such split, or a text with words that no training caption has.
        """
        from jaxdl import plots

        split = self.split or next(name for name in ("test", "validation", "train") if name in data.splits)
        if split not in data.splits:
            raise InputError(f"--split={split}: this dataset has {', '.join(data.splits)}.")
        apply = jax.jit(functools.partial(model.apply, train=False), static_argnames="method")
        encode = functools.partial(apply, variables, method="encode_text")
        queries = [_known_tokens(data.tokenizer, self.text, "--text")] if self.text else []
        batch, images, texts = self._encoded(data, split, functools.partial(apply, variables))
        lengths = np.asarray(batch["caption_lengths"])
        real, owner = lengths.ravel() > 0, np.repeat(np.arange(len(images)), lengths.shape[1])
        of_text = owner[real]
        classes = np.asarray(batch["labels"]) if "labels" in batch else np.arange(len(images))
        similarity, relevant = images @ texts[real].T, classes[:, None] == classes[of_text][None]
        lines = [f"{len(images)} images and {real.sum()} texts of {split}, per cent (chance)"]
        for name, values, right in (
            ("image to text", similarity, relevant),
            ("text to image", similarity.T, relevant.T),
        ):
            found, chance = neighbors.recall_at(values, right, RECALLS), neighbors.chance_recall_at(right, RECALLS)
            told = ", ".join(f"recall@{k} {100 * found[k]:.1f} ({100 * chance[k]:.1f})" for k in RECALLS)
            lines.append(f"{name}: {told}")
        if sentences is not None and "labels" in batch:
            predicted = (images @ np.asarray(encode(*sentences), np.float32).T).argmax(axis=1)
            share = 100 / len(sentences[0])
            lines.append(f"zero-shot accuracy: {100 * (predicted == batch['labels']).mean():.2f} ({share:.1f})")
        if queries:
            tokens, of_query = pad(queries, 0, max(len(queries[0]), lengths.max()))
            vectors, captions = np.asarray(encode(tokens, of_query), np.float32), [self.text]
            right = np.zeros((1, len(images)), bool)
        else:
            shown = np.unique(np.linspace(0, real.sum() - 1, min(8, real.sum()), dtype=int))
            vectors, right = texts[real][shown], relevant.T[shown]
            rows = np.asarray(batch["captions"]).reshape(len(real), -1)[real][shown]
            captions = [
                data.tokenizer.decode(row[: length - 1]) for row, length in zip(rows, lengths.ravel()[real][shown])
            ]
        places, cosines = neighbors.nearest(vectors, images, min(self.count, len(images)))
        pixels = np.asarray(data.decode(batch)["inputs"])
        sheet = plots.retrieved(
            captions, [pixels[row] for row in places], cosines, np.take_along_axis(right, places, axis=1)
        )
        return {"retrieval": "\n".join(lines), "retrieved": sheet}

    def _encoded(self, data, split: str, apply) -> tuple[dict, np.ndarray, np.ndarray]:
        """The raw batch of all that is searched, and the unit vectors of images [N, D] and texts [N * K, D]."""
        count = min(self.examples, len(data.splits[split]))
        batch = read(data.splits[split], np.arange(count), data.collate)
        images, texts = [], []
        for start in range(0, count, _BATCH):
            rows = np.minimum(np.arange(start, start + _BATCH), count - 1)  # one shape for all
            part = {name: np.asarray(values)[rows] for name, values in batch.items()}
            tokens, lengths = _flat_captions(part)
            real = min(_BATCH, count - start)
            inputs = data.standardize(data.decode(part))["inputs"]
            images.append(np.asarray(apply(inputs, method="encode_image"), np.float32)[:real])
            encoded = np.asarray(apply(tokens, lengths, method="encode_text"), np.float32)
            texts.append(encoded[: real * part["captions"].shape[1]])
        return batch, np.concatenate(images), np.concatenate(texts)


@dataclasses.dataclass(frozen=True)
class ImageText(Task):
    """Which text of the batch belongs to an image, and which image to a text (CLIP): the mean of two cross-entropies.

    The others of the batch are those on other devices, too; under gradient accumulation, those of the microbatch, and
    the loss is another one. Of several captions training takes one at random. Evaluation has the loss of the first
    captions, and recall@K of all of them, both among the pairs of an evaluation batch (`launch.sample` has the whole
    split): an image finds any caption of its own, or of its class where images have labels, among the K most similar.

    Attributes:
      prompt: a sentence in which {} stands for the name of a class, for classification where images have labels.
      sentences: the sentences of all classes as tokens and lengths; from the data, no flag.
    """

    prompt: str = "a photo of a {}"
    sentences: tuple[np.ndarray, np.ndarray] | None = dataclasses.field(default=None, compare=False, repr=False)

    selection: ClassVar[tuple[str, str]] = ("accuracy", "max")
    sampler: ClassVar[type] = Retrieval

    def for_data(self, data) -> "ImageText":
        self.check(data)
        if data.class_names is None:
            return self
        if self.prompt.count("{}") != 1:
            raise InputError(f"--task.prompt='{self.prompt}' must have {{}} once, for the name of a class.")
        sentences = [self.prompt.format(name) for name in data.class_names]
        encoded = [_known_tokens(data.tokenizer, sentence, "--task.prompt") for sentence in sentences]
        return dataclasses.replace(self, sentences=pad(encoded, 0, max(map(len, encoded))))

    def model_fields(self, data) -> dict:
        return {"vocab_size": data.tokenizer.vocab_size}

    def check(self, data) -> None:
        example = data.splits["train"][0]
        if data.tokenizer is None or not {"inputs", "captions", "caption_lengths"} <= set(example):
            raise InputError(
                f"image_text needs images with captions, and this dataset has {', '.join(example)}: take "
                "--dataset=image_captions, or idx_captions and the like for labelled images."
            )

    def inputs(self, batch):
        """Images, and the first caption of each."""
        return batch["inputs"], batch["captions"][:, 0], batch["caption_lengths"][:, 0]

    def sample(self, sampler, model, variables, data, key):
        return sampler.sample(model, variables, data, key, self.sentences)

    def loss(self, forward, batch, key, player="model"):
        def choose(key, captions, lengths):
            place = jax.random.randint(key, (), 0, (lengths > 0).sum())
            return captions[place], lengths[place]

        keys = example_keys(key, len(batch["inputs"]))
        tokens, lengths = jax.vmap(choose)(keys, batch["captions"], batch["caption_lengths"])
        pairs, weight = forward(batch["inputs"], tokens, lengths), batch.get("weight")
        values, correct = _compared(pairs, weight)
        return losses.share_of_mean(values, weight), {
            "loss": metrics.Mean.of(values, weight),
            "accuracy": metrics.Mean.of(correct, weight),
            "scale": metrics.Last.of(jnp.linalg.norm(pairs[0, 0])),
        }

    def evaluate(self, forward, batch):
        weight = batch["weight"]
        pairs = forward(*self.inputs(batch))
        values, correct = _compared(pairs, weight)
        result = {"loss": metrics.Mean.of(values, weight), "accuracy": metrics.Mean.of(correct, weight)}
        images, texts = pairs[:, 0], forward(*_flat_captions(batch), method="encode_text")
        num_captions = batch["captions"].shape[1]
        of_text = (weight[:, None] * (batch["caption_lengths"] > 0)).reshape(-1)
        classes = batch.get("labels", gathered_positions(len(images)))
        of_texts = jnp.repeat(classes, num_captions)
        for name, queries, keys, own, others, counted, known in (
            ("image_to_text", images, texts, classes, of_texts, weight, of_text),
            ("text_to_image", texts, images, of_texts, classes, of_text, weight),
        ):
            relevant = own[:, None] == batch_gather(others)[None]
            ranks = _ranks(queries @ batch_gather(keys).T, relevant, batch_gather(known))
            for count in RECALLS:
                result[f"{name}_recall_at_{count}"] = metrics.Mean.of(ranks < count, counted)
        if self.sentences is not None and "labels" in batch:
            of_class = forward(*map(jnp.asarray, self.sentences), method="encode_text")
            right = metrics.top_k_correct(images @ of_class.T, batch["labels"], k=1)
            result["zero_shot_accuracy"] = metrics.Mean.of(right, weight)
        return result


def _compared(pairs: jax.Array, weight) -> tuple[jax.Array, jax.Array]:
    """The loss of each pair [B, 2, D], and the share of its two halves to which the other is the most similar: [B]."""
    logits = [losses.batch_logits(pairs[:, half], pairs[:, 1 - half], weight) for half in (0, 1)]
    values = sum(losses.softmax_cross_entropy(*of_half) for of_half in logits) / 2
    return values, sum(metrics.top_k_correct(*of_half, k=1) for of_half in logits) / 2


def _ranks(similarity: jax.Array, relevant: jax.Array, known: jax.Array) -> jax.Array:
    """As `neighbors.ranks`, [Q] from [Q, N], among the candidates whose `known` [N] is not 0."""
    best = jnp.where(relevant & (known > 0)[None], similarity, -jnp.inf).max(axis=1, keepdims=True)
    return (~relevant & (known > 0)[None] & (similarity >= best)).sum(axis=1)


def _flat_captions(batch) -> tuple[Any, Any]:
    """Tokens [B * K, T] and lengths [B * K]; a caption that is not there has one token, any, and must not count."""
    tokens, lengths = batch["captions"], batch["caption_lengths"]
    return tokens.reshape(-1, tokens.shape[-1]), lengths.reshape(-1).clip(1)


def _known_tokens(tokenizer, text: str, flag: str) -> np.ndarray:
    """The ids of a sentence and its end. Raises: InputError for a word that no training caption has."""
    tokens = tokenizer.encode(text)
    if isinstance(tokenizer, WordTokenizer) and (tokens == 0).any():
        word = text.split()[int((tokens == 0).argmax())]
        raise InputError(f"{flag}: no training caption has the word '{word}' of '{text}'; use words that they have.")
    return np.append(tokens, np.int32(tokenizer.end_of_text))
