"""What a dataset gives: its splits and what the training needs to know of them.

A dataset is a frozen dataclass of flags with `load(self, data_dir: str) -> Data`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxdl.data import sources
from jaxdl.data.tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """The splits of a dataset and their meaning.

    Attributes:
      splits: "train", and "validation" and "test" where there are, each a `Source`.
      num_classes: of a classification.
      class_names: [num_classes], for plots and messages.
      num_targets: T of a regression.
      mean: float32 [channels or features] of the decoded training inputs; None: they are not standardised.
      std: float32, like `mean`; 1 where an input is constant.
      target_mean: float32 [T] of the training targets; None: they are not standardised.
      target_std: float32 [T].
      collate: list of examples -> batch, in place of stacking.
      tokenizer: what made the inputs out of text; None: they are no tokens.
      token_counts: int64 [vocab_size], how often each token is in the training text; None: not counted.
      target_tokenizer: what made the targets of sequence to sequence out of text.
      environment: what an agent learns in (`jaxdl.environments.base`); `inputs` are numbers of episodes then.
    """

    splits: Mapping[str, sources.Source]
    num_classes: int | None = None
    class_names: tuple[str, ...] | None = None
    num_targets: int | None = None
    mean: np.ndarray | None = None
    std: np.ndarray | None = None
    target_mean: np.ndarray | None = None
    target_std: np.ndarray | None = None
    collate: sources.Collate | None = None
    tokenizer: Tokenizer | None = None
    token_counts: np.ndarray | None = None
    target_tokenizer: Tokenizer | None = None
    environment: Any = None

    def decode(self, batch: dict) -> dict:
        """On the device: uint8 `inputs` become float32 in [0, 1]; everything else stays."""
        inputs = batch["inputs"]
        if inputs.dtype != jnp.uint8:
            return batch
        return batch | {"inputs": jnp.asarray(inputs, jnp.float32) / 255}

    def standardize(self, batch: dict) -> dict:
        """On the device: (x - mean) / std of decoded `inputs`, and of `targets` where the dataset asks for it.

        Standardised targets come with `target_std`, [B, T].
        """
        result = dict(batch)
        if self.mean is not None:
            result["inputs"] = (batch["inputs"] - _last_axis(self.mean, batch["inputs"])) / _last_axis(
                self.std, batch["inputs"]
            )
        if self.target_mean is not None and "targets" in batch:
            result["targets"] = (batch["targets"] - _last_axis(self.target_mean, batch["targets"])) / _last_axis(
                self.target_std, batch["targets"]
            )
            # Rows carry their unit, so that a task can give its metrics in the targets' own.
            result["target_std"] = jnp.broadcast_to(
                _last_axis(self.target_std, batch["targets"]), batch["targets"].shape
            )
        return result


def _last_axis(statistic: np.ndarray, like) -> np.ndarray:
    """[C] -> [1, ..., 1, C], for arrays of the rank of `like`: rank promotion is never left to JAX."""
    return statistic.reshape((1,) * (like.ndim - 1) + statistic.shape)


def moments(source: sources.Source, name: str = "inputs", limit: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over examples and all axes but the last, uint8 counted in units of 255.

    Args:
      source: the training split, and no other.
      name: which array of an example.
      limit: at most so many examples, evenly spaced; None is all of them.

    Returns:
      mean, std: float32 [last axis]. A constant feature has std 1, so that standardising leaves it at 0.
    """
    size = len(source) if limit is None else min(limit, len(source))
    count, mean, deviations = 0, 0.0, 0.0
    for rows in sources.chunks(size):
        values = sources.read(source, rows * len(source) // size)[name]
        unit = 255 if values.dtype == np.uint8 else 1
        values = values.reshape(-1, values.shape[-1]).astype(np.float64) / unit
        # Chan, Golub and LeVeque 1979, (2.1): chunks merged without cancellation.
        added, shift = len(values), values.mean(axis=0) - mean
        deviations += ((values - values.mean(axis=0)) ** 2).sum(axis=0) + shift**2 * count * added / (count + added)
        mean, count = mean + shift * added / (count + added), count + added
    variance = deviations / count
    # The variance that rounding alone gives a constant feature, as scikit-learn bounds it (Chan et al., section 3).
    rounding = count * np.finfo(np.float64).eps
    constant = variance <= rounding * variance + (rounding * mean) ** 2
    return mean.astype(np.float32), np.where(constant, 1, np.sqrt(variance)).astype(np.float32)
