"""The ways of counting FLOPs held against each other: 6 N D, products in closed form and of the program, XLA's."""

import math

import jax
import jax.numpy as jnp
import pytest

from jaxdl import experiment
from jaxdl.errors import InputError
from jaxdl.models import MODELS, create
from jaxdl.models.gpt import GPT
from jaxdl.scaling import formulas
from jaxdl.scaling.flops import (
    embedding_count,
    example_inputs,
    model_shapes,
    parameter_count,
    product_flops,
    six_nd,
    traced_flops,
    training_step,
    xla_flops,
)
from jaxdl.train.record import read_json


def products(model, shape, dtype="float32") -> int:
    """Of the forward pass of one example."""
    variables = model_shapes(model, shape, dtype)
    forward = lambda variables, *inputs: model.apply(variables, *inputs, train=False)
    return product_flops(jax.make_jaxpr(forward)(variables, *example_inputs(shape, dtype)))


def training_products(model, shape, dtype="float32") -> int:
    step, arguments = training_step(model, shape, dtype)
    return product_flops(jax.make_jaxpr(step)(*arguments))


# Transformers.

SHAPES = [
    GPT(vocab_size=256, max_length=64, num_layers=1, num_heads=2, width=32, positions="rotary"),
    GPT(vocab_size=512, max_length=96, num_layers=3, num_heads=4, width=64),
    GPT(vocab_size=300, num_layers=2, num_heads=4, num_kv_heads=2, width=64, mlp_width=176, positions="rotary",
        normalization="rms", activation="swiglu", use_bias=False, tied_head=False),
    GPT(vocab_size=256, num_layers=2, num_heads=3, head_dim=32, width=64, positions="alibi", scan_layers=True),
]  # fmt: skip
LENGTH = 48
each_shape = pytest.mark.parametrize("model", SHAPES, ids=["rotary", "learned", "llama", "scanned"])


@each_shape
def test_parameters_of_a_gpt_in_closed_form(model):
    variables = model_shapes(model, (LENGTH,), "int32")
    assert formulas.gpt_parameters(model) == parameter_count(variables)
    assert formulas.gpt_embeddings(model) == embedding_count(variables)


@each_shape
def test_products_of_a_gpt_in_closed_form_forward_and_in_training(model):
    forward = formulas.gpt_flops(model, LENGTH)
    assert products(model, (LENGTH,), "int32") == forward
    assert training_products(model, (LENGTH,), "int32") == formulas.TRAINING * forward


@each_shape
def test_6nd_lacks_attention_and_counts_what_is_no_matrix(model):
    """6 N D + 12 L C T^2 is the closed form, when N are the numbers of matrices that multiply: no norms, biases, tables
    that are looked up alone."""
    variables = model_shapes(model, (LENGTH,), "int32")["params"]
    matrices = sum(
        math.prod(leaf.shape)
        for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]
        if path[-1].key == "kernel" or (path[-2].key == "token_embedding" and model.tied_head)
    )
    queries = model.num_heads * (model.head_dim or model.width // model.num_heads)
    attention = formulas.TRAINING * 4 * model.num_layers * queries * LENGTH**2
    assert six_nd(matrices, LENGTH) + attention == formulas.TRAINING * formulas.gpt_flops(model, LENGTH)


def test_causal_attention_is_half_of_the_square_and_half_the_diagonal():
    model = SHAPES[1]
    whole, causal = formulas.gpt_flops(model, LENGTH), formulas.gpt_flops(model, LENGTH, causal=True)
    assert whole - causal == 4 * model.num_layers * model.width * LENGTH * (LENGTH - 1) // 2


@pytest.mark.parametrize(("width", "most"), [(64, 1.10), (192, 1.05)])
def test_xla_counts_what_a_compiled_gpt_does_beside_its_products_too(width, most):
    """Softmax, normalisation, GELU and additions: their share falls as 1 / width. None of the products is missed."""
    model = GPT(vocab_size=256, max_length=64, num_layers=2, num_heads=width // 32, width=width)
    step, arguments = training_step(model, (64,), "int32", batch_size=4)
    compiled = xla_flops(jax.jit(step).lower(*arguments).compile())
    assert 1.0 <= compiled / (4 * formulas.TRAINING * formulas.gpt_flops(model, 64)) <= most


def test_6nd_is_nearly_right_where_the_context_is_short_against_the_width():
    """What is missing is attention, T / 6 C of the rest: 8 % here. Hoffmann et al. 2022, appendix F."""
    large = GPT(vocab_size=32_000, max_length=2048, num_layers=40, num_heads=32, head_dim=128, width=4096)
    ratio = formulas.TRAINING * formulas.gpt_flops(large, 2048) / six_nd(formulas.gpt_parameters(large), 2048)
    assert ratio == pytest.approx(1 + 2048 / 6 / 4096, rel=0.01)


# Every other architecture.


def test_closed_forms_of_other_architectures():
    vit = create("vit", patch_size=4, width=32, num_layers=2, num_heads=2, num_outputs=5)
    assert products(vit, (16, 8, 3)) == formulas.vit_flops(vit, 16, 8)
    bert = create("bert", vocab_size=50, width=32, num_layers=2, num_heads=2, max_length=24)
    assert products(bert, (24,), "int32") == formulas.bert_flops(bert, 24)
    mlp = create("mlp", widths=(24, 12), num_outputs=3)
    widths = (16, 24, 12, 3)
    assert products(mlp, (4, 4, 1)) == formulas.mlp_flops(widths)
    # In training the first layer's inputs have no gradient.
    assert training_products(mlp, (4, 4, 1)) == 3 * formulas.mlp_flops(widths) - formulas.mlp_flops(widths[:2])
    for cell in ("rnn_tanh", "gru", "lstm"):
        rnn = create("rnn", cell=cell, hidden_size=12, num_layers=2, num_outputs=3)
        expected = formulas.rnn_flops(cell, 8, 12, steps=6, layers=2) + formulas.mlp_flops((12, 3))
        assert products(rnn, (6, 8, 1)) == expected


def test_resnet_in_closed_form():
    """He et al. 2015, section 4.2, n = 1: three stages of one block of two convolutions, then ten outputs."""
    conv = formulas.convolution_flops
    expected = conv(32, 3, 3, 16) + 2 * conv(32, 3, 16, 16)
    expected += conv(32, 3, 16, 32, stride=2) + conv(16, 3, 32, 32)
    expected += conv(16, 3, 32, 64, stride=2) + conv(8, 3, 64, 64) + formulas.mlp_flops((64, 10))
    assert products(create("resnet20", stage_sizes=(1, 1, 1)), (32, 32, 3)) == pytest.approx(expected, rel=0.01)


SMALL = {
    "ResNet": ({"stage_sizes": (1, 1), "width": 8, "num_outputs": 5, "stem": "cifar", "block": "basic"}, (8, 8, 3)),
    "GPT": ({"vocab_size": 50, "num_layers": 2, "num_heads": 2, "width": 32, "max_length": 24}, (24,)),
    "ViT": ({"patch_size": 4, "num_layers": 2, "num_heads": 2, "width": 32, "num_outputs": 5}, (8, 8, 3)),
    "MaskedBert": ({"vocab_size": 50, "num_layers": 2, "num_heads": 2, "width": 32}, (24,)),
    "BertClassifier": ({"vocab_size": 50, "num_layers": 2, "num_heads": 2, "width": 32}, (24,)),
}
"""Small instances of families whose defaults are large."""

FAMILIES = {}
for _name, _entry in MODELS.items():
    FAMILIES.setdefault(_entry.attribute, _name)


@pytest.mark.parametrize("family", FAMILIES)
def test_products_against_xla_for_every_family(family):
    """XLA counts the same products, and at most a few operations for each number that anything else reads or writes.

    That is the tolerance: there is no fixed share, because it falls with the width. A few, because an activation is
    several operations to XLA, 10 where GELU's erf is a polynomial.
    """
    entry = MODELS[FAMILIES[family]]
    fields, shape = SMALL.get(family, ({}, entry.input_shape))
    model = create(FAMILIES[family], **fields)
    variables = model_shapes(model, shape, entry.input_dtype)
    forward = lambda variables, *inputs: model.apply(variables, *inputs, train=False)
    traced = jax.jit(forward).trace(variables, *example_inputs(shape, entry.input_dtype, 2))
    counted, others = product_flops(traced.jaxpr), _numbers_of_others(traced.jaxpr)
    assert counted <= traced_flops(traced) <= counted + 10 * others


def _numbers_of_others(jaxpr) -> int:
    """Elements that everything but products reads and writes."""
    total = 0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        bodies = [x for x in jax.tree.leaves(tuple(equation.params.values())) if hasattr(x, "jaxpr")]
        if bodies:
            total += equation.params.get("length", 1) * sum(map(_numbers_of_others, bodies))
        elif equation.primitive.name not in ("dot_general", "conv_general_dilated"):
            total += sum(v.aval.size for v in (*equation.invars, *equation.outvars) if hasattr(v.aval, "size"))
    return total


# Single operations.


def count(function, *arrays) -> int:
    return product_flops(jax.make_jaxpr(function)(*arrays))


def test_batched_products_count_each():
    a, b = jnp.ones((7, 3, 4)), jnp.ones((7, 4, 5))
    assert count(jnp.matmul, a, b) == 7 * 2 * 3 * 4 * 5
    assert count(jax.grad(lambda a: (a @ b).sum()), a) == 2 * 7 * 2 * 3 * 4 * 5


def test_loops_branches_and_rematerialisation():
    x, kernel = jnp.ones((3, 4)), jnp.ones((4, 4))
    once = 2 * 3 * 4 * 4
    layer = lambda x: jnp.sin(x @ kernel)
    assert count(lambda x: jax.lax.fori_loop(0, 5, lambda _, x: layer(x), x), x) == 5 * once
    assert count(lambda x: jax.lax.while_loop(lambda x: x.sum() < 9, layer, x), x) == once, "it may run any time"
    assert count(lambda x: jax.lax.cond(x.sum() > 0, lambda x: layer(layer(x)), layer, x), x) == 2 * once
    assert count(jax.vmap(layer), jnp.ones((6, 3, 4))) == 6 * once
    # Forward, once more in the backward pass, and the gradient of x.
    assert count(jax.grad(lambda x: jax.checkpoint(layer)(x).sum()), x) in (2 * once, 3 * once)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"window_strides": (2, 2)},
        {"padding": "VALID"},
        {"rhs_dilation": (2, 2)},
        {"lhs_dilation": (2, 2), "padding": ((2, 2), (2, 2))},
        {"feature_group_count": 2},
    ],
    ids=str,
)
def test_a_convolution_counts_as_the_dense_product_that_it_is(options):
    """Its number of multiply-adds is that of ones times ones, summed: each adds one."""
    images, kernel = jnp.ones((2, 9, 7, 4)), jnp.ones((3, 3, 4 // options.get("feature_group_count", 1), 6))
    options = {"window_strides": (1, 1), "padding": "SAME", **options}
    convolve = lambda x, k: jax.lax.conv_general_dilated(x, k, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options)
    products = 2 * int(convolve(images, kernel).sum())
    assert count(convolve, images, kernel) == products
    # Each product of the forward pass is one of the gradient of either.
    for argument in (0, 1):
        gradient = jax.grad(lambda *args: convolve(*args).sum(), argnums=argument)
        assert count(gradient, images, kernel) - products in (0, products)


def test_cudnn_attention_counts_as_the_products_that_it_replaces(monkeypatch):
    from jax._src.cudnn import fused_attention_stablehlo as fused

    monkeypatch.setattr(fused, "check_cudnn_version", lambda: 91_000)
    B, T, N, K, D = 2, 16, 4, 2, 32
    q, k, v = (jnp.ones((B, T, heads, D), jnp.bfloat16) for heads in (N, K, K))

    def gradient(implementation):
        attend = lambda *qkv: jax.nn.dot_product_attention(*qkv, is_causal=True, implementation=implementation).sum()
        return count(jax.grad(attend, argnums=(0, 1, 2)), q, k, v)

    assert gradient("cudnn") == gradient("xla") == 3 * 2 * 2 * B * N * T * T * D


# A run.

RUN = ["--model=mlp", "--model.widths=8", "--dataset=digits", "--batch_size=32", "--plots=false", "--tensorboard=false"]
STEP = 32 * (3 * formulas.mlp_flops((64, 8, 10)) - formulas.mlp_flops((64, 8)))


@pytest.mark.parametrize("flags", [[], ["--gradient_accumulation=4"]], ids=["whole", "microbatches"])
def test_a_run_tells_the_flops_of_its_steps_those_of_microbatches_too(tmp_path, flags):
    settings = experiment.parse([*RUN, *flags, "--steps=2", "--progress=off", f"--workdir={tmp_path}"])
    experiment.run(settings)
    assert read_json(tmp_path / "environment.json")["flops_per_step"] == STEP


def test_a_budget_is_as_many_steps_as_it_pays_for():
    program = experiment.build(experiment.parse([*RUN, f"--flops_budget={7.5 * STEP}"]))
    assert program.total_steps == 7
    parameters = 64 * 8 + 8 + 8 * 10 + 10
    by_rule = experiment.parse([*RUN, f"--flops_budget={5 * 6 * parameters * 32}", "--flops_rule=6nd"])
    assert experiment.build(by_rule).total_steps == 5


def test_tokens_are_counted_where_the_data_have_a_length():
    flags = ["--model=gpt", "--model.num_layers=1", "--model.num_heads=2", "--model.width=16", "--model.max_length=32"]
    flags += ["--task=language_modeling", "--dataset=stdlib", "--dataset.max_bytes=200000", "--dataset.length=32"]
    flags += ["--batch_size=4", "--flops_rule=6nd", "--flops_budget=1e9"]
    program = experiment.build(experiment.parse(flags))
    assert program.total_steps == int(1e9 // six_nd(formulas.gpt_parameters(program.model), 4 * 32))


@pytest.mark.parametrize(("given", "steps"), [(["--steps=3"], 3), (["--epochs=1"], 39), ([], 7)])
def test_of_the_lengths_the_one_given_last_counts(given, steps):
    settings = experiment.parse([*RUN, "--steps=9", f"--flops_budget={7 * STEP}", *given])
    assert experiment.build(settings).total_steps == steps


def test_what_a_budget_cannot_pay_for_is_told():
    with pytest.raises(InputError) as error:
        experiment.build(experiment.parse([*RUN, "--flops_budget=1000"]))
    told = f"--flops_budget=1000 does not pay for one step, which takes {STEP:.4g} FLOPs; give more, or lower "
    assert str(error.value) == f"{told}--batch_size."
