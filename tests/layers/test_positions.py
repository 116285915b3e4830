"""Positions against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.layers.positions import (
    LearnedPositions,
    alibi_bias,
    alibi_slopes,
    rotate,
    segment_positions,
    sinusoidal,
    sinusoidal_2d,
)


def test_places_begin_anew_with_each_segment():
    segments = jnp.array([[1, 1, 2, 2, 2, 0], [3, 4, 4, 0, 0, 0], [1, 1, 1, 1, 1, 1]])
    expected = [[0, 1, 0, 1, 2, 0], [0, 0, 1, 0, 1, 2], [0, 1, 2, 3, 4, 5]]
    np.testing.assert_array_equal(segment_positions(segments), expected)


def test_sinusoidal_formula():
    encoded = sinusoidal(jnp.array([[0, 3, 7]]), 6)
    for place, row in zip((0, 3, 7), encoded[0]):
        for i in range(3):
            angle = place / 10_000 ** (2 * i / 6)
            np.testing.assert_allclose(row[2 * i : 2 * i + 2], [np.sin(angle), np.cos(angle)], atol=1e-6)


def test_sinusoidal_2d_tells_rows_from_columns():
    grid = sinusoidal_2d(3, 5, 8).reshape(3, 5, 8)
    columns, rows = np.split(np.asarray(grid), 2, axis=-1)
    np.testing.assert_array_equal(columns, np.broadcast_to(columns[:1], columns.shape))
    np.testing.assert_array_equal(rows, np.broadcast_to(rows[:, :1], rows.shape))
    np.testing.assert_allclose(columns[0, 2], [np.sin(2), np.sin(0.02), np.cos(2), np.cos(0.02)], atol=1e-6)
    assert len({tuple(vector) for vector in np.asarray(grid).reshape(15, 8)}) == 15


def test_rotation_depends_on_the_distance_alone():
    query, key = jax.random.normal(jax.random.key(0), (2, 1, 5, 2, 8))
    places = jnp.array([[0, 1, 4, 9, 20]])

    def products(shift):
        return jnp.einsum("btnd,bsnd->bnts", rotate(query, places + shift, 100.0), rotate(key, places + shift, 100.0))

    # Angles up to 520 radians have an error of 520 * 6e-8 in float32.
    np.testing.assert_allclose(products(500), products(0), atol=5e-4)
    assert not np.allclose(products(0), jnp.einsum("btnd,bsnd->bnts", query, key), atol=0.1)


def test_rotation_formula():
    """Features i and i + D/2 are a complex number, multiplied by exp(j * place * theta^(-2i/D))."""
    x = np.asarray(jax.random.normal(jax.random.key(0), (1, 4, 3, 6)))
    complex_x = x[..., :3] + 1j * x[..., 3:]
    places = np.array([0, 1, 2, 5])
    turned = complex_x * np.exp(1j * places[None, :, None, None] * 10.0 ** (-np.arange(3) / 3))
    expected = np.concatenate([turned.real, turned.imag], axis=-1)
    np.testing.assert_allclose(rotate(jnp.asarray(x), jnp.asarray(places)[None], 10.0), expected, atol=1e-5)


@pytest.mark.parametrize("num_heads", [1, 2, 8, 16])
def test_slopes_of_a_power_of_two(num_heads):
    expected = [2 ** (-8 * (i + 1) / num_heads) for i in range(num_heads)]
    np.testing.assert_allclose(alibi_slopes(num_heads), expected, rtol=1e-6)


def test_slopes_of_twelve_heads():
    # The paper's eight, and every second one of sixteen.
    expected = [2.0**-i for i in range(1, 9)] + [2.0**-0.5, 2.0**-1.5, 2.0**-2.5, 2.0**-3.5]
    np.testing.assert_allclose(alibi_slopes(12), expected, rtol=1e-6)


def test_alibi_bias_formula():
    bias = alibi_bias(2, jnp.array([[2, 3]]), jnp.array([[0, 1, 2, 3]]))
    for head, slope in enumerate((1 / 16, 1 / 256)):
        np.testing.assert_allclose(
            bias[0, head], [[-2 * slope, -slope, 0, -slope], [-3 * slope, -2 * slope, -slope, 0]]
        )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sinusoidal(jnp.arange(3), 5), "even width, not 5"),
        (lambda: sinusoidal_2d(2, 2, 6), "4 divides, not 6"),
        (lambda: rotate(jnp.ones((1, 2, 1, 3)), jnp.arange(2)[None]), "even head size, not 3"),
        (
            lambda: LearnedPositions(4, 2).init(jax.random.key(0), jnp.arange(5)[None]),
            "5 tokens are more than max_length=4 positions",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
