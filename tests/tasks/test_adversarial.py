"""Adversarial networks: losses, players, the penalty's closed form, alarms, and what is refused."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import experiment
from jaxdl.errors import InputError, RunError
from jaxdl.settings import parse
from jaxdl.sharding import Placement, make_mesh
from jaxdl.tasks.adversarial import Adversarial, LatentSampler, discriminator_losses, generator_losses
from jaxdl.train.record import read_json, read_metrics

QUIET = ["--plots=false", "--progress=off", "--tensorboard=false", "--mesh=data:1"]
GAN = ["--dataset=digits", "--dataset.standardize=false", "--task=adversarial", "--model=dcgan", "--batch_size=16"]
GAN += ["--model.generator_widths=4", "--model.discriminator_widths=4", "--task.latent_size=3"]


def program(*flags):
    return experiment.build(parse([*GAN, "--steps=9", *flags]), check=False)


def test_losses_are_the_papers():
    r, f = np.float32([2.0, -1.0, 0.3]), np.float32([-0.5, 1.5, 0.0])
    s = lambda x: 1 / (1 + np.exp(-x))
    expected = {
        "minimax": (-np.log(s(r)), -np.log(1 - s(f)), np.log(1 - s(f))),
        "non_saturating": (-np.log(s(r)), -np.log(1 - s(f)), -np.log(s(f))),
        "least_squares": ((r - 1) ** 2 / 2, f**2 / 2, (f - 1) ** 2 / 2),
        "wasserstein": (-r, f, -f),
    }
    for kind, (real, fake, generator) in expected.items():
        np.testing.assert_allclose(discriminator_losses(kind, r, f), (real, fake), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(generator_losses(kind, f), generator, rtol=1e-5, atol=1e-6)
    smooth = discriminator_losses("non_saturating", r, f, 0.1)
    np.testing.assert_allclose(smooth[0], -0.9 * np.log(s(r)) - 0.1 * np.log(1 - s(r)), rtol=1e-5)
    np.testing.assert_allclose(smooth[1], expected["minimax"][1], rtol=1e-5)
    np.testing.assert_allclose(discriminator_losses("least_squares", r, f, 0.1)[0], (r - 0.9) ** 2 / 2, rtol=1e-5)


def test_at_the_optimal_discriminator_the_minimax_loss_is_the_jensen_shannon_divergence():
    """Goodfellow et al. 2014, theorem 1: the discriminator's least loss is log 4 - 2 JSD(p, q)."""
    p, q = np.array([0.7, 0.2, 0.1]), np.array([0.1, 0.3, 0.6])
    real, fake = discriminator_losses("minimax", *(jnp.log(p / q),) * 2)
    middle = (p + q) / 2
    divergence = (p * np.log(p / middle) + q * np.log(q / middle)).sum() / 2
    assert float((p * real + q * fake).sum()) == pytest.approx(np.log(4) - 2 * divergence, rel=1e-5)


def furthest(ours, theirs):
    return max(float(jnp.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (ours, theirs))))


def test_each_player_has_its_turn_its_rate_and_its_state():
    """The generator moves in one step of three, the discriminator in all, with a rate ten times as high."""
    run = program("--task.discriminator_steps=3", "--learning_rate_scales=discriminator=10", "--learning_rate=1e-3")
    pipeline, step = run.pipeline(16), jax.jit(run.step)
    state = run.init(0, pipeline.batch(0))
    moved = []
    for number in range(4):
        new, metrics = step(state, pipeline.batch(number))
        moved.append({player: furthest(new.params[player], state.params[player]) for player in new.params})
        state = new
    assert [turn["generator"] > 0 for turn in moved] == [False, False, True, False]
    # Adam's first step is the learning rate itself.
    assert moved[2]["generator"] == pytest.approx(1e-3, rel=0.01)
    assert moved[0]["discriminator"] == pytest.approx(1e-2, rel=0.01)
    assert np.isnan(jax.device_get(metrics["generator_loss"]).compute()), "a player that rests has no loss"
    with pytest.raises(InputError, match="--freeze: no parameter matches 'nobody'"):
        program("--freeze=nobody").init(0, pipeline.batch(0))


class Linear(nn.Module):
    """A discriminator that is a plane of slope `slope`, and a generator of one number."""

    image_shape: tuple[int, ...] = (8, 8, 1)
    num_classes: int = 0
    slope: float = 0.5

    def setup(self):
        self.generator, self.discriminator = nn.Dense(64), nn.Dense(1, use_bias=False)

    def generate(self, latents, *, train):
        return jnp.tanh(self.generator(latents)).reshape(-1, *self.image_shape)

    def discriminate(self, images, *, train):
        direction = jnp.full((64, 1), self.slope / 8)
        return images.reshape(len(images), -1) @ direction + 0 * self.discriminator(images.reshape(len(images), -1))

    def __call__(self, latents, *, train):
        return self.discriminate(self.generate(latents, train=train), train=train)


def test_the_gradient_penalty_of_a_plane():
    run = dataclasses.replace(
        program("--task.loss_function=wasserstein", "--task.gradient_penalty=7"), model=Linear(slope=0.5)
    )
    batch = run.pipeline(16).batch(0)
    _, metrics = jax.jit(run.step)(run.init(0, batch), batch)
    values = {name: metric.compute() for name, metric in jax.device_get(metrics).items()}
    assert values["gradient_penalty"] == pytest.approx((0.5 - 1) ** 2, rel=1e-4)
    assert values["discriminator_loss"] == pytest.approx(-values["wasserstein_estimate"], rel=1e-5)


def test_the_penalty_trains_through_spectral_normalisation_and_remat():
    flags = ["--task.gradient_penalty=10", "--model.spectral_norm", "--model.discriminator_normalization=none"]
    run = program(*flags, "--remat")
    batch = run.pipeline(16).batch(0)
    state, metrics = jax.jit(run.step)(run.init(0, batch), batch)
    assert np.isfinite(jax.device_get(metrics["gradient_penalty"]).compute())
    assert int(state.nonfinite_step) == -1


def test_the_energy_score_is_least_for_the_datas_own_distribution():
    """Of generators that draw N(shift, scale), on data that are N(0, 1)."""
    count = 4000
    data = np.random.default_rng(0).normal(size=(count, 1, 1, 1)).astype(np.float32)
    task = Adversarial(latent_size=1)
    batch = {"inputs": (data + 1) / 2, "index": jnp.arange(count)}  # so that they are `data` in -1 .. 1
    scores = {}
    for shift, scale in ((0, 1), (0.5, 1), (0, 0.6), (0, 1.6), (0, 0.05)):

        def forward(x, method):
            return (shift + scale * x)[:, :, None, None] if method == "generate" else x.reshape(len(x), -1)

        told = jax.device_get(task.evaluate(forward, batch))
        scores[shift, scale] = told["loss"].compute()
        assert told["diversity"].compute() == pytest.approx(scale, rel=0.05)
    assert min(scores, key=scores.get) == (0, 1)


def test_alarms():
    alarm = Adversarial().alarm
    fine = {
        "generator_loss": 1.0,
        "discriminator_loss": 0.5,
        "diversity": 0.8,
        "real_accuracy": 1.0,
        "fake_accuracy": 0.7,
    }
    assert alarm(fine) is None and alarm({"generator_loss": float("nan")}) is None
    assert "collapsed: its images vary less than 10% as much" in alarm(fine | {"diversity": 0.03})
    assert "deceives nobody" in alarm(fine | {"fake_accuracy": 1.0})
    assert "the discriminator diverges: its loss is beyond 10000" in alarm(fine | {"discriminator_loss": 1e6})


@pytest.mark.parametrize("player, steps", [("generator", 1), ("discriminator", 50)])
def test_a_player_that_diverges_is_named_in_the_log_and_in_status_json(player, steps, tmp_path, capsys):
    """A discriminator that moves far too fast: the generator's loss is seen after it, where the generator plays."""
    flags = [
        f"--task.discriminator_steps={steps}",
        "--task.loss_function=least_squares",
        "--optimizer=sgd",
        "--learning_rate=1e-6",
        "--steps=40",
    ]
    flags += ["--learning_rate_scales=discriminator=1e9", "--log_every=1", f"--workdir={tmp_path}"]
    flags += ["--model.discriminator_normalization=none"]
    with pytest.raises(RunError, match=f"the loss of the {player} or its gradient was not finite at step"):
        experiment.run(parse([*QUIET, *GAN, *flags]))
    status = read_json(tmp_path / "status.json")
    assert status["state"] == "diverged" and status["error"].startswith(f"the loss of the {player}")
    assert "diverges: its loss is beyond" in status["alarm"] and "diverges: its loss is" in capsys.readouterr().out
    assert all(line["discriminator_loss"] is not None for line in read_metrics(tmp_path))


def test_pictures_and_images_of_classes():
    run = program("--task.conditional")
    variables = {**(state := run.init(0, run.pipeline(16).batch(0))).model_state, "params": state.params}
    arguments = run.model, variables, run.data, jax.random.key(0)
    figures = run.task.sample(LatentSampler(num_samples=4, labels=(2, 5), frames=3), *arguments)
    assert set(figures) == {"samples", "interpolations"}
    images, labels = run.task.images(LatentSampler(labels=(2, 5)), *arguments, 5)
    assert images.shape == (5, 8, 8, 1) and 0 <= images.min() <= images.max() <= 1
    assert labels.tolist() == [2, 5, 2, 5, 2]
    with pytest.raises(InputError, match="there is no class 11"):
        run.task.images(LatentSampler(labels=(11,)), *arguments, 5)
    unconditional = dataclasses.replace(run.task, conditional=False)
    with pytest.raises(InputError, match="trained without classes"):
        unconditional.images(LatentSampler(labels=(1,)), *arguments, 5)


REFUSED = {
    "standardised": (["--dataset.standardize=true"], "needs pixels in 0 to 1, not standardised ones"),
    "smoothing a critic": (
        ["--task.loss_function=wasserstein", "--task.gradient_penalty=10", "--task.label_smoothing=0.1"],
        "label_smoothing has no meaning",
    ),
    "an unbounded critic": (
        ["--task.loss_function=wasserstein"],
        "--task.gradient_penalty=10, or --model.spectral_norm",
    ),
    "a penalty with batch statistics": (
        ["--task.gradient_penalty=10", "--model.discriminator_widths=4,4"],
        "--model.discriminator_normalization=layer",
    ),
    "an image that cannot be halved": (["--model.generator_widths=4,4,4,4"], "cannot be halved 4 times"),
    "no classes": (["--dataset=diabetes"], "needs images"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_a_line(case):
    flags, message = REFUSED[case]
    with pytest.raises(InputError, match=message) as caught:
        experiment.build(parse([*GAN, "--steps=1", *flags]))
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def on_one_device():
    run = program("--task.discriminator_steps=2", "--task.gradient_penalty=1", *BOUNDED, "--optimizer=sgd")
    batches = [run.pipeline(16).batch(step) for step in range(4)]
    return run, batches, played(run, batches, Placement(make_mesh("data:1")))


BOUNDED = ["--model.discriminator_normalization=none", "--model.spectral_norm"]


def played(run, batches, placement):
    """The state after these batches, and the metrics of the last, in which both play."""
    step = placement.parallel(run.step, (None, 0))
    state = placement.replicate(run.init(0, batches[0]))
    for batch in batches:
        state, metrics = step(state, placement.place_batch(batch))
    return jax.device_get(state), {name: metric.compute() for name, metric in jax.device_get(metrics).items()}


@pytest.mark.parametrize("mode", ["jit", "shard_map", "pmap"])
def test_eight_devices_play_as_one(on_one_device, mode):
    """Latents, interpolations, batch statistics and the spread of images are the global batch's."""
    run, batches, (state, metrics) = on_one_device
    ours, told = played(run, batches, Placement(make_mesh("data:8"), mode))
    assert told == pytest.approx(metrics, rel=1e-3)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)  # sums in another order, four steps of them


@pytest.mark.parametrize("flags", [["--gradient_accumulation=2"], ["--precision=bfloat16"], ["--precision=float16"]])
def test_it_trains_with_everything_the_core_has(flags):
    run = program("--task.discriminator_steps=2", "--task.gradient_penalty=1", *BOUNDED, "--ema_decay=0.9", *flags)
    batch = run.pipeline(16).batch(0)
    state = run.init(0, batch)
    shapes = jax.eval_shape(run.step, state, batch)[0]
    assert jax.tree.map(lambda x: (x.shape, x.dtype), shapes) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
