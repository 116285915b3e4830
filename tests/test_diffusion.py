"""Diffusion's pure functions against closed forms: marginals, posteriors, predictions, sampling, and the bound."""

import doctest
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import diffusion
from jaxdl.diffusion import cosine_schedule, linear_schedule
from jaxdl.errors import InputError

SCHEDULES = {"linear": linear_schedule(100), "cosine": cosine_schedule(100)}
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
PREDICTIONS = ("epsilon", "x0", "v")
X0 = jnp.tanh(jax.random.normal(jax.random.key(0), (5, 3, 2)))
NOISE = jax.random.normal(jax.random.key(1), X0.shape)
TIMES = jnp.array([0, 1, 40, 98, 99])

MEAN, DEVIATION = 0.3, 0.5
"""Of the normal data for which the best denoiser is known."""


def best(schedule, prediction="epsilon"):
    """The denoiser of normal data: E[x_0 | x_t] = mean + signal deviation^2 (x_t - signal mean) / variance of x_t."""

    def predict(x, times):
        signal, rate = (value[:, None] for value in schedule.marginal(times))
        share = signal * DEVIATION**2 / (signal**2 * DEVIATION**2 + rate**2)
        x0 = MEAN + share * (x - signal * MEAN)
        return diffusion.target(schedule, prediction, x0, times, (x - signal * x0) / rate)

    return predict


def uncertainty(schedule):
    """Var[x_0 | x_t] of that data, float64 [T]."""
    share = schedule.alphas_bar[1:]
    return DEVIATION**2 * (1 - share) / (share * DEVIATION**2 + 1 - share)


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


@each_schedule
def test_marginals_are_what_adding_noise_step_by_step_gives(schedule):
    signal, variance = 1.0, 0.0
    for time, beta in enumerate(schedule.betas):
        signal, variance = signal * math.sqrt(1 - beta), variance * (1 - beta) + beta
        ours = schedule.marginal(jnp.int32(time))
        np.testing.assert_allclose(ours, (signal, math.sqrt(variance)), rtol=1e-6)
    assert [float(value) for value in schedule.marginal(jnp.int32(-1))] == [1, 0]
    assert schedule.marginal(jnp.int32(99))[0] < 0.01  # next to nothing of the data is left


@each_schedule
def test_drawn_marginals_have_the_moments_of_the_closed_form(schedule):
    signal, rate = schedule.marginal(jnp.int32(30))
    noise = diffusion.normal(keys(20_000), (1,))
    x = diffusion.add_noise(schedule, jnp.full((20_000, 1), 0.7), jnp.full(20_000, 30), noise)
    # Four standard errors of 20,000 draws.
    assert abs(x.mean() - 0.7 * signal) < 4 * rate / math.sqrt(20_000)
    assert abs(x.std() - rate) < 4 * rate / math.sqrt(40_000)


def test_schedules_are_the_papers():
    linear = linear_schedule(1000)
    np.testing.assert_allclose(linear.betas[[0, 1, -1]], [1e-4, 1e-4 + (0.02 - 1e-4) / 999, 0.02])
    np.testing.assert_allclose(linear_schedule(50).betas.sum(), linear.betas.sum(), rtol=0.02)
    share = np.cos((np.arange(1000) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    cosine = cosine_schedule(1000)
    np.testing.assert_allclose(cosine.alphas_bar[:1000], share / share[0], rtol=1e-9)
    assert cosine.betas.max() == 0.999


@each_schedule
def test_posterior_is_bayes_rule(schedule):
    """q(x_s | x_t, x_0) is the normalised product of q(x_s | x_0) and q(x_t | x_s)."""
    times, earlier = np.array([1, 30, 99]), np.array([0, 12, 98])
    of_x0, of_x, variance = schedule.posterior(times, earlier)
    of_s = schedule.alphas_bar[earlier + 1]
    kept = schedule.alphas_bar[times + 1] / of_s
    precision = 1 / (1 - of_s) + kept / (1 - kept)
    np.testing.assert_allclose(variance, 1 / precision, rtol=1e-9)
    np.testing.assert_allclose(of_x0, np.sqrt(of_s) / (1 - of_s) / precision, rtol=1e-9)
    np.testing.assert_allclose(of_x, np.sqrt(kept) / (1 - kept) / precision, rtol=1e-9)
    assert [float(value[0]) for value in schedule.posterior(np.array([0]), np.array([-1]))] == [1, 0, 0]


@each_schedule
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_what_is_predicted_gives_data_and_noise_back(prediction, schedule):
    x = diffusion.add_noise(schedule, X0, TIMES, NOISE)
    output = diffusion.target(schedule, prediction, X0, TIMES, NOISE)
    # Where nearly nothing of the data or the noise is left, rounding of float32 is divided by as little.
    signal, rate = schedule.marginal(TIMES)
    x0, noise = diffusion.estimates(schedule, prediction, output, x, TIMES)
    for row in range(len(TIMES)):
        np.testing.assert_allclose(x0[row], X0[row], atol=2e-6 / signal[row])
        np.testing.assert_allclose(noise[row], NOISE[row], atol=2e-6 / rate[row])


@pytest.mark.parametrize("prediction", ("x0", "v"))
def test_guidance_is_the_same_of_every_prediction(prediction):
    schedule, times = SCHEDULES["cosine"], jnp.array([20, 40, 50, 60, 80])
    x = diffusion.add_noise(schedule, X0, times, NOISE)
    guided = {}
    for kind in ("epsilon", prediction):
        outputs = []
        for noise in (NOISE, NOISE[::-1]):  # two opinions on what the noise is
            x0 = diffusion.estimates(schedule, "epsilon", noise, x, times)[0]
            outputs.append(diffusion.target(schedule, kind, x0, times, noise))
        guided[kind] = diffusion.estimates(schedule, kind, diffusion.guide(*outputs, 2.5), x, times)
    for ours, theirs in zip(guided[prediction], guided["epsilon"]):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def test_guidance_scale():
    for scale, expected in ((0.0, 1.0), (1.0, 4.0), (2.0, 7.0)):
        assert diffusion.guide(4.0, 1.0, scale) == expected


def test_sampling_times():
    every = list(range(9, -1, -1))
    for spacing in ("trailing", "leading", "linspace"):
        assert diffusion.sampling_times(10, 10, spacing).tolist() == every
    assert diffusion.sampling_times(10, 3, "leading").tolist() == [6, 3, 0]
    assert diffusion.sampling_times(10, 3, "linspace").tolist() == [9, 4, 0]
    assert diffusion.sampling_times(10, 3).tolist() == [9, 6, 2]
    assert doctest.testmod(diffusion).failed == 0
    for steps in (0, 11):
        with pytest.raises(InputError, match=f"{steps} sampling steps: the noise schedule has 10 times, .* 1 to 10"):
            diffusion.sampling_times(10, steps)


@each_schedule
def test_ddim_with_eta_one_is_ancestral(schedule):
    times = diffusion.sampling_times(100, 20)
    ddim, ancestral = diffusion.ddim_steps(schedule, times, 1.0), diffusion.ancestral_steps(schedule, times)
    for ours, theirs in zip(ddim, ancestral):
        np.testing.assert_allclose(ours, theirs, atol=1e-9)
    assert ddim[2][-1] == 0 and not diffusion.ddim_steps(schedule, times)[2].any()


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("variance", ("ddim", "posterior", "beta"))
def test_samples_of_the_best_denoiser_are_the_data(variance, prediction):
    schedule = linear_schedule(400)
    times = diffusion.sampling_times(400, 400)
    steps = (
        diffusion.ddim_steps(schedule, times)
        if variance == "ddim"
        else diffusion.ancestral_steps(schedule, times, variance)
    )
    start = diffusion.normal(keys(4000), (1,))
    x = diffusion.sample(
        best(schedule, prediction), schedule, prediction, times, steps, start, keys(4000, 1), clip=False
    )
    # Four standard errors of 4,000 draws, and what 400 steps leave out: the variance of each is not quite right.
    assert abs(x.mean() - MEAN) < 4 * DEVIATION / math.sqrt(4000) + 0.005
    assert abs(x.std() - DEVIATION) < 4 * DEVIATION / math.sqrt(8000) + 0.01
    if variance == "ddim":  # nothing is drawn on the way: quantiles go to quantiles
        np.testing.assert_allclose(x, MEAN + DEVIATION * start, atol=0.03)


def test_an_example_depends_on_its_own_key_alone_and_the_way_ends_at_the_sample():
    # Not at the last time, where an estimate by noise makes a rounding two thousand times as large.
    schedule, times = SCHEDULES["cosine"], diffusion.sampling_times(100, 5, "leading")
    steps = diffusion.ancestral_steps(schedule, times)

    def sample(rows, **options):
        start = diffusion.normal(keys(6)[rows], (1,))
        return diffusion.sample(best(schedule), schedule, "epsilon", times, steps, start, keys(6)[rows], **options)

    whole, noised, estimated = sample(slice(6), trajectory=True)
    np.testing.assert_allclose(sample(slice(2, 4)), whole[2:4], atol=1e-6)
    assert noised.shape == estimated.shape == (5, 6, 1)
    np.testing.assert_array_equal(noised[-1], whole)


def test_estimates_are_kept_in_range_where_that_is_asked_for():
    schedule, times = SCHEDULES["cosine"], diffusion.sampling_times(100, 4)
    steps = diffusion.ddim_steps(schedule, times)
    predict = lambda x, times: jnp.full_like(x, 5.0)
    for clip, expected in ((True, 1.0), (False, 5.0)):
        x, _, x0 = diffusion.sample(
            predict, schedule, "x0", times, steps, jnp.zeros((2, 3)), keys(2), clip=clip, trajectory=True
        )
        assert (x == expected).all() and (x0 == expected).all()


@pytest.mark.parametrize("variance", ("posterior", "beta"))
def test_the_bound_of_normal_data_is_its_closed_form(variance):
    """Each term is a divergence of normal distributions, whose means differ by what is uncertain about the data."""
    schedule, count = linear_schedule(60), 20_000
    x0 = MEAN + DEVIATION * jax.random.normal(jax.random.key(3), (count, 1))
    ours = diffusion.variational_bound(
        best(schedule), schedule, "epsilon", x0, keys(count), variance=variance, levels=None, clip=False
    )
    every = np.arange(60)
    of_x0, _, spread = schedule.posterior(every, every - 1)
    spread[0] = spread[1]
    of_model = np.where(every == 0, spread, spread if variance == "posterior" else schedule.betas)
    missed = of_x0**2 * uncertainty(schedule) / of_model
    divergences = (spread / of_model - 1 - np.log(spread / of_model) + missed) / 2
    last = math.log(2 * math.pi * spread[0]) / 2 + missed[0] / 2
    share = schedule.alphas_bar[-1]
    prior = (share * (MEAN**2 + DEVIATION**2) - share - math.log(1 - share)) / 2
    expected = divergences[1:].sum() + last + prior
    assert abs(ours.mean() - expected) < 4 * ours.std() / math.sqrt(count)
    assert expected > math.log(2 * math.pi * math.e * DEVIATION**2) / 2  # the entropy


def test_the_bound_comes_near_the_log_likelihood_with_many_times():
    """With beta, the right variance of normal data, but for the last step, whose variance is too small."""
    schedule, count = linear_schedule(1000), 2000
    x0 = MEAN + DEVIATION * jax.random.normal(jax.random.key(3), (count, 1))
    ours = diffusion.variational_bound(
        best(schedule), schedule, "epsilon", x0, keys(count), variance="beta", levels=None, clip=False
    )
    truth = math.log(2 * math.pi * DEVIATION**2) / 2 + ((x0[:, 0] - MEAN) / DEVIATION) ** 2 / 2  # -log p(x_0)
    gap = ours - truth
    assert abs(gap.mean() - 0.1147) < 4 * gap.std() / math.sqrt(count)  # the closed form of the test above


def test_fewer_terms_are_an_estimate_without_bias():
    schedule, count = linear_schedule(60), 20_000
    x0 = MEAN + DEVIATION * jax.random.normal(jax.random.key(3), (count, 1))
    whole, fewer = (
        diffusion.variational_bound(
            best(schedule), schedule, "epsilon", x0, keys(count), num_terms=terms, levels=None, clip=False
        )
        for terms in (60, 7)
    )
    assert abs(whole.mean() - fewer.mean()) < 4 * fewer.std() / math.sqrt(count)
    assert fewer.std() > whole.std()


@pytest.mark.parametrize(("mean", "deviation"), [(0.1, 0.05), (-0.98, 0.3), (1.0, 0.001), (0.0, 3.0)])
def test_levels_share_a_probability_of_one(mean, deviation):
    values = jnp.linspace(-1, 1, 256)
    logs = diffusion._log_likelihood(values, jnp.full(256, mean), jnp.full(256, deviation), 256)
    assert jnp.isfinite(logs).all() and abs(jnp.exp(logs).sum() - 1) < 1e-4


def test_bad_schedules_and_terms():
    with pytest.raises(InputError, match="a linear schedule of 20 times would go from beta 0.005 to 1.*cosine"):
        linear_schedule(20)
    for terms in (0, 101):
        with pytest.raises(InputError, match=f"{terms} terms of the bound: there can be 1 to 100"):
            diffusion.variational_bound(None, SCHEDULES["linear"], "epsilon", X0, keys(5), num_terms=terms)
