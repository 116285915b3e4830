"""Contrastive learning without labels: two views of an example are alike, and unlike those of all others.

Chen et al. 2020, A simple framework for contrastive learning of visual representations, arXiv:2002.05709 (SimCLR).

The model that flags choose is the encoder, without its last layer; the task adds the projection head. What it has
learned is judged by its features (`python -m launch.probe`), or by training a layer on them, as an ordinary run:
`--task=classification --initialize_from=RUN --freeze=...`.

Shapes: B examples, H x W pixels, F features, D features of a projection.
"""

import dataclasses
from typing import ClassVar

import jax
import numpy as np

from jaxdl import losses, metrics
from jaxdl.analysis import neighbors
from jaxdl.errors import InputError
from jaxdl.models.contrastive import Contrastive
from jaxdl.tasks.base import Task
from jaxdl.types import PositiveFloat, PositiveInt

QUERIES, NEIGHBORS = 10, 8  # rows and columns of the sheet of nearest neighbours
SEARCHED = 2000  # examples among which they are looked for


@dataclasses.dataclass(frozen=True)
class ContrastiveLearning(Task):
    """Which two views of a batch are of the same example (SimCLR): inputs [B, ...], labels or none.

    The negatives of a view are all other views of the batch, those on other devices included; under gradient
    accumulation, those of its microbatch, and the loss is another one. Evaluation compares views that are drawn by an
    example's place in its split, within an evaluation batch: its loss depends on --eval_batch_size.

    Attributes:
      temperature: divides the cosine similarities.
      hidden_width: units of the projection head's hidden layer.
      projection_width: features of a projection.
    """

    temperature: PositiveFloat = 0.5
    hidden_width: PositiveInt = 2048
    projection_width: PositiveInt = 128

    views: ClassVar[int] = 2

    def model_fields(self, data) -> dict:
        return {"num_outputs": 0}

    def wrap(self, model) -> Contrastive:
        return Contrastive(model, self.hidden_width, self.projection_width)

    def check(self, data) -> None:
        for split, source in data.splits.items():
            shape = np.shape(source[0]["inputs"])
            if len(shape) != 3:
                raise InputError(
                    f"contrastive learning needs images [height, width, channels], and the inputs of split '{split}' "
                    f"are {list(shape)}."
                )

    def inputs(self, batch):
        return (batch["inputs"],)

    def loss(self, forward, batch, key, player="model"):
        values, correct = self._compared(forward, batch)
        weight = batch.get("weight")
        return losses.share_of_mean(values, weight), {
            "loss": metrics.Mean.of(values, weight),
            "accuracy": metrics.Mean.of(correct, weight),
        }

    def evaluate(self, forward, batch):
        values, correct = self._compared(forward, batch)
        weight = batch.get("weight")
        return {"loss": metrics.Mean.of(values, weight), "accuracy": metrics.Mean.of(correct, weight)}

    def figures(self, predict, batches, data):
        from jaxdl import plots

        images, features, count = [], [], 0
        for batch in batches:
            real = np.asarray(batch.get("weight", np.ones(len(batch["inputs"])))) > 0
            images.append(np.asarray(data.decode(batch)["inputs"])[real])
            features.append(np.asarray(predict(batch, method="features"))[real])
            count += real.sum()
            if count >= SEARCHED:
                break
        images, features = np.concatenate(images), np.concatenate(features)
        queries = np.linspace(0, len(images) - 1, min(QUERIES, len(images)), dtype=int)
        places, similarity = neighbors.nearest(features[queries], features, min(NEIGHBORS, len(images)))
        captions = [f"{value:.2f}" if column else "query" for row in similarity for column, value in enumerate(row)]
        sheet = plots.image_sheet(
            images[places.ravel()],
            captions,
            title=f"nearest of {len(images)} by the cosine of the encoder's features",
            columns=places.shape[1],
        )
        return {"neighbors": sheet}

    def _compared(self, forward, batch) -> tuple[jax.Array, jax.Array]:
        """The loss of each example, and the share of its two views whose nearest view is the other one: [B]."""
        inputs = batch["inputs"]  # [B, 2, H, W, C]
        projections = forward(inputs.reshape(-1, *inputs.shape[2:])).reshape(*inputs.shape[:2], -1)
        logits, labels = losses.nt_xent_logits(projections, self.temperature, batch.get("weight"))
        values, correct = losses.softmax_cross_entropy(logits, labels), metrics.top_k_correct(logits, labels, k=1)
        return values.mean(axis=1), correct.mean(axis=1)
