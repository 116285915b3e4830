"""Architectures by name. Importing this imports no model; `create` imports the one that is asked for."""

import dataclasses
from typing import Any

from jaxdl.catalog import Entry, find, nearest
from jaxdl.errors import InputError

_IMAGENET = (224, 224, 3)
_CIFAR = (32, 32, 3)


def _resnet(stage_sizes: tuple[int, ...], block: str, **fields) -> Entry:
    """A ResNet for ImageNet. He et al. 2015, arXiv:1512.03385, table 1."""
    return Entry("jaxdl.models.resnet", "ResNet", {"stage_sizes": stage_sizes, "block": block, **fields}, _IMAGENET)


def _cifar_resnet(blocks: int, **fields) -> Entry:
    """A ResNet of depth 6 * blocks + 2 for CIFAR-10. The same paper, section 4.2."""
    fields = {
        "num_outputs": 10,
        "stage_sizes": (blocks,) * 3,
        "width": 16,
        "block": "basic",
        "stem": "cifar",
        "shortcut": "pad",
        "num_groups": 8,
        **fields,
    }
    return Entry("jaxdl.models.resnet", "ResNet", fields, _CIFAR)


MODELS: dict[str, Entry] = {
    "linear_regression": Entry("jaxdl.models.linear", "LinearRegression", input_shape=(10,)),
    "softmax_regression": Entry("jaxdl.models.linear", "SoftmaxRegression", input_shape=(28, 28, 1)),
    "perceptron": Entry("jaxdl.models.perceptron", "Perceptron", input_shape=(10,)),
    "mlp": Entry("jaxdl.models.mlp", "MLP", input_shape=(28, 28, 1)),
    "cnn": Entry("jaxdl.models.cnn", "CNN", input_shape=(8, 8, 1)),
    "lenet5": Entry("jaxdl.models.lenet", "LeNet5", input_shape=(28, 28, 1)),
    "resnet": Entry("jaxdl.models.resnet", "ResNet", input_shape=_IMAGENET),
    "resnet18": _resnet((2, 2, 2, 2), "basic"),
    "resnet34": _resnet((3, 4, 6, 3), "basic"),
    "resnet50": _resnet((3, 4, 6, 3), "bottleneck"),
    "resnet101": _resnet((3, 4, 23, 3), "bottleneck"),
    "resnet152": _resnet((3, 8, 36, 3), "bottleneck"),
    "resnet18_v2": _resnet((2, 2, 2, 2), "basic", version="v2"),
    "resnet34_v2": _resnet((3, 4, 6, 3), "basic", version="v2"),
    "resnet50_v2": _resnet((3, 4, 6, 3), "bottleneck", version="v2"),
    "resnet101_v2": _resnet((3, 4, 23, 3), "bottleneck", version="v2"),
    "resnet152_v2": _resnet((3, 8, 36, 3), "bottleneck", version="v2"),
    "resnet20": _cifar_resnet(3),
    "resnet32": _cifar_resnet(5),
    "resnet44": _cifar_resnet(7),
    "resnet56": _cifar_resnet(9),
    "resnet110": _cifar_resnet(18),
    "resnet20_v2": _cifar_resnet(3, version="v2"),
    "resnet32_v2": _cifar_resnet(5, version="v2"),
    "resnet44_v2": _cifar_resnet(7, version="v2"),
    "resnet56_v2": _cifar_resnet(9, version="v2"),
    "resnet110_v2": _cifar_resnet(18, version="v2"),
}


def create(name: str, /, **hyperparameters: Any):
    """The model of that name, a Flax module, with these hyperparameters in place of the name's defaults.

    >>> create("mlp", widths=(32,), num_outputs=3).widths
    (32,)

    Raises:
      InputError: no model has this name, or the model no such hyperparameter; the message offers the nearest.
    """
    entry = find(MODELS, name, "model")
    model = entry.load()
    # `parent` and `name` are Flax's own.
    fields = [field.name for field in dataclasses.fields(model) if field.name not in ("parent", "name")]
    for hyperparameter in hyperparameters:
        if hyperparameter not in fields:
            raise InputError(
                f"model '{name}' has no hyperparameter '{hyperparameter}'.{nearest(hyperparameter, fields)} "
                f"It has: {', '.join(fields)}."
            )
    return model(**{**entry.fields, **hyperparameters})
