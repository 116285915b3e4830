"""Maximal update parametrization against Tensor Programs V's own table, and what must not change with it."""

import dataclasses
import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import experiment, parametrization
from jaxdl.errors import InputError
from jaxdl.models import create
from jaxdl.models.bert import MaskedBert
from jaxdl.models.gpt import GPT
from jaxdl.models.mlp import MLP
from jaxdl.models.resnet import ResNet
from jaxdl.models.vit import ViT
from jaxdl.optimizers import OPTIMIZERS, SGD, AdamW, Update, build_optimizer
from jaxdl.parametrization import Parametrization, Scale, at_width, maximal_update, scale_initial
from jaxdl.schedules import Constant
from jaxdl.settings import parse
from jaxdl.train.record import read_metrics

RATIO = 4
TOKENS, IMAGES = jnp.zeros((1, 6), jnp.int32), jnp.zeros((1, 8, 8, 1))
GPT_BASE = GPT(vocab_size=7, max_length=6, num_layers=1, num_heads=2, width=8)
# Each family at its base width, and an input.
FAMILIES = {
    "mlp": (MLP(widths=(4, 8), num_outputs=3), jnp.zeros((1, 5))),
    "resnet": (ResNet(stage_sizes=(1, 1), block="basic", width=4, num_outputs=3, stem="cifar"), IMAGES),
    "vit": (ViT(patch_size=4, width=8, num_layers=1, num_heads=2, num_outputs=3), IMAGES),
    "bert": (MaskedBert(vocab_size=7, max_length=6, num_layers=1, num_heads=2, width=8), TOKENS),
    "gpt": (GPT_BASE, TOKENS),
    "gpt scan": (dataclasses.replace(GPT_BASE, scan_layers=True, tied_head=False), TOKENS),
}
DIGITS = ["--model=mlp", "--dataset=digits", "--batch_size=16", "--mesh=data:1", "--plots=false", "--tensorboard=false"]
DIGITS += ["--progress=off", "--log_every=2", "--eval_every=4", "--eval_batch_size=360", "--learning_rate=0.01"]
MUP = ["--parametrization=mup", "--base_width=8"]


def init_of(inputs):
    return lambda model: jax.jit(lambda: model.init(jax.random.key(0), inputs, train=False)["params"])()


def scales_of(family, ratio=RATIO, num_heads=None):
    base, inputs = FAMILIES[family]
    name = base.width_fields[0]
    width = getattr(base, name)[0] if isinstance(getattr(base, name), tuple) else getattr(base, name)
    model = at_width(base, ratio * width)
    return maximal_update(init_of(inputs), model, at_width(model, width, num_heads)), model


def table_3(kind):
    """Deviation of the initial values, SGD's and Adam's rate, relative to the base model: table 3, fan-in and fan-out
    being RATIO times the base model's."""
    return {
        "input": (1, RATIO, 1),
        "hidden": (RATIO**-0.5, 1, 1 / RATIO),
        "output": (1 / RATIO, 1 / RATIO, 1 / RATIO),
        "fixed": (1, 1, 1),
    }[kind]


KINDS = {
    "mlp": {
        "input": ("hidden0/kernel", "hidden0/bias", "hidden1/bias"),
        "hidden": ("hidden1/kernel",),
        "output": ("output/kernel",),
        "fixed": ("output/bias",),
    },
    "resnet": {
        "input": ("stem_conv/kernel", "stem_norm/batch/scale", "stage1_block0/norm0/batch/bias"),
        "hidden": ("stage0_block0/conv0/kernel", "stage1_block0/shortcut_conv/kernel"),
        "output": ("output/kernel",),
        "fixed": ("output/bias",),
    },
    "vit": {
        "input": ("patches/kernel", "positions/embed/embedding", "class", "output_norm/layer/scale"),
        "hidden": ("layers/block0/attention/query/kernel", "layers/block0/mlp/output/kernel"),
        "output": ("output/kernel",),
        "fixed": ("output/bias",),
    },
    "bert": {
        "input": ("encoder/token_embedding/embedding", "encoder/type_embedding/embedding", "transform/bias"),
        "hidden": ("encoder/layers/block0/attention/value/kernel", "transform/kernel"),
        "fixed": ("bias",),
    },
    "gpt": {
        "input": ("token_embedding/embedding", "position_embedding/embed/embedding", "layers/block0/mlp/hidden/bias"),
        "hidden": ("layers/block0/mlp/hidden/kernel", "layers/block0/attention/output/kernel"),
    },
    "gpt scan": {
        "input": ("token_embedding/embedding", "layers/block/mlp/hidden/bias", "output_norm/layer/scale"),
        "hidden": ("layers/block/mlp/hidden/kernel",),
        "output": ("head/kernel",),
    },
}


@pytest.mark.parametrize("family", KINDS)
def test_each_array_has_the_row_of_table_3(family):
    scales, model = scales_of(family)
    base, inputs = FAMILIES[family]
    params = init_of(inputs)(model)
    ours, bases, scaled = (dict(_flat(tree)) for tree in (params, init_of(inputs)(base), scale_initial(params, scales)))
    for kind, paths in KINDS[family].items():
        for path in paths:
            deviation, sgd, adam = table_3(kind)
            scale = scales[path]
            # What the array itself moves by: c for Adam's steps, and once more for SGD's, as the gradient has it too.
            assert scale.adam * scale.multiplier == pytest.approx(adam), path
            assert scale.sgd * scale.multiplier**2 == pytest.approx(sgd), path
            if np.any(bases[path]):  # the same draws, where both arrays begin
                row = ours[path].reshape(-1)[:3], bases[path].reshape(-1)[:3], scaled[path].reshape(-1)[:3]
                np.testing.assert_allclose(row[2] / row[1], deviation, rtol=1e-4, err_msg=path)


def _flat(tree):
    for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield jax.tree_util.keystr(keys, simple=True, separator="/"), np.asarray(leaf)


@pytest.mark.parametrize("name", ["truncated_normal", "lecun_normal", "xavier_uniform", "he_normal_fan_out"])
def test_whatever_the_initializer_initial_values_are_those_of_the_base_width(name):
    """Of hidden arrays 1 / sqrt(ratio) of it, of outputs 1 / ratio: sampled over 10,000 numbers and more."""
    base = MLP(widths=(64, 64), num_outputs=100, initializer=name)
    model = dataclasses.replace(base, widths=(256, 256))
    init = init_of(jnp.zeros((1, 200)))
    params, bases = scale_initial(init(model), maximal_update(init, model, base)), init(base)
    for layer, factor in (("hidden0", 1), ("hidden1", 0.5), ("output", 0.25)):
        # Of n numbers the deviation is known to 1 / sqrt(2 n): of 4,096 to 1.1 %.
        ours, theirs = (float(each[layer]["kernel"].std()) for each in (params, bases))
        assert ours == pytest.approx(factor * theirs, rel=0.05)


def test_draws_that_are_not_independent_are_refused():
    base = MLP(widths=(8, 8), initializer="orthogonal")
    with pytest.raises(InputError, match="initial values of hidden./kernel are not one deviation times"):
        maximal_update(init_of(jnp.zeros((1, 5))), dataclasses.replace(base, widths=(32, 32)), base)


def test_a_tied_head_is_divided_by_the_ratio_and_logits_of_attention_by_the_head_size():
    scales, model = scales_of("gpt", num_heads=8)  # 8 heads of 1 at the base width, of 4 at this one
    assert scales["output_norm/layer/scale"].multiplier == 1 / RATIO
    assert scales["output_norm/layer/bias"].multiplier == 1 / RATIO
    assert scales["layers/block0/attention/query/kernel"].multiplier == 0.5  # 1 / sqrt(4), beside the layer's own
    assert scales["layers/block0/attention/query/bias"].multiplier == 0.5
    assert scales["layers/block0/attention/key/kernel"].multiplier == 1
    # The multiplier of what the head reads is that of the logits.
    params = init_of(TOKENS)(model)
    logits = model.apply({"params": params}, TOKENS, train=False)
    seen = {**params, "output_norm": jax.tree.map(lambda x: x / RATIO, params["output_norm"])}
    np.testing.assert_allclose(model.apply({"params": seen}, TOKENS, train=False), logits / RATIO, rtol=1e-5)


def test_embeddings_that_are_multiplied_by_the_root_of_the_width_are_divided_by_it():
    base = dataclasses.replace(GPT_BASE, positions="sinusoidal")
    scales = maximal_update(init_of(TOKENS), at_width(base, 32), base)
    assert scales["token_embedding/embedding"].multiplier == 0.5
    assert scales["token_embedding/embedding"].multiplier * scales["output_norm/layer/scale"].multiplier == 1 / RATIO


@pytest.mark.parametrize("family", FAMILIES)
def test_at_the_base_width_there_is_nothing_to_scale(family):
    scales, _ = scales_of(family, ratio=1)
    assert set(scales.values()) == {Scale()}


def test_a_model_at_another_width_keeps_its_proportions():
    model = create("gpt", width=64, num_heads=4, num_kv_heads=2, mlp_width=192)
    wide = at_width(model, 128)
    assert (wide.width, wide.num_heads, wide.num_kv_heads, wide.mlp_width) == (128, 8, 4, 384)
    same_heads = at_width(model, 128, num_heads=4)
    assert (same_heads.width, same_heads.num_heads, same_heads.num_kv_heads) == (128, 4, 2)
    assert at_width(create("mlp", widths=(64, 32)), 128).widths == (128, 64)
    assert at_width(create("resnet20"), 64).width == 64


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--parametrization=mup"], "needs the width at which it is the standard one: --base_width=64"),
        (["--base_width=8"], "--base_width=8 needs --parametrization=mup"),
        (["--base_num_heads=8"], "--base_num_heads=8 needs --parametrization=mup"),
        ([*MUP, "--model.widths=16,10", "--base_width=4"], "widths=10 of width 16 would be 2.5 at width 4"),
        ([*MUP, "--base_num_heads=2"], "MLP has no attention heads"),
        ([*MUP, "--model.widths="], "MLP does not say how it is at another width"),
        ([*MUP, "--model=softmax_regression"], "SoftmaxRegression does not say how .*; mlp, resnet, gpt, vit and bert"),
        ([*MUP, "--optimizer=lamb"], "no rule for LAMB; it has for sgd, and for adam,"),
        ([*MUP, "--l2_penalty=0.1"], "--l2_penalty has another meaning at each width, .*; --weight_decay has not"),
        ([*MUP, "--clip_value=0.1"], "--clip_value has another meaning at each width, .*; --clip_norm has not"),
        ([*MUP, "--model.initializer=orthogonal", "--model.widths=16,16"], "orthogonal is none that serves"),
        (["--base_width=0"], "--base_width=0: expected a whole number, at least 1"),
    ],
)
def test_bad_input_is_told_in_one_line(flags, message):
    with pytest.raises(InputError, match=message) as raised:
        experiment.build(parse([*DIGITS, "--steps=2", *flags]))
    assert "\n" not in str(raised.value)


def test_heads_that_would_not_be_whole_are_told():
    with pytest.raises(
        InputError, match="num_heads=4 of width 64 would be 0.5 at width 8: .* or give --base_num_heads"
    ):
        at_width(create("vit", width=64, num_heads=4), 8)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_has_a_rule_or_is_refused(name):
    optimizer = OPTIMIZERS[name].load()()
    assert optimizer.mup in ("sgd", "adam", None)
    if optimizer.mup is None:
        with pytest.raises(InputError, match="has no rule for"):
            Parametrization("mup", 8).scales(FAMILIES["mlp"][0], None, Update(), optimizer)


@pytest.mark.parametrize("optimizer", [SGD(momentum=0.9), AdamW()])
def test_decay_takes_the_same_share_of_every_array_at_every_width(optimizer):
    scales, model = scales_of("mlp")
    params = scale_initial(init_of(jnp.zeros((1, 5)))(model), scales)
    update = Update(learning_rate=0.1, weight_decay=0.3, weight_decay_mask="all")
    transformation, _ = build_optimizer(update, optimizer, Constant(), params, 9, scales)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = transformation.update(zero, transformation.init(params), params, step=0)
    jax.tree.map(lambda u, p: np.testing.assert_allclose(u, -0.03 * p, rtol=1e-5), updates, params)


def _trained(flags, steps=3):
    program = experiment.build(parse([*DIGITS, f"--steps={steps}", *flags]))
    batches = [program.pipeline(16).batch(step) for step in range(steps)]
    state = program.init(0, batches[0])
    step = jax.jit(program.step)
    for batch in batches:
        state, _ = step(state, batch)
    return state


@pytest.mark.parametrize("optimizer", [["--optimizer=adamw", "--clip_norm=0.5"], ["--optimizer=sgd"]])
def test_at_the_base_width_it_is_the_standard_one_to_the_bit(optimizer):
    flags = [*optimizer, "--model.widths=8,8"]
    ours, standard = _trained([*flags, *MUP]), _trained(flags)
    jax.tree.map(np.testing.assert_array_equal, ours.params, standard.params)


def test_a_run_that_is_continued_is_the_run_that_was_not_stopped(tmp_path):
    flags = [*DIGITS, *MUP, "--model.widths=16,16", "--optimizer=adamw", "--checkpoint_every=2"]
    for steps, name in ((4, "parts"), (8, "parts"), (8, "whole")):
        settings = parse([*flags, f"--steps={steps}", f"--workdir={tmp_path / name}"])
        assert experiment.run(settings).status == 0
    assert read_metrics(tmp_path / "parts") == read_metrics(tmp_path / "whole")


def test_the_example_in_the_docstring():
    results = doctest.testmod(parametrization)
    assert results.attempted and not results.failed


def test_parameters_of_another_run_are_taken_as_they_are(tmp_path):
    flags = [*DIGITS, *MUP, "--model.widths=16,16", "--learning_rate=0", "--steps=2"]
    first = experiment.run(parse([*flags, "--seed=5", f"--workdir={tmp_path / 'first'}"]))
    taken = [*flags, f"--initialize_from={tmp_path / 'first'}", f"--workdir={tmp_path / 'second'}"]
    second = experiment.run(parse(taken))
    jax.tree.map(np.testing.assert_array_equal, second.state.params, first.state.params)
