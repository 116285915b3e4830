"""ResNet: what each field changes, and where."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.layers.regularization import StochasticDepth
from jaxdl.models import create
from jaxdl.models.resnet import ResNet, subsample_and_pad
from jaxdl.scaling.flops import model_shapes

IMAGES = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))


def modules_called(model, kind, shape=(32, 32, 3)):
    """Every module of a kind that one call of the model calls, by its path."""
    called = {}

    def note(next_call, args, kwargs, context):
        if isinstance(context.module, kind) and context.method_name == "__call__":
            called["/".join(context.module.path)] = context.module
        return next_call(*args, **kwargs)

    with nn.intercept_methods(note):
        model_shapes(model, shape)
    return called


@pytest.mark.parametrize(("where", "strides"), [("3x3", (1, 2, 1)), ("1x1", (2, 1, 1))])
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_bottleneck_stride(version, where, strides):
    convolutions = modules_called(create("resnet50", version=version, bottleneck_stride=where), nn.Conv)
    assert tuple(convolutions[f"stage1_block0/conv{index}"].strides[0] for index in range(3)) == strides
    assert {convolutions[f"stage0_block0/conv{index}"].strides for index in range(3)} == {(1, 1)}


@pytest.mark.parametrize(("name", "side"), [("resnet18", 7), ("resnet50_v2", 7), ("resnet20", 8), ("resnet20_v2", 8)])
def test_size_of_the_last_maps(name, side):
    """He et al. 2015: 7x7 from 224x224, table 1; 8x8 from 32x32, section 4.2."""
    sizes = []

    def note(next_call, args, kwargs, context):
        outputs = next_call(*args, **kwargs)
        if isinstance(context.module, nn.Conv):
            sizes.append(outputs.shape[1:3])
        return outputs

    with nn.intercept_methods(note):
        model_shapes(create(name), (32, 32, 3) if side == 8 else (224, 224, 3))
    assert sizes[-1] == (side, side)


def test_stochastic_depth_grows_linearly():
    """Huang et al. 2016, eq. 4: block l of L is dropped with probability l / L times that of the last."""
    layers = modules_called(create("resnet20", stochastic_depth_rate=0.45), StochasticDepth)
    np.testing.assert_allclose([layer.rate for layer in layers.values()], 0.05 * np.arange(1, 10), rtol=1e-6)


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("normalization", ["batch", "none"])
@pytest.mark.parametrize("zero_init", [False, True])
def test_zero_init_makes_every_branch_zero(version, normalization, zero_init):
    model = ResNet(
        num_outputs=3,
        stage_sizes=(1, 1),
        width=4,
        block="basic",
        version=version,
        stem="cifar",
        normalization=normalization,
        zero_init_residual=zero_init,
    )
    # This kind of key compiles in a fraction of the time.
    key = jax.random.key(0, impl="rbg")
    variables = jax.jit(lambda key: model.init(key, IMAGES, train=False))(key)
    apply = jax.jit(lambda variables: model.apply(variables, IMAGES, train=False))
    changed = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf + 1 if "'conv0'" in jax.tree_util.keystr(path) else leaf, variables
    )
    assert np.allclose(apply(variables), apply(changed), rtol=1e-5, atol=1e-5) == zero_init


def test_option_a_takes_every_second_pixel_and_pads_channels():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    shortcut = subsample_and_pad(x, 3, 2)
    np.testing.assert_array_equal(shortcut[0, :, :, 0], [[0, 2], [8, 10]])
    assert shortcut.shape == (1, 2, 2, 3) and not shortcut[..., 1:].any()


def test_preactivation_leaves_the_identity_path_clear():
    """He et al. 2016, eq. 5: with branches of zero, a v2 block without projection is the identity; v1's has a ReLU."""

    def block_outputs(version):
        model = create("resnet20", version=version, stage_sizes=(1,), zero_init_residual=True)
        outputs = []

        def note(next_call, args, kwargs, context):
            result = next_call(*args, **kwargs)
            if context.module.name == "stage0_block0":
                outputs.append((args[0], result))
            return result

        with nn.intercept_methods(note):
            model.init(jax.random.key(0, impl="rbg"), IMAGES, train=False)
        return outputs[0]

    before, after = block_outputs("v2")
    assert (before < 0).any()
    np.testing.assert_array_equal(before, after)
    _, after = block_outputs("v1")
    assert (after >= 0).all()
