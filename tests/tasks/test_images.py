"""What tasks that generate images ask of their data, and how their sheets are labelled."""

import numpy as np
import pytest

from jaxdl import experiment
from jaxdl.data.base import Data
from jaxdl.data.sources import ArraySource
from jaxdl.errors import InputError
from jaxdl.tasks.adversarial import Adversarial
from jaxdl.tasks.autoencoding import Autoencoding
from jaxdl.tasks.diffusion import Diffusion
from jaxdl.tasks.images import class_captions

CONDITIONAL = {
    "adversarial": Adversarial(conditional=True),
    "autoencoding": Autoencoding(conditional=True),
    "diffusion": Diffusion(class_conditional=True),
}


def data(num_classes=3, class_names=None, pixel=0.5, **labels):
    arrays = {"inputs": np.full((6, 4, 4, 1), pixel, np.float32), **labels}
    return Data({"train": ArraySource(arrays)}, num_classes=num_classes, class_names=class_names)


@pytest.mark.parametrize("name", CONDITIONAL)
@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({"labels": np.arange(6, dtype=np.int32) % 4}, "split 'train': label 3 at row 3; labels must be from 0 to 2"),
        ({}, "split 'train' has no labels; it has inputs"),
    ],
)
def test_labels_of_classes_that_do_not_exist_are_refused(name, labels, told):
    """Diffusion's label `num_classes` would mean an example without a class."""
    found = data(**labels)
    with pytest.raises(InputError, match=told) as caught:
        CONDITIONAL[name].for_data(found).check(found)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", CONDITIONAL)
def test_pixels_that_are_no_numbers_are_refused(name):
    found = data(pixel=np.nan, labels=np.zeros(6, np.int32))
    with pytest.raises(InputError, match="needs pixels in 0 to 1, or uint8, and those of split 'train' are in nan"):
        CONDITIONAL[name].for_data(found).check(found)


def test_captions_of_classes():
    assert class_captions((), data(class_names=("a", "b", "c")), 4) == (["a", "b", "c", ""], 3)
    assert class_captions((2, 0), data(), 5) == (["2", "0", "", "", ""], 2)
    # A thousand columns are no sheet.
    assert class_captions((), data(1000), 3) == (["0", "1", "2"], None)


@pytest.mark.parametrize(
    "flags",
    [
        ["--task=adversarial", "--task.conditional", "--model=dcgan", "--model.generator_widths=4"],
        ["--task=autoencoding", "--task.conditional", "--model=vae"],
        ["--task=diffusion", "--task.class_conditional", "--model=dit", "--model.width=16", "--model.patch_size=4"],
    ],
)
def test_a_model_that_is_told_the_class_takes_no_mixed_images(flags):
    flags = [*flags, "--dataset=digits", "--dataset.standardize=false", "--steps=1", "--batch_size=4"]
    with pytest.raises(InputError, match="no mixup or cutmix in --augment"):
        experiment.build(experiment.parse([*flags, "--augment=mixup"]))
