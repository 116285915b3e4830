"""Skip-gram, CBOW and GloVe: how they begin, and what they compute, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.models import create

V, D = 6, 4
TOKENS = jnp.array([[1, 2, 3, 4], [5, 0, 1, 1]], jnp.int32)
CANDIDATES = jnp.array([[[2, 5], [3, 0]], [[0, 1], [1, 2]]], jnp.int32)
IN_WINDOW = jnp.array([[[1, 0, 1, 0], [0, 1, 0, 1]], [[1, 0, 1, 1], [0, 0, 0, 0]]], bool)


def tables(random=np.random.default_rng(0)):
    return {name: jnp.asarray(random.normal(size=(V, D)), jnp.float32) for name in ("input", "output")}


@pytest.mark.parametrize("name", ["skip_gram", "cbow", "glove"])
def test_initialisation_is_the_originals(name):
    """+-1 / (2 D), and zeros for word2vec's outputs."""
    model = create(name, vocab_size=500, features=50)
    inputs = (jnp.zeros((1, 2), jnp.int32),) if name == "glove" else (TOKENS, CANDIDATES, IN_WINDOW)
    params = model.init(jax.random.key(0), *inputs, train=False)["params"]
    for path, leaf in params.items():
        if path == "output" and name != "glove":
            assert (leaf == 0).all()
        else:
            assert 0.9 / 100 < np.abs(leaf).max() <= 1 / 100 and abs(leaf.mean()) < 1e-3
            # The variance of a uniform number in +-a is a^2 / 3; of 500 numbers at least, to a tenth.
            np.testing.assert_allclose(leaf.var(), 0.01**2 / 3, rtol=0.1)


def test_skip_gram_by_hand():
    params = tables()
    logits = create("skip_gram", vocab_size=V, features=D).apply({"params": params}, TOKENS, CANDIDATES, train=False)
    assert logits.shape == (2, 2, 2, 4)
    np.testing.assert_allclose(logits[1, 0, 1, 2], params["output"][1] @ params["input"][1], rtol=1e-5)
    np.testing.assert_allclose(logits[0, 1, 0, 3], params["output"][3] @ params["input"][4], rtol=1e-5)


@pytest.mark.parametrize("exact_gradient", [False, True])
def test_cbow_by_hand(exact_gradient):
    params = tables()
    model = create("cbow", vocab_size=V, features=D, exact_gradient=exact_gradient)
    apply = lambda params: model.apply({"params": params}, TOKENS, CANDIDATES, IN_WINDOW, train=False)
    logits = apply(params)
    mean = (params["input"][5] + 2 * params["input"][1]) / 3
    np.testing.assert_allclose(logits[1, 0, 0], params["output"][0] @ mean, rtol=1e-5)
    assert (logits[1, 1] == 0).all()  # no neighbour
    gradient = jax.grad(lambda params: apply(params)[1, 0, 0])(params)
    share = 1 / 3 if exact_gradient else 1.0  # word2vec gives every neighbour the whole gradient
    np.testing.assert_allclose(gradient["input"][5], share * params["output"][0], rtol=1e-5)
    np.testing.assert_allclose(gradient["input"][1], 2 * share * params["output"][0], rtol=1e-5)
    np.testing.assert_allclose(gradient["output"][0], mean, rtol=1e-5)


def test_glove_by_hand():
    params = tables() | {"input_bias": jnp.arange(6.0), "output_bias": -2 * jnp.arange(6.0)}
    model = create("glove", vocab_size=V, features=D)
    pairs = jnp.array([[[1, 2], [3, 3]]], jnp.int32)
    outputs = model.apply({"params": params}, pairs, train=False)
    np.testing.assert_allclose(outputs[0, 0], params["input"][1] @ params["output"][2] + 1 - 4, rtol=1e-5)
    vectors = model.apply({"params": params}, method="vectors")
    np.testing.assert_allclose(vectors, params["input"] + params["output"])
