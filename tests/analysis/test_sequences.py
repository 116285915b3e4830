"""Figures of sequence to sequence."""

import numpy as np

from jaxdl import plots
from jaxdl.analysis.sequences import attention_maps, example_table


def test_attention_maps_name_rows_and_columns():
    weights = [np.eye(3)[:2], np.full((1, 4), 0.25)]
    figure = attention_maps(
        weights, [list("abc"), ["long", "words", "in", "it"]], [["x", "end"], ["y"]], ["one", "two"]
    )
    first, second = [axes for axes in figure.axes if axes.images]
    assert [text.get_text() for text in first.get_xticklabels()] == ["a", "b", "c"]
    assert [text.get_text() for text in second.get_yticklabels()] == ["y"]
    np.testing.assert_array_equal(first.images[0].get_array(), weights[0])
    assert first.images[0].get_clim() == second.images[0].get_clim() == (0, 1)
    assert plots.to_array(figure).ndim == 3


def test_the_table_has_a_line_for_each_example():
    rows = [("1+1", "2", "2"), ("1+2", "3", "4"), ("x" * 99, "$5", "$5_6")]
    figure = example_table(rows, "two wrong")
    texts = {text.get_text(): text.get_color() for text in figure.axes[0].texts}
    assert texts["2"] == plots.GREEN and texts["4"] == plots.VERMILION
    assert "x" * 47 + "…" in texts and figure.get_suptitle() == "two wrong"
    assert plots.to_array(figure).ndim == 3  # $ and _ are no formulas
