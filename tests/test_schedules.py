"""Schedules: values by hand at the steps that matter, Optax's and SGDR's formulas everywhere, traced fields."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.catalog import find
from jaxdl.config import fields_of
from jaxdl.errors import InputError
from jaxdl.schedules import SCHEDULES

PEAK, STEPS = 0.5, 100

WARM = {"warmup_steps": 10}
EXAMPLE = {name: {} for name in SCHEDULES} | {
    "step": {"milestones": (30, 60)},
    "exponential": {"every": 50},
    "cosine_restarts": {"cycle_steps": 20, "cycle_multiplier": 2},
    "triangular": {"half_cycle_steps": 15},
}
"""For each schedule, fields with which it does something within 100 steps."""


def create(name, **fields):
    entry = find(SCHEDULES, name, "schedule")
    return entry.load()(**{**entry.fields, **fields})


# Steps to multiples of the peak: the start, the end of the warm-up, the peak, turning points, the end, beyond.
POINTS = [
    ("constant", {}, {0: 1, 50: 1, 100: 1, 1000: 1}),
    ("constant", WARM, {0: 0, 5: 0.5, 9: 0.9, 10: 1, 100: 1}),
    ("constant", {"warmup_fraction": 0.2}, {0: 0, 10: 0.5, 20: 1}),
    ("constant", {"warmup_steps": 10, "warmup_fraction": 0.1}, {0: 0, 10: 0.5, 20: 1}),
    ("constant", {"warmup_steps": 200}, {0: 0, 100: 0.5, 200: 1}),
    ("step", {"milestones": (30, 60)}, {0: 1, 29: 1, 30: 0.1, 59: 0.1, 60: 0.01, 100: 0.01}),
    ("step", {"milestones": (60, 30), "decay": 0.5, **WARM}, {5: 0.5, 10: 1, 30: 0.5, 60: 0.25}),
    ("step", {"every": 20, **WARM}, {0: 0, 10: 1, 29: 1, 30: 0.1, 50: 0.01}),
    ("exponential", {"decay": 0.25, "every": 10, **WARM}, {0: 0, 10: 1, 15: 0.5, 20: 0.25, 30: 0.0625}),
    ("exponential", {"decay": 0.25, "every": 10, "end_ratio": 0.1}, {0: 1, 10: 0.25, 20: 0.1, 100: 0.1}),
    ("polynomial", {**WARM, "end_ratio": 0.2}, {0: 0, 10: 1, 55: 0.2 + 0.8 / 4, 100: 0.2, 150: 0.2}),
    ("linear", WARM, {0: 0, 10: 1, 55: 0.5, 100: 0, 150: 0}),
    ("cosine", {**WARM, "end_ratio": 0.1}, {0: 0, 10: 1, 55: 0.55, 100: 0.1, 150: 0.1}),
    ("cosine", {"warmup_steps": 100}, {0: 0, 50: 0.5, 100: 1, 101: 0}),
    (
        "cosine_restarts",
        {"cycle_steps": 10, "cycle_multiplier": 2, "restart_decay": 0.5, "end_ratio": 0.2, **WARM},
        {0: 0, 10: 1, 15: 0.6, 20: 0.5, 30: 0.3, 40: 0.25, 60: 0.15, 80: 0.125},
    ),
    ("triangular", {"half_cycle_steps": 20}, {0: 0.1, 10: 0.55, 20: 1, 40: 0.1, 60: 1}),
    ("triangular", {"half_cycle_steps": 20, "variant": "triangular2"}, {0: 0.1, 20: 1, 40: 0.1, 60: 0.55, 100: 0.325}),
    ("triangular", {"half_cycle_steps": 20, "variant": "exp_range", "decay": 0.9}, {20: 0.1 + 0.9**21, 40: 0.1}),
    ("one_cycle", {}, {0: 0.04, 15: 0.52, 30: 1, 65: 0.5 + 2e-6, 100: 4e-6}),
    ("one_cycle", {"shape": "linear"}, {0: 0.04, 15: 0.52, 30: 1, 85: 0.04, 100: 4e-6}),
    ("one_cycle", {"peak_fraction": 0.0}, {0: 1, 50: 0.5 + 2e-6, 100: 4e-6}),
    ("wsd", {**WARM, "end_ratio": 0.2}, {0: 0, 10: 1, 80: 1, 85: 0.6, 100: 0.2, 150: 0.2}),
    ("wsd", {"shape": "linear"}, {0: 1, 80: 1, 90: 0.5, 100: 0}),
    ("wsd", {"shape": "cosine"}, {0: 1, 80: 1, 85: (1 + math.sqrt(0.5)) / 2, 90: 0.5, 100: 0}),
    ("wsd", {"decay_fraction": 1.0, "shape": "linear", **WARM}, {0: 0, 10: 1, 55: 0.5, 100: 0}),
    ("reduce_on_plateau", WARM, {0: 0, 10: 1, 100: 1}),
]


@pytest.mark.parametrize("name, fields, points", POINTS)
def test_the_learning_rate_at_the_steps_that_matter(name, fields, points):
    learning_rate = create(name, **fields).build(PEAK, STEPS)
    for step, factor in points.items():
        # A cosine that ends at zero leaves a few float32 roundings of the peak.
        np.testing.assert_allclose(learning_rate(step), PEAK * factor, rtol=2e-6, atol=1e-7, err_msg=f"step {step}")


def test_the_table_of_points_has_every_schedule():
    assert {name for name, _, _ in POINTS} == set(SCHEDULES)


OPTAX = [
    ("step", {"milestones": (30, 60), "decay": 0.2}, optax.piecewise_constant_schedule(PEAK, {30: 0.2, 60: 0.2})),
    ("exponential", {"decay": 0.3, "every": 7}, optax.exponential_decay(PEAK, 7, 0.3)),
    ("polynomial", {"power": 1.7, "end_ratio": 0.2}, optax.polynomial_schedule(PEAK, 0.1, 1.7, STEPS)),
    (
        "linear",
        WARM,
        optax.join_schedules([optax.linear_schedule(0, PEAK, 10), optax.linear_schedule(PEAK, 0, 90)], [10]),
    ),
    ("cosine", {**WARM, "end_ratio": 0.2}, optax.warmup_cosine_decay_schedule(0, PEAK, 10, STEPS, 0.1)),
    (
        "cosine_restarts",
        {"cycle_steps": 15, "cycle_multiplier": 2, "end_ratio": 0.2},
        optax.sgdr_schedule(
            {"init_value": 0, "peak_value": PEAK, "warmup_steps": 0, "decay_steps": steps, "end_value": 0.1}
            for steps in (15, 30, 60)
        ),
    ),
    ("one_cycle", {}, optax.cosine_onecycle_schedule(STEPS, PEAK)),
    (
        "one_cycle",
        {"shape": "linear", "end_ratio": 0.001},
        optax.linear_onecycle_schedule(STEPS, PEAK, final_div_factor=40.0),
    ),
]


@pytest.mark.parametrize("name, fields, expected", OPTAX)
def test_every_step_is_optaxs(name, fields, expected):
    steps = jnp.arange(STEPS + 1)
    actual = jax.vmap(create(name, **fields).build(PEAK, STEPS))(steps)
    np.testing.assert_allclose(actual, jax.vmap(expected)(steps), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", SCHEDULES)
def test_fields_may_be_traced(name):
    """A vmap over the peak and all float fields is as many separate schedules, under jit as without."""
    schedule = create(name, **EXAMPLE[name])
    plain = {"decay", "rtol"} if name == "reduce_on_plateau" else set()
    floats = [name for name, field in fields_of(type(schedule)).items() if field.kind is float and name not in plain]

    def learning_rates(scale):
        changed = {field: getattr(schedule, field) * scale + 0.01 for field in floats}
        learning_rate = dataclasses.replace(schedule, **changed).build(PEAK * scale, STEPS)
        return jnp.stack([learning_rate(step) for step in (0, 1, 7, 33, 60, 99)])

    scales = jnp.array([0.4, 0.7, 0.9])
    actual = jax.jit(jax.vmap(learning_rates))(scales)
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, np.stack([learning_rates(float(s)) for s in scales]), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_longer_run_has_the_same_warm_up_and_the_step_may_be_an_array(name):
    schedule = create(name, **EXAMPLE[name], **WARM)
    short, long = schedule.build(PEAK, STEPS), schedule.build(PEAK, 10 * STEPS)
    np.testing.assert_allclose(short(5), long(5), rtol=1e-6)
    np.testing.assert_allclose(short(jnp.int32(50)), short(50), rtol=1e-6)
    assert short(50).dtype == jnp.float32 and short(50).shape == ()


def test_a_step_schedule_without_steps_says_what_to_type():
    with pytest.raises(InputError, match="--schedule.milestones=.* or --schedule.every="):
        create("step").build(PEAK, STEPS)


def scales_of(values, **fields):
    """The scale of `reduce_on_plateau` after each of these losses."""
    plateau = create("reduce_on_plateau", **fields).scale_by_plateau()
    state, scales = plateau.init({"w": jnp.ones(2)}), []
    for value in values:
        updates, state = plateau.update({"w": jnp.ones(2)}, state, value=jnp.float32(value))
        np.testing.assert_array_equal(updates["w"], state.scale * jnp.ones(2))
        scales.append(float(state.scale))
    return scales


@pytest.mark.parametrize(
    "values, fields, expected",
    [
        ((4, 3, 2, 1), {"patience": 1}, (1, 1, 1, 1)),
        ((4, 4, 4, 3, 3), {"patience": 2, "decay": 0.5}, (1, 1, 0.5, 0.5, 0.5)),
        ((4, 4, 4, 4), {"patience": 1, "decay": 0.5, "end_ratio": 0.3}, (1, 0.5, 0.3, 0.3)),
        ((4, 4, 4, 4), {"patience": 1, "decay": 0.5, "cooldown": 1}, (1, 0.5, 0.5, 0.25)),
        ((4, 3.7, 3.4), {"patience": 1, "decay": 0.5, "rtol": 0.1}, (1, 0.5, 0.5)),
        # Averages over two steps: 4, 4 and 3, the second of which is no better.
        ((5, 3, 3, 5, 4, 2), {"patience": 1, "decay": 0.5, "average_steps": 2}, (1, 1, 1, 0.5, 0.5, 0.5)),
    ],
)
def test_a_plateau_reduces_the_learning_rate(values, fields, expected):
    np.testing.assert_allclose(scales_of(values, **{"average_steps": 1, **fields}), expected, rtol=1e-6)
