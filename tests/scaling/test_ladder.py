"""Ladders: shapes that are what was asked for, grids of equal compute, and the sweeps that they become."""

import math

import pytest

from jaxdl.errors import InputError
from jaxdl.models.gpt import GPT
from jaxdl.scaling import ladder
from jaxdl.scaling.flops import embedding_count, model_shapes, parameter_count

BYTES = GPT(vocab_size=256, max_length=64, positions="rotary", scan_layers=True)


def test_a_ladder_goes_from_ten_thousand_to_ten_billion_parameters_in_one_shape():
    shapes = ladder.gpt_ladder(BYTES, 1e4, 10 ** (1 / 3), 19, aspect_ratio=32, head_dim=8)
    for rung, shape in enumerate(shapes):
        target = 1e4 * 10 ** (rung / 3)
        model = BYTES.clone(num_layers=shape.num_layers, num_heads=shape.num_heads, width=shape.width)
        variables = model_shapes(model, (64,), "int32")
        assert parameter_count(variables) == shape.parameters and embedding_count(variables) == shape.embeddings
        assert shape.width == 8 * shape.num_heads
        # Small ones have few whole numbers to choose among.
        assert shape.parameters == pytest.approx(target, rel=0.4 if target < 1e6 else 0.06)
        assert abs(math.log(shape.width / shape.num_layers / 32)) < (0.5 if target < 1e6 else 0.15)


def test_the_size_of_a_head_and_the_aspect_ratio_are_those_asked_for():
    model = GPT(vocab_size=50_257, max_length=2048)
    shape = ladder.gpt_shape(model, 1.3e9, aspect_ratio=2048 / 24, head_dim=128)  # GPT-3 XL
    assert (shape.num_layers, shape.num_heads, shape.width) == (24, 16, 2048)
    assert shape.parameters == pytest.approx(1.3e9, rel=0.02)


@pytest.mark.parametrize(
    ("smallest", "factor", "options", "told"),
    [
        (1e3, 2, {}, "too small"),
        (2e4, 1.01, {}, "one shape"),
        (2e4, 0.5, {}, "factor above 1"),
        (-1, 2, {}, "positive"),
        (1e5, 2, {"aspect_ratio": 0.0}, "positive"),
    ],
)
def test_what_makes_no_ladder_is_told(smallest, factor, options, told):
    with pytest.raises(InputError, match=told):
        ladder.gpt_ladder(BYTES, smallest, factor, 3, **options)


def test_isoflop_points_cost_their_budget_and_others_have_their_tokens():
    shapes = ladder.gpt_ladder(BYTES, 2e4, 4, 3)
    points = ladder.isoflop([1e11, 1e12], lambda budget: shapes)
    assert [point.flops for point in points] == pytest.approx([1e11] * 3 + [1e12] * 3)
    assert points[0].tokens == pytest.approx(1e11 / 6 / shapes[0].parameters)
    assert [(p.shape, p.tokens) for p in ladder.isotoken([1e5, 1e6], shapes[:2])] == [
        (shape, tokens) for tokens in (1e5, 1e6) for shape in shapes[:2]
    ]
    assert [(p.shape, p.tokens) for p in ladder.isoparameter(shapes[:2], [1e5, 1e6])] == [
        (shape, tokens) for shape in shapes[:2] for tokens in (1e5, 1e6)
    ]


def test_steps_are_whole_and_at_least_one():
    point = ladder.Point(ladder.gpt_shape(BYTES, 2e4, head_dim=16), tokens=10_000)
    assert point.steps(1024) == 9
    with pytest.raises(InputError, match="10,000 tokens for 20,960 parameters"):
        point.steps(10_001)


def test_centred_sizes_lie_evenly_about_the_wanted_tokens_for_each_parameter():
    sizes = ladder.centred_sizes(6e12, 20.0, 2.0, 5)
    assert sizes[2] ** 2 * 20 * 6 == pytest.approx(6e12)
    assert [b / a for a, b in zip(sizes, sizes[1:])] == pytest.approx([2.0] * 4)


def test_rules_are_those_of_the_papers():
    assert ladder.kaplan_rate(1.5e8) == pytest.approx(0.003239 - 0.0001395 * math.log(1.5e8))
    rate, batch = ladder.deepseek(1e20)
    assert rate == pytest.approx(0.3118 * 1e20**-0.125) and batch == pytest.approx(0.2920 * 1e20**0.3271)
    rate, batch = ladder.step_law(1e9, 1e11)
    assert rate == pytest.approx(1.79 * 1e9**-0.713 * 1e11**0.307) and batch == pytest.approx(0.58 * 1e11**0.571)
    assert ladder.inverse_width_rate(128, 0.01, 32) == 0.0025
    assert [ladder.power_of_two(x) for x in (0.1, 1, 23, 22, 1000)] == [1, 1, 32, 16, 1024]
