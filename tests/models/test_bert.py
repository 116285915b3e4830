"""BERT: padding and packing change nothing, and its two heads share an encoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.models import create
from jaxdl.scaling.flops import model_shapes, parameter_count
from tests.models.variables import random_variables

SMALL = {"vocab_size": 11, "max_length": 12, "width": 16, "num_layers": 2, "num_heads": 2}
TOKENS = jax.random.randint(jax.random.key(1), (3, 8), 0, 11)
LENGTHS = jnp.array([8, 5, 1])
CASES = {
    "masked": ("bert", SMALL),
    "first": ("bert_classifier", SMALL),
    "mean": ("bert_classifier", {**SMALL, "pool": "mean"}),
    "rotary": ("bert", {**SMALL, "positions": "rotary"}),
}


def built(case):
    name, fields = CASES[case]
    model = create(name, **fields)
    return model, random_variables(model, (8,), "int32")


def of_real_tokens(outputs, row):
    return outputs[row, : LENGTHS[row]] if outputs.ndim == 3 else outputs[row]


@pytest.mark.parametrize("case", CASES)
def test_what_stands_behind_a_text_changes_nothing(case):
    model, variables = built(case)
    apply = jax.jit(lambda tokens, lengths: model.apply(variables, tokens, lengths, train=False))
    outputs = apply(TOKENS, LENGTHS)
    others = jnp.where(jnp.arange(8)[None] < LENGTHS[:, None], TOKENS, (TOKENS + 3) % 11)
    longer = apply(jnp.pad(others, ((0, 0), (0, 4))), LENGTHS)
    for row, length in enumerate(LENGTHS):
        alone = model.apply(variables, TOKENS[row : row + 1, :length], train=False)
        for same in (apply(others, LENGTHS)[row], longer[row], alone[0]):
            expected = of_real_tokens(outputs, row)
            # Sums of masked attention have other terms, zeros, and so another order.
            np.testing.assert_allclose(same[: len(expected)], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_every_real_token_counts(case):
    """All tokens see all others: no output is blind to the last token."""
    model, variables = built(case)
    outputs, changed = (
        model.apply(variables, tokens, LENGTHS, train=False) for tokens in (TOKENS, TOKENS.at[0, 7].add(1) % 11)
    )
    assert (jnp.abs(outputs[0] - changed[0]).reshape(-1, outputs.shape[-1]).max(axis=-1) > 1e-4).all()
    np.testing.assert_array_equal(outputs[1:], changed[1:])


@pytest.mark.parametrize("case", ["masked", "rotary"])
def test_documents_of_a_packed_row_do_not_see_each_other(case):
    model, variables = built(case)
    segments = jnp.array([[1, 1, 1, 2, 2, 2, 2, 0]])
    packed = model.apply(variables, TOKENS[:1], None, segments, train=False)[0]
    for start, stop in ((0, 3), (3, 7)):
        alone = model.apply(variables, TOKENS[:1, start:stop], train=False)[0]
        np.testing.assert_allclose(packed[start:stop], alone, rtol=1e-4, atol=1e-5)


def test_token_types_are_zero_unless_given():
    model, variables = built("first")
    types = jnp.zeros_like(TOKENS)
    apply = lambda types: model.apply(variables, TOKENS, LENGTHS, None, types, train=False)
    np.testing.assert_allclose(apply(None), apply(types), rtol=1e-6)
    assert not np.allclose(apply(types), apply(types.at[:, 0].set(1)), atol=1e-3)


def test_some_positions_are_those_of_all():
    model, variables = built("masked")
    positions = jnp.array([[7, 0], [4, 2], [0, 0]])
    every = model.apply(variables, TOKENS, LENGTHS, train=False)
    some = model.apply(variables, TOKENS, LENGTHS, positions=positions, train=False)
    np.testing.assert_allclose(some, every[jnp.arange(3)[:, None], positions], rtol=1e-4, atol=1e-5)


def test_rotary_positions_tell_places_apart_by_their_distance():
    """Without padding and token types, a text that is moved within a row is the same text."""
    model, variables = built("rotary")
    assert "position_embedding" not in variables["params"]["encoder"]
    row = jnp.concatenate([TOKENS[:1], TOKENS[:1, ::-1]], axis=1)  # more tokens than max_length
    segments = jnp.array([[1] * 8 + [2] * 8])
    outputs = model.apply(variables, row, None, segments, train=False)[0]
    alone = model.apply(variables, TOKENS[:1, ::-1], train=False)[0]
    np.testing.assert_allclose(outputs[8:], alone, rtol=1e-3, atol=1e-4)
    assert not np.allclose(outputs[8:], outputs[7::-1], atol=1e-2)


def test_the_decoder_is_the_embedding():
    model, variables = built("masked")
    assert parameter_count(variables) == parameter_count(variables["params"]["encoder"]) + (16 * 16 + 16) + 2 * 16 + 11


def test_mean_pooling_is_the_mean_of_the_real_tokens():
    (first, variables), (mean, _) = built("first"), built("mean")
    one_token = model = mean.apply(variables, TOKENS, jnp.ones(3, jnp.int32), train=False)
    np.testing.assert_allclose(model, first.apply(variables, TOKENS, jnp.ones(3, jnp.int32), train=False), rtol=1e-4)
    assert not np.allclose(mean.apply(variables, TOKENS, LENGTHS, train=False)[:2], one_token[:2], atol=1e-3)


@pytest.mark.parametrize(
    ("size", "encoder_and_pooler"), [("bert_base_classifier", 109_482_240), ("bert_large_classifier", 335_141_888)]
)
def test_parameters_of_the_paper(size, encoder_and_pooler):
    """Table 1 has 110M and 340M; these are the counts of the published weights, encoder and pooler."""
    classifier = model_shapes(create(size), (8,), "int32")["params"]
    assert parameter_count({name: classifier[name] for name in ("encoder", "pooler")}) == encoder_and_pooler
    masked = model_shapes(create(size.removesuffix("_classifier")), (8,), "int32")["params"]
    assert jax.tree.map(jnp.shape, masked["encoder"]) == jax.tree.map(jnp.shape, classifier["encoder"])


def test_more_tokens_than_positions():
    with pytest.raises(InputError, match="13 tokens are more than max_length=12"):
        model_shapes(create("bert", **SMALL), (13,), "int32")


@pytest.mark.parametrize("case", CASES)
def test_a_rate_may_be_traced_and_vmapped(case):
    model, variables = built(case)

    def apply(rate):
        rngs = {"dropout": jax.random.key(0)}
        return model.clone(dropout_rate=rate).apply(variables, TOKENS, LENGTHS, train=True, rngs=rngs)

    together = jax.jit(jax.vmap(apply))(jnp.array([0.1, 0.5]))
    for rate, outputs in zip((0.1, 0.5), together):
        np.testing.assert_allclose(outputs, apply(rate), rtol=1e-3, atol=1e-4)
