"""The coordinate check tells maximal updates from others, on real networks and on powers written by hand."""

import numpy as np
import pytest

from jaxdl.scaling import coordinates
from jaxdl.scaling.coordinates import Layer
from launch import cli, coordinate_check

WIDTHS = [8, 16, 32]
MLP = ["--model=mlp", "--model.widths=32,32", "--dataset=digits", "--optimizer=adam", "--learning_rate=0.003"]
GPT = ["--model=gpt", "--task=language_modeling", "--dataset=stdlib", "--dataset.max_bytes=100000", "--batch_size=8"]
GPT += ["--model.num_layers=1", "--model.max_length=8", "--dataset.length=8", "--dataset.tokenizer=byte"]
GPT += ["--model.width=32", "--model.num_heads=2", "--learning_rate=0.005"]
RESNET = ["--model=resnet20", "--model.stage_sizes=1", "--model.width=8", "--dataset=digits", "--batch_size=16"]
RESNET += ["--optimizer=sgd", "--learning_rate=0.3"]
NETWORKS = {
    "mlp": (MLP, "--base_width=32", "--widths=32,512"),
    "gpt": (GPT, "--base_width=32", "--widths=32,256"),
    "resnet": (RESNET, "--base_width=8", "--widths=8,64"),
}


def layer(power, name="layer", still=()):
    changes = np.array([[0.0, width**power] for width in WIDTHS])
    changes[list(still)] = 0
    return Layer(name, np.ones_like(changes), changes)


@pytest.mark.parametrize("power", [-1, -0.5, 0, 0.5, 1])
def test_a_power_of_the_width_is_found(power):
    assert layer(power).exponent(WIDTHS) == pytest.approx(power)
    assert bool(coordinates.failures([layer(power)], WIDTHS, 0.35)) == (power != 0)


def test_a_layer_that_is_still_at_some_widths_alone_fails():
    assert list(coordinates.failures([layer(0, still=[1])], WIDTHS, 0.35)) == ["layer"]
    assert not coordinates.failures([layer(0, still=range(3))], WIDTHS, 0.35)


def test_what_is_not_finite_fails():
    broken = layer(0)
    broken.changes[2, 1] = np.nan
    assert list(coordinates.failures([broken], WIDTHS, 0.35)) == ["layer"]


def test_a_module_that_gives_what_its_submodule_gives_counts_once():
    values = np.arange(4.0), np.arange(4.0)
    other = np.ones(4), np.zeros(4)
    layers = coordinates.join([{"block": values, "block/dense": values, "head": other}] * 2)
    assert [layer.name for layer in layers] == ["block/dense", "head"]
    assert layers[0].sizes.shape == (2, 4)


@pytest.mark.parametrize("network", NETWORKS)
def test_maximal_updates_pass_and_the_standard_ones_fail(network, tmp_path, capsys):
    flags, base, widths = NETWORKS[network]
    flags = [*flags, "--seeds=2", "--mesh=data:1", widths]
    plot = tmp_path / "plot.png"
    assert coordinate_check.main([*flags, "--parametrization=mup", base, f"--out={plot}"]) == 0
    told = capsys.readouterr().out
    assert "mup: pass" in told and coordinates.OUTPUT in told
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert coordinate_check.main([*flags, "--out="]) == 1
    assert "standard: fail" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags, message",
    [
        ([*MLP, "--widths=64"], "--widths=64: give at least two widths"),
        ([*MLP, "--model=softmax_regression", "--widths=8,16"], "has no flag --model.widths"),
        (
            ["--model=softmax_regression", "--dataset=digits"],
            "SoftmaxRegression does not say how it is at another width",
        ),
        ([*GPT, "--widths=24,32"], "num_heads=2 of width 32 would be 1.5 at width 24"),
        ([*MLP, "--tolerance=0"], "--tolerance=0: expected a number, greater than 0"),
        ([*MLP, "--width=3,4"], "there is no flag --width. Did you mean"),
    ],
)
def test_bad_input_is_told_in_one_line(flags, message, capsys):
    assert cli.status(coordinate_check.main, flags) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
