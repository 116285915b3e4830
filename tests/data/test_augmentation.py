"""Augmentations: pure, per example, the same on any number of devices, and doing what they say."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from scipy import ndimage

from jaxdl.data import augmentation, mixing
from jaxdl.layers import batch_axis

BATCH, SIZE = 16, 8
KEY = jax.random.key(3)

ON = {  # at a strength that certainly changes something
    "flip": augmentation.Flip(horizontal=0.5, vertical=0.5),
    "crop": augmentation.Crop(padding=2),
    "crop_reflect": augmentation.Crop(padding=2, mode="reflect"),
    "resized_crop": augmentation.ResizedCrop(),
    "grayscale": augmentation.Grayscale(probability=0.9),
    "rotate": augmentation.Rotate(degrees=40.0),
    "color_jitter": augmentation.ColorJitter(),
    "cutout": augmentation.Cutout(size=3),
    "elastic": augmentation.Elastic(alpha=20.0, sigma=2.0),
    "gaussian_noise": augmentation.GaussianNoise(std=0.3),
    "mixup": mixing.Mixup(alpha=1.0),
    "cutmix": mixing.Cutmix(),
}
OFF = {
    "flip": augmentation.Flip(horizontal=0.0, vertical=0.0),
    "crop": augmentation.Crop(padding=0),
    "grayscale": augmentation.Grayscale(probability=0.0),
    "rotate": augmentation.Rotate(degrees=0.0),
    "color_jitter": augmentation.ColorJitter(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0),
    "cutout": augmentation.Cutout(size=0),
    "cutout_never": augmentation.Cutout(probability=0.0),
    "elastic": augmentation.Elastic(alpha=0.0),
    "gaussian_noise": augmentation.GaussianNoise(std=0.0),
    "mixup": mixing.Mixup(probability=0.0),
    "cutmix": mixing.Cutmix(probability=0.0),
}


def _batch(number=BATCH, channels=3):
    inputs = jax.random.uniform(jax.random.key(0), (number, SIZE, SIZE, channels))
    return {"inputs": inputs, "labels": jnp.arange(number) % 10}


@functools.cache
def _result(name):
    return jax.jit(ON[name])(KEY, _batch())


@pytest.mark.parametrize("name", OFF)
def test_zero_strength_changes_nothing(name):
    batch = _batch()
    result = jax.jit(OFF[name])(KEY, batch)
    chex.assert_trees_all_equal({key: result[key] for key in batch}, batch)
    np.testing.assert_array_equal(result.get("mix", 1.0), 1.0)


@pytest.mark.parametrize("name", ON)
def test_changes_most_examples_within_range_and_by_its_key(name):
    batch, result = _batch(), _result(name)
    chex.assert_equal_shape([batch["inputs"], result["inputs"]])
    assert result["inputs"].dtype == jnp.float32
    changed = jnp.any(result["inputs"] != batch["inputs"], axis=(1, 2, 3))
    assert jnp.mean(changed) > 0.5
    assert 0 <= jnp.min(result["inputs"]) and jnp.max(result["inputs"]) <= 1 + 1e-6  # bilinear weights sum to 1 (1e-7)
    np.testing.assert_array_equal(result["labels"], batch["labels"])
    other = jax.jit(ON[name])(jax.random.key(4), batch)
    assert jnp.any(other["inputs"] != result["inputs"])


@pytest.mark.parametrize("name", ON)
def test_jit_equals_no_jit(name):
    # Fused or not, a value differs by a few float32 roundings.
    chex.assert_trees_all_close(ON[name](KEY, _batch()), _result(name), atol=1e-5)


@pytest.mark.parametrize("name", ON)
def test_any_number_of_devices_gives_the_same(name):
    mesh = Mesh(np.array(jax.devices()[:8]), ("data",))

    def shard(key, batch):
        with batch_axis.batch_context(axis_name="data"):
            return ON[name](key, batch)

    rows = PartitionSpec("data")
    sharded = jax.jit(jax.shard_map(shard, mesh=mesh, in_specs=(PartitionSpec(), rows), out_specs=rows))
    chex.assert_trees_all_close(sharded(KEY, _batch()), _result(name), atol=1e-5)


@pytest.mark.parametrize("name", [name for name in ON if not name.startswith(("mixup", "cutmix"))])
def test_an_example_does_not_depend_on_the_others(name):
    batch = _batch()
    others = jnp.where((jnp.arange(BATCH) == 5)[:, None, None, None], batch["inputs"], 0.25)
    result = jax.jit(ON[name])(KEY, batch | {"inputs": others})
    np.testing.assert_allclose(result["inputs"][5], _result(name)["inputs"][5], atol=1e-6)


def test_flip_frequencies():
    batch = _batch(400, 1)
    result = augmentation.Flip(horizontal=0.25, vertical=0.0)(KEY, batch)["inputs"]
    flipped = jnp.all(result == batch["inputs"][:, :, ::-1], axis=(1, 2, 3))
    same = jnp.all(result == batch["inputs"], axis=(1, 2, 3))
    assert jnp.all(flipped ^ same)
    assert 0.25 - 4 * 0.022 < jnp.mean(flipped) < 0.25 + 4 * 0.022  # four standard errors of 400 draws
    upside_down = augmentation.Flip(horizontal=0.0, vertical=1.0)(KEY, batch)["inputs"]
    np.testing.assert_array_equal(upside_down, batch["inputs"][:, ::-1])


def test_crop_is_a_shift_and_all_shifts_happen():
    image = jnp.zeros((SIZE, SIZE, 1)).at[4, 4].set(1)
    result = augmentation.Crop(padding=1)(KEY, {"inputs": jnp.tile(image[None], (200, 1, 1, 1))})["inputs"]
    places = {tuple(place[1:3]) for place in np.argwhere(np.asarray(result))}
    assert places == {(row, column) for row in (3, 4, 5) for column in (3, 4, 5)}


def test_a_resized_crop_is_a_part_of_the_image_stretched():
    """Of a ramp in both directions: again a ramp, as steep as the part is long, inside the border."""
    place = (jnp.arange(SIZE) + 0.5) / SIZE
    ramp = jnp.stack(jnp.meshgrid(place, place, indexing="ij"), axis=-1)  # channels: how far down, how far right
    crop = augmentation.ResizedCrop(min_area=0.25, max_area=0.5, max_ratio=2.0)
    result = np.asarray(jax.jit(crop)(KEY, {"inputs": jnp.tile(ramp[None], (300, 1, 1, 1))})["inputs"])
    down, right = result[:, 1:-1, 0, 0], result[:, 0, 1:-1, 1]  # beyond the outermost centres there is no ramp
    height, width = (np.median(np.diff(x), axis=1) * SIZE for x in (down, right))
    area, ratio = height * width, width / height
    assert (area < 0.5 + 1e-3).all() and (area > 0.25 - 1e-3).mean() > 0.9  # a side is cut to the image's
    assert 0.5 - 1e-3 < ratio.min() < 0.7 and 1.4 < ratio.max() < 2 + 1e-3
    middle = result[:, SIZE // 2 - 1 : SIZE // 2 + 1, 0, 0].mean(axis=1)
    assert (middle - height / 2 > -1e-2).all() and (middle + height / 2 < 1 + 1e-2).all()
    assert np.ptp(middle - height / 2) > 0.3  # everywhere
    whole = augmentation.ResizedCrop(min_area=1.0, max_area=1.0, max_ratio=1.0)
    np.testing.assert_allclose(whole(KEY, _batch())["inputs"], _batch()["inputs"], atol=1e-6)


def test_probabilities_of_changes_of_colour():
    batch = {"inputs": jnp.tile(_batch(1)["inputs"], (400, 1, 1, 1))}
    gray = (
        np.ptp(np.asarray(augmentation.Grayscale(probability=0.25)(KEY, batch)["inputs"]), axis=-1).max((1, 2)) < 1e-6
    )
    jitter = augmentation.ColorJitter(saturation=0.0, hue=0.0, probability=0.25)(KEY, batch)["inputs"]
    jittered = np.abs(np.asarray(jitter - batch["inputs"])).max((1, 2, 3)) > 1e-6
    for changed in (gray, jittered):
        assert 0.25 - 4 * 0.022 < changed.mean() < 0.25 + 4 * 0.022  # four standard errors of 400 draws
    one_channel = {"inputs": batch["inputs"][..., :1]}
    np.testing.assert_array_equal(augmentation.Grayscale(1.0)(KEY, one_channel)["inputs"], one_channel["inputs"])


@pytest.mark.parametrize("mode, scipys", [("nearest", "nearest"), ("constant", "grid-constant")])
def test_rotation_equals_scipys_about_the_centre(mode, scipys):
    batch = _batch(3)
    batch["inputs"] = batch["inputs"][:, :7]
    result = jax.jit(augmentation.Rotate(degrees=90.0, mode=mode))(KEY, batch)["inputs"]
    for image, rotated, key in zip(batch["inputs"], result, batch_axis.example_keys(KEY, 3)):
        degrees = 90 * jax.random.uniform(key, minval=-1, maxval=1)
        expected = ndimage.rotate(image, degrees, reshape=False, order=1, mode=scipys)
        np.testing.assert_allclose(rotated, expected, atol=1e-5)


def test_cutout_blanks_one_square():
    batch = {"inputs": jnp.ones((300, SIZE, SIZE, 1))}
    result = np.asarray(augmentation.Cutout(size=4, fill=0.5)(KEY, batch)["inputs"])[..., 0]
    areas = (result == 0.5).sum((1, 2))
    assert areas.max() == 16 and areas.min() == 4  # the corner: half of each side
    assert set(np.unique(result)) == {0.5, 1.0}
    rows, columns = (result == 0.5).any(2).sum(1), (result == 0.5).any(1).sum(1)
    np.testing.assert_array_equal(areas, rows * columns)


def test_grey_images_keep_one_channel_and_features_are_not_clipped():
    grey = jax.eval_shape(ON["color_jitter"], KEY, _batch(channels=1))["inputs"]
    assert grey.shape[-1] == 1
    table = {"inputs": jnp.full((100, 5), 3.0)}
    noisy = augmentation.GaussianNoise(std=1.0)(KEY, table)["inputs"]
    np.testing.assert_allclose([jnp.mean(noisy), jnp.std(noisy)], [3, 1], atol=0.2)


def test_elastic_moves_by_the_scale_that_simard_says():
    """Uniform noise (std 1/sqrt(3)) under a Gaussian of sigma 4 has std 1 / (2 sqrt(pi) 4 sqrt(3)); times alpha 34."""
    ramp = jnp.tile(jnp.arange(25.0)[None, :, None, None] / 25, (400, 1, 25, 1))
    elastic = jax.jit(augmentation.Elastic(alpha=34.0, sigma=4.0, mode="nearest"))
    moved = 25 * (elastic(KEY, {"inputs": ramp})["inputs"] - ramp)[:, 12, 12, 0]  # where the kernel has all its support
    expected = 34 / (2 * np.sqrt(np.pi) * 4 * np.sqrt(3))
    np.testing.assert_allclose(jnp.std(moved), expected, rtol=0.14)  # four standard errors of 400 draws


@pytest.mark.parametrize("mixer", [mixing.Mixup(alpha=1.0), mixing.Cutmix()])
def test_mix_is_the_weight_of_labels(mixer):
    """With images that are constant and equal to their label / 10, the mean says the mixture."""
    batch = _batch()
    batch["inputs"] = jnp.broadcast_to(batch["labels"][:, None, None, None] / 10, batch["inputs"].shape)
    result = jax.jit(mixer)(KEY, batch)
    expected = result["mix"] * result["labels"] + (1 - result["mix"]) * result["labels_b"]
    np.testing.assert_allclose(np.float64(result["inputs"]).mean(axis=(1, 2, 3)), expected / 10, atol=1e-6)
    assert result["labels_b"].dtype == jnp.int32 and result["mix"].dtype == jnp.float32
    assert jnp.std(result["mix"]) > 0.1
    assert sorted(result["labels_b"].tolist()) == sorted(batch["labels"].tolist())


def test_mixup_mixes_targets_of_a_regression():
    inputs = jnp.arange(8.0)[:, None]
    result = jax.jit(mixing.Mixup(alpha=1.0))(KEY, {"inputs": inputs, "targets": 2 * inputs})
    np.testing.assert_allclose(result["targets"], 2 * result["inputs"], rtol=1e-6)
    assert "mix" not in result and jnp.any(result["inputs"] != inputs)


def test_strengths_may_be_traced():
    """A sweep maps over them."""
    batch = _batch()

    def run(strength):
        steps = [
            augmentation.Flip(horizontal=strength),
            augmentation.Rotate(degrees=strength * 20),
            augmentation.ColorJitter(strength, strength, strength, strength),
            augmentation.Cutout(probability=strength),
            augmentation.Elastic(alpha=strength, sigma=strength + 1),
            augmentation.GaussianNoise(std=strength),
            mixing.Mixup(alpha=strength + 0.1, probability=strength),
            mixing.Cutmix(alpha=strength + 0.1, probability=strength),
        ]
        return functools.reduce(lambda result, step: step(KEY, result), steps, batch)["inputs"]

    results = jax.jit(jax.vmap(run))(jnp.array([0.0, 0.5]))
    np.testing.assert_allclose(results[0], batch["inputs"], atol=2e-5)  # rotation by 0 and HSV round
    assert jnp.any(jnp.abs(results[1] - batch["inputs"]) > 0.1)
