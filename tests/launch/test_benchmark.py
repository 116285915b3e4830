"""`launch.benchmark overhead`: the bare loop learns, the table judges, and wrong flags are told."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.errors import InputError, RunError
from jaxdl.models.lenet import LeNet5
from launch import benchmark
from launch.benchmarks import overhead
from launch.benchmarks.process import run_module, run_process


def run(steps_per_second=100.0, peak=400.0, loss=2.0):
    whole = {"steps/s, start to exit": 10.0, "seconds": 10.0, "CPU seconds": 10.0}
    return {"steps/s": steps_per_second, "peak MiB": peak, "loss": loss, **whole}


@pytest.mark.parametrize(
    "train, status, message",
    [
        ([run(), run()], 0, "\nas wanted"),
        ([run(95.0, 440.0), run(95.0, 440.0)], 0, "\nas wanted"),
        ([run(steps_per_second=94.0), run(steps_per_second=94.0)], 1, "not as wanted"),
        ([run(peak=441.0), run(peak=441.0)], 1, "not as wanted"),
        ([run(), run(loss=2.1)], 1, "did not do the same work"),
    ],
)
def test_the_report_judges_by_the_ratios_and_by_the_losses(capsys, train, status, message):
    assert overhead.report([run(), run()], train, [1e6, 1e6], overhead.Overhead(repeats=2)) == status
    assert message in capsys.readouterr().out


def test_the_bare_loop_descends_as_a_plain_loop_does(tmp_path):
    """100 steps over 15 images, in batches of 10 that cross epochs, against the same steps written out."""
    overhead.write_images(tmp_path / "images.npz", 15)
    measured = overhead.bare_loop(str(tmp_path / "images.npz"), 100, 10)
    with np.load(tmp_path / "images.npz") as arrays:
        pixels, labels = arrays["inputs"] / np.float32(255), arrays["labels"]
    images = (pixels - pixels.mean()) / pixels.std()
    order = np.concatenate([np.random.default_rng((0, epoch)).permutation(15) for epoch in range(67)])
    model = LeNet5()
    params = model.init(jax.random.fold_in(jax.random.key(0), 0), images[:1], train=False)

    @jax.jit
    def step(params, images, labels):
        def loss(params):
            logits = model.apply(params, images, train=True)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        value, slope = jax.value_and_grad(loss)(params)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, slope), value

    losses = []
    for rows in order[:1000].reshape(100, 10):
        params, value = step(params, jnp.asarray(images[rows]), jnp.asarray(labels[rows]))
        losses.append(float(value))
    # Roundings of 1e-7 a step grow along a trajectory of 100 steps.
    np.testing.assert_allclose(measured["loss"], np.mean(losses), rtol=1e-3)
    assert measured["steps/s"] > 0


def test_wrong_flags_and_failing_runs_are_told():
    with pytest.raises(InputError, match="no benchmark 'speed'"):
        benchmark.main(["speed"])
    with pytest.raises(InputError, match="multiple of 100"):
        benchmark.main(["overhead", "--steps=150"])
    with pytest.raises(RunError, match="ended with status 2: .*--momentm"):
        run_module("launch.train", "--model=lenet5", "--dataset=digits", "--optimizer=sgd", "--momentm=1")
    for name in ("sweep", "executor"):
        with pytest.raises(InputError, match="--momentum=1 is no flag of this benchmark"):
            benchmark.main([name, "--momentum=1"])


def test_the_help_tells_every_benchmark_and_its_flags(capsys):
    assert benchmark.main(["--help"]) == 0
    told = capsys.readouterr().out
    for flag in ("--examples=60000", "--local_trials=none", "--rounds=2"):
        assert flag in told


def test_a_process_is_measured_with_its_children_and_has_the_cache_that_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/theirs")
    code = "import os; print(os.environ.get('JAX_COMPILATION_CACHE_DIR'))"
    assert run_process([sys.executable, "-c", code])[0] == "None\n"
    assert run_process([sys.executable, "-c", code], tmp_path)[0] == f"{tmp_path}\n"
    busy = "import time\nwhile time.process_time() < 0.3: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])"
    _, measured = run_process([sys.executable, "-c", parent])
    assert measured["seconds"] >= 0.3 and measured["CPU seconds"] >= 0.3
