"""What is asked of the images of all splits together."""

import numpy as np
import pytest

from jaxdl import experiment
from jaxdl.data import checks
from jaxdl.data.base import Data
from jaxdl.data.sources import ArraySource
from jaxdl.errors import InputError


def split(*shape):
    return ArraySource({"inputs": np.zeros((9, *shape), np.uint8), "labels": np.arange(9, dtype=np.int32) % 3})


@pytest.mark.parametrize("shape", [(6, 4, 1), (4, 4, 3)])
def test_images_of_mixed_sizes_or_channels_are_refused_before_training(shape):
    data = Data({"train": split(4, 4, 1), "test": split(*shape)}, num_classes=3)
    told = "one size and number of channels; they are 4x4x1 in 'train', " + "x".join(map(str, shape)) + " in 'test'"
    for task, flags in (
        ("classification", ["--model=mlp"]),
        ("contrastive", ["--model=cnn", "--augment=flip"]),
        ("autoencoding", ["--model=vae", "--task.likelihood=gaussian"]),
    ):
        settings = experiment.parse([f"--task={task}", *flags, "--dataset=digits", "--steps=1", "--batch_size=3"])
        with pytest.raises(InputError, match=told) as caught:
            experiment.build(settings, {"dataset": data})
        assert "\n" not in str(caught.value)


def test_vectors_and_texts_may_differ_in_length():
    checks.check_image_shapes({"train": split(5), "test": split(7)})
