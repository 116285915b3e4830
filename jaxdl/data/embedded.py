"""The datasets that come with scikit-learn: small, real, and there without a download.

https://scikit-learn.org/stable/datasets/toy_dataset.html says where each is from.
"""

import dataclasses
from typing import ClassVar

import numpy as np

from jaxdl.data.base import Data, moments
from jaxdl.data.sources import ArraySource
from jaxdl.data.splits import SplitFlags


@dataclasses.dataclass(frozen=True)
class _Embedded(SplitFlags):
    """What the embedded datasets share.

    Attributes:
      standardize: inputs to mean 0 and standard deviation 1, by the statistics of the training split.
    """

    standardize: bool = True

    loader: ClassVar[str]

    def _load(self):
        from sklearn import datasets

        return getattr(datasets, self.loader)()


@dataclasses.dataclass(frozen=True)
class _Classification(_Embedded):
    """A labelled table, or images."""

    def load(self, data_dir: str = "") -> Data:
        """Inputs float32 [B, features], labels int32 [B]."""
        found = self._load()
        labels = found.target.astype(np.int32)
        splits = self.split(ArraySource({"inputs": self._inputs(found), "labels": labels}), labels, self.test_fraction)
        mean, std = moments(splits["train"]) if self.standardize else (None, None)
        names = tuple(str(name) for name in found.target_names)
        return Data(splits, num_classes=len(names), class_names=names, mean=mean, std=std)

    def _inputs(self, found) -> np.ndarray:
        return found.data.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Digits(_Classification):
    """1,797 handwritten digits of 8x8 pixels, ten classes: float32 [B, 8, 8, 1] in [0, 1] (17 levels)."""

    loader = "load_digits"

    def _inputs(self, found) -> np.ndarray:
        return (found.images[..., None] / 16).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Iris(_Classification):
    """150 irises, 4 measures, three species (Fisher 1936)."""

    loader = "load_iris"


@dataclasses.dataclass(frozen=True)
class Wine(_Classification):
    """178 wines, 13 measures, three growers."""

    loader = "load_wine"


@dataclasses.dataclass(frozen=True)
class BreastCancer(_Classification):
    """569 cell samples, 30 measures, malignant or benign (Wisconsin diagnostic)."""

    loader = "load_breast_cancer"


@dataclasses.dataclass(frozen=True)
class Diabetes(_Embedded):
    """442 patients, 10 measures, and the disease's progression a year later (Efron et al. 2004).

    Attributes:
      standardize_targets: targets to mean 0 and standard deviation 1, too; metrics stay in the original unit.
    """

    standardize_targets: bool = False

    loader = "load_diabetes"

    def load(self, data_dir: str = "") -> Data:
        """Inputs float32 [B, 10], targets float32 [B, 1] from 25 to 346."""
        found = self._load()
        arrays = {"inputs": found.data.astype(np.float32), "targets": found.target[:, None].astype(np.float32)}
        splits = self.split(ArraySource(arrays), test_fraction=self.test_fraction)
        mean, std = moments(splits["train"]) if self.standardize else (None, None)
        target_mean, target_std = moments(splits["train"], "targets") if self.standardize_targets else (None, None)
        return Data(splits, num_targets=1, mean=mean, std=std, target_mean=target_mean, target_std=target_std)
