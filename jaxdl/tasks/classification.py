"""Classification into two or more classes.

Shapes: B examples, C classes. Two classes take a model of one output, the log odds of class 1 (logistic
regression); it is read as the logits (0, output), so that there is one definition of every loss and metric.
A model of two outputs serves two classes as well.
"""

import dataclasses
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import losses, metrics
from jaxdl.errors import InputError
from jaxdl.tasks.base import Task, check_in_memory, check_tokens
from jaxdl.types import Probability

MAX_MISTAKES = 40  # images on the sheet of misclassified ones


def class_logits(outputs: jax.Array) -> jax.Array:
    """Logits [B, C] from a model's outputs [B, C], or from log odds [B, 1]."""
    if outputs.shape[-1] > 1:
        return outputs
    return jnp.concatenate([jnp.zeros_like(outputs), outputs], axis=-1)


@dataclasses.dataclass(frozen=True)
class Classification(Task):
    """One class out of several for each example: labels int [B].

    Attributes:
      loss_function: what is minimised; the model's outputs are logits for cross_entropy, else scores.
      label_smoothing: share of the label's probability that is spread over all classes; cross_entropy only.
      class_weights: factor of each class in the loss, in class order; empty for none.
    """

    loss_function: Literal["cross_entropy", "perceptron", "hinge"] = "cross_entropy"
    label_smoothing: Probability = 0.0
    class_weights: tuple[float, ...] = ()

    selection: ClassVar[tuple[str, str]] = ("accuracy", "max")

    def model_fields(self, data) -> dict:
        fields = {"num_outputs": 1 if data.num_classes == 2 else data.num_classes}
        return fields if data.tokenizer is None else fields | {"vocab_size": data.tokenizer.vocab_size}

    def check(self, data) -> None:
        if data.num_classes is None:
            raise InputError("classification needs classes, and the dataset has none; try --task=regression.")
        if data.num_classes < 2:
            raise InputError(f"classification needs at least 2 classes and this dataset has {data.num_classes}.")
        if self.class_weights and len(self.class_weights) != data.num_classes:
            values = f"{len(self.class_weights)} values for the dataset's {data.num_classes} classes"
            raise InputError(f"--task.class_weights has {values}.")
        if min(self.class_weights, default=0) < 0:
            raise InputError(f"--task.class_weights must be at least 0, and one is {min(self.class_weights):g}.")
        if self.loss_function != "cross_entropy" and self.label_smoothing != 0:
            raise InputError(f"--task.label_smoothing has no meaning for --task.loss_function={self.loss_function}.")
        check_in_memory(data, "labels")
        check_tokens(data, data.tokenizer)

    def loss(self, forward, batch, key, player="model"):
        logits = class_logits(forward(*self.inputs(batch)))
        values = _mixed(self._losses, logits, batch)
        correct = _mixed(lambda *args: metrics.top_k_correct(*args, k=1), logits, batch)
        weight = batch.get("weight")
        return losses.share_of_mean(values, weight), {
            "loss": metrics.Mean.of(values, weight),
            "accuracy": metrics.Mean.of(correct, weight),
        }

    def evaluate(self, forward, batch):
        logits, labels, weight = class_logits(forward(*self.inputs(batch))), batch["labels"], batch.get("weight")
        correct = metrics.top_k_correct(logits, labels, k=1)
        confidence = jax.nn.softmax(logits).max(axis=-1)
        result = {
            "loss": metrics.Mean.of(self._losses(logits, labels), weight),
            "accuracy": metrics.Mean.of(correct, weight),
            "nll": metrics.Mean.of(losses.softmax_cross_entropy(logits, labels), weight),
            "calibration_error": metrics.Calibration.of(confidence, correct, weight),
            "confusion_matrix": metrics.ConfusionMatrix.of(logits.argmax(axis=-1), labels, logits.shape[-1], weight),
        }
        if logits.shape[-1] > 5:
            result["top5_accuracy"] = metrics.Mean.of(metrics.top_k_correct(logits, labels, k=5), weight)
        return result

    def figures(self, predict, batches, data):
        from jaxdl import plots

        names = data.class_names or tuple(str(label) for label in range(data.num_classes))
        counts = np.zeros((data.num_classes, data.num_classes), np.int64)
        calibration, mistakes = None, []
        for batch in batches:
            real = np.asarray(batch.get("weight", np.ones(len(batch["labels"])))) > 0
            labels = np.asarray(batch["labels"])[real]
            probabilities = np.asarray(jax.nn.softmax(class_logits(jnp.asarray(predict(batch)))))[real]
            predicted, confidence = probabilities.argmax(axis=-1), probabilities.max(axis=-1)
            np.add.at(counts, (labels, predicted), 1)
            part = jax.device_get(metrics.Calibration.of(confidence, predicted == labels))
            calibration = part if calibration is None else calibration.merge(part)
            if np.ndim(batch["inputs"]) == 4:
                images = np.asarray(data.decode(batch)["inputs"])[real]
                mistakes += [
                    (confidence[i], images[i], _caption(names[labels[i]], names[predicted[i]], confidence[i]))
                    for i in np.flatnonzero(predicted != labels)
                ]
                mistakes = sorted(mistakes, key=lambda mistake: -mistake[0])[:MAX_MISTAKES]
        if calibration is None:
            return {}
        figures = {
            "confusion_matrix": plots.confusion_matrix(counts, names),
            "reliability": plots.reliability(
                calibration.count.compute(), calibration.confidence.compute(), calibration.correct.compute()
            ),
        }
        if mistakes:
            wrong = counts.sum() - np.trace(counts)
            figures["misclassified"] = plots.image_sheet(
                [image for _, image, _ in mistakes],
                [caption for _, _, caption in mistakes],
                title=f"{len(mistakes)} of {wrong} mistakes, the most confident first: true → predicted, probability",
            )
        return figures

    def _losses(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """The loss of each example, [B]. Class weights multiply it, and do not change what the mean divides by."""
        if logits.ndim != labels.ndim + 1:
            raise InputError(
                f"the model gives outputs {list(logits.shape)} for labels {list(labels.shape)}, and one vector an "
                "example is needed (--model.pooling of a recurrent network gives it)."
            )
        if self.loss_function == "cross_entropy":
            return losses.softmax_cross_entropy(logits, labels, self.label_smoothing, self.class_weights or None)
        values = {"perceptron": losses.perceptron, "hinge": losses.hinge}[self.loss_function](logits, labels)
        return values * jnp.asarray(self.class_weights)[labels] if self.class_weights else values


def _mixed(function, logits: jax.Array, batch) -> jax.Array:
    """`function(logits, labels)` [B], mixed for examples that mixup or CutMix made of two: `mix` is the first's share.

    Zhang et al. 2018, mixup (arXiv 1710.09412); Yun et al. 2019, CutMix (arXiv 1905.04899).
    """
    values = function(logits, batch["labels"])
    if "mix" not in batch:
        return values
    return batch["mix"] * values + (1 - batch["mix"]) * function(logits, batch["labels_b"])


def _caption(true: str, predicted: str, confidence: float) -> str:
    """Two lines of at most 18 characters or so, whatever the names are."""
    if len(true) + len(predicted) <= 12:
        return f"{true} → {predicted}\n{confidence:.0%}"
    return f"{true[:14]} →\n{predicted[:14]} {confidence:.0%}"
