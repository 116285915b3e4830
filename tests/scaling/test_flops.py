"""FLOPs and parameters against counts by hand."""

import jax
import jax.numpy as jnp
import pytest

from jaxdl.models import create
from jaxdl.scaling.flops import example_inputs, forward_flops, parameter_count, traced_flops, xla_flops


def test_a_matrix_product_is_two_operations_for_each_multiply_add():
    a, b = jnp.ones((3, 4)), jnp.ones((4, 5))
    lowered = jax.jit(jnp.matmul).lower(a, b)
    assert xla_flops(lowered) == xla_flops(lowered.compile()) == 2 * 3 * 4 * 5


def test_what_scans_repeat_counts_each_time():
    def layers(x, kernels):
        return jax.lax.scan(lambda x, kernel: (x @ kernel, None), x, kernels)[0]

    def nested(x, kernels):
        return jax.lax.scan(lambda x, _: (jax.checkpoint(layers)(x, kernels), None), x, None, length=7)[0]

    x, kernels = jnp.ones((3, 4)), jnp.ones((5, 4, 4))
    once = 2 * 3 * 4 * 4
    # Each turn of a loop adds some operations of its own: its counter.
    assert traced_flops(jax.jit(layers).trace(x, kernels)) == pytest.approx(5 * once, rel=0.05)
    assert traced_flops(jax.jit(nested).trace(x, kernels)) == pytest.approx(35 * once, rel=0.05)


def test_example_inputs_are_one_array_or_several():
    assert [x.shape for x in example_inputs((5, 3), batch_size=2)] == [(2, 5, 3)]
    several = example_inputs(((5,), (), (4,)), "int32")
    assert [(x.shape, x.dtype) for x in several] == [((1, 5), jnp.int32), ((1,), jnp.int32), ((1, 4), jnp.int32)]
    mixed = example_inputs(((5, 3), ()), ("float32", "int32"))
    assert [(x.shape, x.dtype) for x in mixed] == [((1, 5, 3), jnp.float32), ((1,), jnp.int32)]


def test_no_count_is_none():
    class Program:
        def __init__(self, analysis):
            self.cost_analysis = lambda: analysis

    assert [xla_flops(Program(analysis)) for analysis in (None, [], {}, {"bytes accessed": 1.0})] == [None] * 4
    assert xla_flops(Program([{"flops": 3.0}])) == 3


def test_mlp_by_hand():
    # Each layer: 2 * in * out for the product, out for the bias; ReLU compares, which XLA counts as an operation each.
    layers = [(784, 256), (256, 128), (128, 10)]
    expected = sum(2 * inputs * outputs + outputs for inputs, outputs in layers) + 256 + 128
    assert forward_flops(create("mlp"), (28, 28, 1)) == pytest.approx(expected, rel=1e-3)


def test_resnet50_is_that_of_the_literature():
    # 4.09e9 multiply-adds (torchvision). XLA leaves out products with padding, some 3%.
    assert forward_flops(create("resnet50"), (224, 224, 3)) == pytest.approx(2 * 4.09e9, rel=0.04)


def test_parameters_leave_out_statistics():
    params = {"kernel": jnp.ones((2, 3)), "scale": jax.ShapeDtypeStruct((), jnp.float32)}
    assert parameter_count(params) == 7
    assert parameter_count({"params": params, "batch_stats": {"mean": jnp.ones((9,))}}) == 7
