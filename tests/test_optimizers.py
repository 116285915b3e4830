"""Optimizers against Optax's own, the common chain's masks, clips and patterns, traced fields, state types."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.catalog import find
from jaxdl.errors import InputError
from jaxdl.optimizers import OPTIMIZERS, Update, build_optimizer, ema_update
from jaxdl.paths import weight_mask
from jaxdl.schedules import Constant, Cosine, Polynomial, ReduceOnPlateau

RATE, DECAY = 0.05, 0.1


def create(name, **fields):
    entry = find(OPTIMIZERS, name, "optimizer")
    return entry.load()(**{**entry.fields, **fields})


@pytest.fixture
def params():
    normal = lambda *shape: jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    return {
        "Dense_0": {"kernel": normal(4, 3), "bias": jnp.ones(3)},
        "Conv_0": {"kernel": normal(3, 3, 2, 2), "bias": jnp.zeros(2)},
        "LayerNorm_0": {"scale": jnp.ones(3)},
        "Attention_0": {"query": {"bias": jnp.ones((2, 3))}},
        "Embed_0": {"embedding": normal(5, 2)},
    }


@pytest.fixture
def small(params):
    return {"Dense_0": params["Dense_0"]}


def gradients(params, step):
    """Made-up gradients that differ from element to element and from step to step."""
    return jax.tree.map(lambda p: jnp.sin(1.7 * jnp.arange(p.size).reshape(p.shape) + 2.3 * step + p.ndim), params)


def train(transformation, params, steps=5):
    """Parameters and state after some updates; an Optax alias takes no `step` and ignores it."""
    transformation = optax.with_extra_args_support(transformation)

    def update(carry, step):
        params, state = carry
        updates, state = transformation.update(gradients(params, step), state, params, step=step)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(update, (params, transformation.init(params)), jnp.arange(steps))[0]


def build(params, name="sgd", schedule=Constant(), fields={}, total_steps=5, **update):
    update = Update(**{"learning_rate": RATE, **update})
    return build_optimizer(update, create(name, **fields), schedule, params, total_steps)


SCHEDULE = Polynomial(power=1.0, end_ratio=0.1)
RATES = optax.linear_schedule(RATE, RATE / 10, 5)

OPTAX = [
    ("sgd", {}, optax.sgd(RATES), 0.0),
    ("sgd", {"momentum": 0.9}, optax.sgd(RATES, 0.9), 0.0),
    ("sgd", {"momentum": 0.9, "nesterov": True}, optax.sgd(RATES, 0.9, nesterov=True), 0.0),
    ("rmsprop", {}, optax.rmsprop(RATES), 0.0),
    (
        "rmsprop",
        {"centered": True, "decay": 0.8, "eps_in_sqrt": False},
        optax.rmsprop(RATES, 0.8, centered=True, eps_in_sqrt=False),
        0.0,
    ),
    ("adagrad", {}, optax.adagrad(RATES), 0.0),
    ("adam", {"b1": 0.8}, optax.adam(RATES, b1=0.8), 0.0),
    ("adam", {}, optax.adamw(RATES, weight_decay=DECAY), DECAY),
    ("nadam", {}, optax.nadam(RATES), 0.0),
    ("adamw", {}, optax.adamw(RATES), None),
    ("adamw", {"b2": 0.95, "eps": 1e-3}, optax.adamw(RATES, b2=0.95, eps=1e-3, weight_decay=DECAY), DECAY),
    ("radam", {}, optax.radam(RATES), 0.0),
    ("lamb", {}, optax.lamb(RATES), None),
    ("lamb", {}, optax.lamb(RATES, weight_decay=DECAY), DECAY),
    ("lion", {}, optax.lion(RATES), None),
    ("lion", {"b1": 0.8}, optax.lion(RATES, 0.8, weight_decay=DECAY), DECAY),
    ("adafactor", {}, optax.adafactor(RATES), None),
    (
        "adafactor",
        {"min_dim_size_to_factor": 2, "clipping_threshold": None},
        optax.adafactor(RATES, 2, clipping_threshold=None),
        None,
    ),
    ("muon", {"exclude": ()}, optax.contrib.muon(RATES), None),
    ("muon", {"exclude": (), "rms": 0.2}, optax.contrib.muon(RATES, consistent_rms=0.2), None),
    ("muon", {"exclude": ()}, optax.contrib.muon(RATES, weight_decay=DECAY, adam_weight_decay=DECAY), DECAY),
]


@pytest.mark.parametrize("name, fields, expected, decay", OPTAX)
def test_the_numbers_are_optaxs(small, name, fields, expected, decay):
    transformation, _ = build(small, name, SCHEDULE, fields, weight_decay=decay, weight_decay_mask="all")
    chex.assert_trees_all_close(train(transformation, small)[0], train(expected, small)[0], rtol=1e-5, atol=1e-6)


def test_the_table_against_optax_has_every_optimizer():
    assert {name for name, *_ in OPTAX} == set(OPTIMIZERS)


# Optax's aliases apply the learning rate before the momentum; the numbers are the same while it is constant.
@pytest.mark.parametrize(
    "name, fields, expected",
    [
        ("rmsprop", {"momentum": 0.9}, optax.rmsprop(RATE, momentum=0.9)),
        ("rmsprop", {"momentum": 0.9, "nesterov": True}, optax.rmsprop(RATE, momentum=0.9, nesterov=True)),
        ("adafactor", {"momentum": 0.9}, optax.adafactor(RATE, momentum=0.9, weight_decay_rate=RATE * DECAY)),
    ],
)
def test_momentum_comes_before_the_learning_rate(small, name, fields, expected):
    decay = DECAY if name == "adafactor" else 0.0
    transformation, _ = build(small, name, fields=fields, weight_decay=decay, weight_decay_mask="all")
    chex.assert_trees_all_close(train(transformation, small)[0], train(expected, small)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_descends_a_quadratic(name):
    def loss(params):
        return sum(jnp.sum((leaf - 1) ** 2) for leaf in jax.tree.leaves(params))

    params = {"Dense_0": {"kernel": jnp.zeros((3, 2)) + 0.1, "bias": jnp.zeros(2) + 0.1}}
    transformation, _ = build(params, name)
    state, first = transformation.init(params), loss(params)

    @jax.jit
    def step(index, carry):
        params, state = carry
        updates, state = transformation.update(jax.grad(loss)(params), state, params, step=index)
        return optax.apply_updates(params, updates), state

    params, _ = jax.lax.fori_loop(0, 30, step, (params, state))
    assert loss(params) < 0.8 * first


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_float_fields_may_be_traced(small, name):
    """A vmap over four settings, through init and five updates, is separate runs."""

    def run(setting):
        momentum, rate, decay, norm = setting
        optimizer = create(name)
        fields = {field: momentum for field in ("momentum", "b1", "decay") if hasattr(optimizer, field)}
        clips = {"clip_norm": norm, "clip_block_norm": 2 * norm, "clip_value": norm}
        update = Update(learning_rate=rate, weight_decay=decay, **clips)
        schedule = Cosine(end_ratio=decay, warmup_fraction=momentum / 10)
        transformation, learning_rate = build_optimizer(
            update, dataclasses.replace(optimizer, **fields), schedule, small, 5
        )
        trained, state = train(transformation, small)
        return trained, learning_rate(3, state)

    settings = jnp.array([[0.5, 0.1, 0.01, 1], [0.9, 0.01, 0, 0.3], [0.8, 0.001, 0.5, 100], [0, 0, 0.1, 2]])
    actual = jax.jit(jax.vmap(run))(settings)
    for index in (0, 3):
        # The iterations of Muon amplify roundings; the others add a few up.
        tolerance = 2e-4 if name == "muon" else 1e-5
        expected = run(settings[index].tolist())
        chex.assert_trees_all_close(jax.tree.map(lambda x: x[index], actual), expected, rtol=tolerance, atol=1e-6)


def test_decay_leaves_biases_and_norm_scales_alone(params):
    zero = jax.tree.map(jnp.zeros_like, params)
    for which, decayed in {
        "kernels": {"Dense_0/kernel", "Conv_0/kernel", "Embed_0/embedding"},
        "all": {path for path, _ in named(params)},
    }.items():
        transformation, _ = build(params, "adamw", weight_decay=DECAY, weight_decay_mask=which)
        updates, _ = transformation.update(zero, transformation.init(params), params, step=0)
        for (path, update), (_, param) in zip(named(updates), named(params)):
            np.testing.assert_allclose(update, -RATE * DECAY * param * (path in decayed), rtol=1e-6, err_msg=path)
        masked = {path for path, keep in named(weight_mask(params, which)) if keep}
        assert masked == decayed


def named(tree):
    return [("/".join(key.key for key in keys), leaf) for keys, leaf in jax.tree.leaves_with_path(tree)]


def test_the_default_decay_is_the_optimizers_own_and_zero_turns_it_off(small):
    default, _ = train(build(small, "lion")[0], small)
    chex.assert_trees_all_equal(default, train(build(small, "lion", weight_decay=1e-3)[0], small)[0])
    without, _ = train(build(small, "lion", weight_decay=0.0)[0], small)
    assert not jnp.array_equal(default["Dense_0"]["kernel"], without["Dense_0"]["kernel"])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_is_frozen_keeps_its_bits_and_the_rest_trains_as_if_alone(params, name):
    transformation, _ = build(params, name, freeze=("Dense_0", "*/embedding"), weight_decay=DECAY, clip_norm=0.5)
    trained, state = train(transformation, params)
    frozen = ("Dense_0", "Embed_0")
    chex.assert_trees_all_equal({k: trained[k] for k in frozen}, {k: params[k] for k in frozen})

    rest = {key: value for key, value in params.items() if key not in frozen}
    alone, _ = build(rest, name, weight_decay=DECAY, clip_norm=0.5)
    expected, expected_state = train(alone, rest)
    chex.assert_trees_all_close({key: trained[key] for key in rest}, expected, rtol=1e-5, atol=1e-6)
    assert jax.tree.map(jnp.shape, jax.tree.leaves(state)) == jax.tree.map(jnp.shape, jax.tree.leaves(expected_state))


def test_learning_rates_by_path_multiply(params):
    scales = ("Dense_0=0.1", "*/bias=2", "Embed_0/*=0")
    transformation, _ = build(params, weight_decay=DECAY, learning_rate_scales=scales)
    plain, _ = build(params, weight_decay=DECAY)
    updates, _ = transformation.update(gradients(params, 0), transformation.init(params), params, step=0)
    expected, _ = plain.update(gradients(params, 0), plain.init(params), params, step=0)
    factors = {"Dense_0/kernel": 0.1, "Dense_0/bias": 0.2, "Conv_0/bias": 2, "Attention_0/query/bias": 2}
    factors |= {"Embed_0/embedding": 0}
    for (path, update), (_, base) in zip(named(updates), named(expected)):
        np.testing.assert_allclose(update, factors.get(path, 1) * base, rtol=1e-6, err_msg=path)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"freeze": ("Dens_0",)}, "--freeze: no parameter matches 'Dens_0'. Did you mean 'Dense_0'?"),
        ({"freeze": ("Dense_0/kernle",)}, "matches 'Dense_0/kernle'. Did you mean 'Dense_0/kernel'?"),
        ({"freeze": ("xyz",)}, "There are, for example, Attention_0/query/bias, Conv_0/bias, "),
        ({"learning_rate_scales": ("dense_0=0.1",)}, "--learning_rate_scales: no parameter matches 'dense_0'."),
        ({"learning_rate_scales": ("Dense_0",)}, "'Dense_0' is not pattern=factor"),
        ({"learning_rate_scales": ("Dense_0=fast",)}, "'Dense_0=fast' is not pattern=factor"),
        ({"learning_rate_scales": ("Dense_0=-1",)}, "a factor of at least 0"),
        ({"learning_rate_scales": ("Dense_0=nan",)}, "a factor of at least 0"),
        ({"learning_rate_scales": ("=0.1",)}, "'=0.1' is not pattern=factor"),
    ],
)
def test_a_wrong_pattern_is_told_in_one_line(params, fields, message):
    with pytest.raises(InputError) as raised:
        build(jax.eval_shape(lambda: params), **fields)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_clipping_by_value_by_block_and_by_norm(params):
    grads = jax.tree.map(lambda p: jnp.full_like(p, 3.0), params)

    def direction(**clips):
        transformation, _ = build(params, learning_rate=1.0, **clips)
        updates, _ = transformation.update(grads, transformation.init(params), params, step=0)
        return jax.tree.map(jnp.negative, updates)

    chex.assert_trees_all_equal(direction(), grads)
    chex.assert_trees_all_equal(direction(clip_value=2.0), jax.tree.map(lambda g: jnp.full_like(g, 2.0), grads))
    np.testing.assert_allclose(optax.tree.norm(direction(clip_norm=1.5)), 1.5, rtol=1e-6)
    for block in jax.tree.leaves(direction(clip_block_norm=1.5)):
        np.testing.assert_allclose(jnp.linalg.norm(block.ravel()), 1.5, rtol=1e-6)
    chex.assert_trees_all_equal(direction(clip_value=10.0, clip_block_norm=100.0, clip_norm=100.0), grads)
    # In this order: elements first, the whole last.
    all_three = direction(clip_value=2.0, clip_block_norm=1.5, clip_norm=1.0)
    np.testing.assert_allclose(optax.tree.norm(all_three), 1.0, rtol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_the_state_is_float32_whatever_the_gradients_are(params, name, dtype):
    half = jax.tree.map(lambda p: p.astype(dtype), params)
    transformation, learning_rate = build(half, name)
    state = transformation.init(half)
    updates, new_state = transformation.update(half, state, half, step=0)
    for leaf in jax.tree.leaves((state, new_state, updates)):
        assert leaf.dtype == (jnp.int32 if jnp.issubdtype(leaf.dtype, jnp.integer) else jnp.float32)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, new_state)
    assert learning_rate(0, new_state).dtype == jnp.float32


def test_the_learning_rate_follows_the_step_even_where_updates_were_skipped(params):
    transformation, learning_rate = build(params, schedule=Cosine(), total_steps=10)
    state, grads = transformation.init(params), gradients(params, 0)
    for step in (0, 5, 9):
        updates, _ = transformation.update(grads, state, params, step=jnp.int32(step))
        chex.assert_trees_all_close(updates, jax.tree.map(lambda g: -learning_rate(step, state) * g, grads), rtol=1e-6)


@pytest.mark.parametrize("freeze", [(), ("Dense_0",)])
def test_reduce_on_plateau_is_in_the_update_the_state_and_the_logged_rate(params, freeze):
    schedule = ReduceOnPlateau(warmup_steps=2, average_steps=1, patience=1, decay=0.5)
    transformation, learning_rate = build(params, schedule=schedule, freeze=freeze)
    state, grads = transformation.init(params), gradients(params, 0)
    for step, (value, factor) in enumerate([(2.0, 0.0), (1.0, 0.5), (1.0, 0.5), (0.5, 0.5), (0.5, 0.25)]):
        updates, state = transformation.update(grads, state, params, value=value, step=step)
        np.testing.assert_allclose(learning_rate(step, state), RATE * factor, rtol=1e-6)
        np.testing.assert_allclose(updates["Conv_0"]["kernel"], -RATE * factor * grads["Conv_0"]["kernel"], rtol=1e-6)


@pytest.mark.parametrize("debias", [False, True])
def test_the_average_of_parameters_is_the_sum_of_its_weights(debias):
    values, decay = np.array([3.0, -1.0, 4.0, 1.0, 5.0]), 0.9
    ema = {"w": jnp.float32(100.0)}
    for step, value in enumerate(values):
        ema = jax.jit(ema_update, static_argnames="debias")(ema, {"w": jnp.float32(value)}, decay, step, debias)
    weights = (1 - decay) * decay ** np.arange(4, -1, -1)
    expected = weights @ values / weights.sum() if debias else weights @ values + decay**5 * 100.0
    np.testing.assert_allclose(ema["w"], expected, rtol=1e-5)


def test_an_average_without_decay_is_the_parameters():
    ema = ema_update({"w": jnp.float32(100.0)}, {"w": jnp.float32(2.0)}, 0.0, 0, debias=True)
    assert ema["w"] == 2.0
