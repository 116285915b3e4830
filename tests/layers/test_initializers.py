"""Every initialiser by name: its moments."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.layers.initializers import INITIALIZERS, initializer

FAN_IN, FAN_OUT = 9 * 32, 9 * 64
SHAPE = (3, 3, 32, 64)
# A normal distribution cut at two standard deviations has this standard deviation.
CUT = math.sqrt(1 - 2 * 2 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2)))

# Mean and standard deviation of a 3x3 convolution's kernel from 32 to 64 channels.
MOMENTS = {
    "zeros": (0, 0),
    "ones": (1, 0),
    "truncated_normal": (0, 0.02 * CUT),
    "normal": (0, 0.02),
    "lecun_uniform": (0, math.sqrt(1 / FAN_IN)),
    "lecun_normal": (0, math.sqrt(1 / FAN_IN)),
    "xavier_uniform": (0, math.sqrt(2 / (FAN_IN + FAN_OUT))),
    "xavier_normal": (0, math.sqrt(2 / (FAN_IN + FAN_OUT))),
    "he_uniform": (0, math.sqrt(2 / FAN_IN)),
    "he_normal": (0, math.sqrt(2 / FAN_IN)),
    "he_normal_fan_out": (0, math.sqrt(2 / FAN_OUT)),
    "orthogonal": (0, math.sqrt(1 / FAN_IN)),
}


@pytest.mark.parametrize("name", INITIALIZERS)
def test_moments(name):
    kernel = initializer(name)(jax.random.key(0), SHAPE, jnp.float32)
    mean, deviation = MOMENTS[name]
    # Five standard errors of 18,432 draws: of the mean, and of the standard deviation.
    np.testing.assert_allclose(kernel.mean(), mean, atol=5 * deviation / math.sqrt(kernel.size) + 1e-9)
    np.testing.assert_allclose(kernel.std(), deviation, rtol=5 / math.sqrt(2 * kernel.size), atol=1e-9)


def test_uniform_and_normal_have_their_shape():
    """The fourth standardised moment: 1.8 of a uniform distribution, 3 of a normal, less of a truncated one."""
    moments = {}
    for name in ("he_uniform", "he_normal", "he_normal_fan_out"):
        kernel = initializer(name)(jax.random.key(0), SHAPE, jnp.float32)
        moments[name] = float(jnp.mean((kernel / kernel.std()) ** 4))
    assert moments["he_uniform"] == pytest.approx(1.8, abs=0.1)
    assert moments["he_normal"] == pytest.approx(2.37, abs=0.15)
    assert moments["he_normal_fan_out"] == pytest.approx(3.0, abs=0.2)


def test_orthogonal():
    kernel = initializer("orthogonal")(jax.random.key(0), (32, 16), jnp.float32)
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(16), atol=1e-5)


def test_unknown_name():
    with pytest.raises(InputError, match="Did you mean 'xavier_uniform'"):
        initializer("xavier_unifrom")
