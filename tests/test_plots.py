"""Plots: they show the numbers they are given, nothing is cut off at an edge, and nobody needs a display."""

import io
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

from jaxdl import plots

_rng = np.random.default_rng(0)
STEPS = np.arange(10, 1001, 10)
RECORDS = [
    {"step": int(step), "split": "train", "loss": 3 * 0.99**i, "accuracy": i / 100, "learning_rate": 1e-3}
    for i, step in enumerate(STEPS)
] + [
    {"step": 100, "split": "validation", "loss": 2.0, "accuracy": 0.3},
    {"step": 200, "split": "validation", "loss": 1.0, "accuracy": 0.7, "confusion_matrix": [[1]]},
    {"step": 300, "split": "validation", "loss": None, "accuracy": 0.6},
    {"step": 300, "split": "test", "loss": 1.2, "accuracy": 0.65},
]


def confusion(num_classes, names):
    counts = _rng.integers(0, 2000, (num_classes, num_classes))
    return plots.confusion_matrix(counts, [names.format(label) for label in range(num_classes)])


def reliability():
    count = np.array([0.0, 4.0, 10.0])
    return plots.reliability(count, confidence=np.array([0.0, 2.0, 9.0]), correct=np.array([0.0, 3.0, 5.0]))


FIGURES = {
    "learning_curves": lambda: plots.learning_curves(RECORDS, "accuracy", 200),
    "learning_curves, loss only": lambda: plots.learning_curves(RECORDS[-4:], best_step=200),
    "learning_curves, nothing": lambda: plots.learning_curves([], "accuracy", 200),
    "comparison": lambda: plots.comparison(
        {f"activation={i:02}": [(STEPS, _rng.random(100)) for _ in range(3)] for i in range(22)},
        "accuracy",
        title="a title",
    ),
    "comparison, nothing": lambda: plots.comparison({}, "accuracy"),
    "confusion_matrix of 2": lambda: confusion(2, "malignant {}"),
    "confusion_matrix of 10": lambda: confusion(10, "{}"),
    "confusion_matrix of 20": lambda: confusion(20, "a rather long class name {}"),
    "confusion_matrix of 100": lambda: confusion(100, "class {}"),
    "confusion_matrix of 300": lambda: confusion(300, "class {}"),
    "confusion_matrix of nothing": lambda: plots.confusion_matrix(np.zeros((3, 3), int), ["a", "b", "c"]),
    "image_sheet": lambda: plots.image_sheet(
        [_rng.random((8, 8, 1)) for _ in range(7)], ["0 → 1\n99%"] * 7, title="7 of 7 mistakes, the surest first"
    ),
    "image_sheet of one": lambda: plots.image_sheet([_rng.integers(0, 255, (32, 32, 3), np.uint8)], title="a title"),
    "reliability": reliability,
    "predictions": lambda: plots.predictions(_rng.normal(size=(50, 1)), _rng.normal(size=(50, 1))),
    "predictions of 11": lambda: plots.predictions(*(1e4 * _rng.normal(size=(2, 50, 11)))),
    "residuals": lambda: plots.residuals(_rng.normal(size=(50, 4)), _rng.normal(size=(50, 4))),
}


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_cut_off_at_the_edge(name):
    figure = FIGURES[name]()
    png, pixels = plots.to_png(figure, dpi=60), plots.to_array(figure, dpi=60)
    width, height = figure.get_size_inches()
    assert PIL.Image.open(io.BytesIO(png)).format == "PNG"
    assert pixels.dtype == np.uint8 and pixels.shape[2] == 3
    np.testing.assert_allclose(pixels.shape[:2], [height * 60, width * 60], atol=1)
    box = figure.get_tightbbox()
    slack = 0.03  # inches: what anti-aliasing and text hinting may take
    assert box.x0 > -slack and box.y0 > -slack and box.x1 < width + slack and box.y1 < height + slack


def test_learning_curves_draw_the_records():
    figure = plots.learning_curves(RECORDS, "accuracy", 200)
    loss, accuracy, rate = figure.axes
    lines = {line.get_label(): line for line in accuracy.lines}
    np.testing.assert_array_equal(lines["validation"].get_xydata(), [[100, 0.3], [200, 0.7], [300, 0.6]])
    np.testing.assert_array_equal(lines["test"].get_xydata(), [[300, 0.65]])
    np.testing.assert_array_equal(lines["train"].get_xydata()[:, 1], np.arange(100) / 100)
    np.testing.assert_array_equal(lines["best: 0.7 at step 200"].get_xydata(), [[200, 0.7]])
    # A null in the file is a value that was not finite: it is left out.
    assert {line.get_label(): len(line.get_xdata()) for line in loss.lines}["validation"] == 2
    assert rate.get_ylabel() == "learning rate" and rate.get_xlabel() == "step"


def test_the_loss_axis_is_logarithmic_when_the_loss_falls_tenfold():
    def scale(last):
        records = [{"step": step, "split": "train", "loss": loss} for step, loss in ((1, 10.0), (2, last))]
        return plots.learning_curves(records).axes[0].get_yscale()

    assert scale(0.9) == "log"
    assert scale(1.1) == "linear"
    assert scale(-1.0) == "linear"


def test_many_noisy_points_get_their_running_mean():
    records = [{"step": step, "split": "train", "loss": 5.0 + (-1) ** step} for step in range(500)]
    raw, mean = plots.learning_curves(records).axes[0].lines
    assert np.ptp(raw.get_ydata()) == 2
    assert np.ptp(mean.get_ydata()) < 0.4
    assert "mean of 11 points" in mean.get_label()


def test_comparison_draws_mean_and_spread_over_the_steps_that_seeds_share():
    curves = {
        "relu": [(np.array([1, 2, 3]), np.array([0.1, 0.5, 0.9])), (np.array([2, 3, 4]), np.array([0.7, 0.7, 1.0]))],
        "tanh": [(np.array([1, 2]), np.array([0.2, 0.95]))],
    }
    axes = plots.comparison(curves, "accuracy").axes[0]
    best, second = axes.lines
    assert best.get_label() == "tanh  0.95"
    assert second.get_label() == "relu  0.80 ± 0.14"
    np.testing.assert_allclose(second.get_xydata(), [[2, 0.6], [3, 0.8]])
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([band.min(), band.max()], [0.6 - 0.02**0.5, 0.8 + 0.02**0.5])
    assert plots.comparison(curves, "loss", best="min").axes[0].lines[0].get_label().startswith("relu")


def test_a_label_keeps_its_colour_whatever_its_rank():
    curves = {name: [(np.array([1]), np.array([value]))] for name, value in (("a", 1.0), ("b", 2.0), ("c", 3.0))}
    colors = {line.get_label()[0]: line.get_color() for line in plots.comparison(curves, "accuracy").axes[0].lines}
    assert colors == {"a": plots.BLUE, "b": plots.ORANGE, "c": plots.GREEN}


@pytest.mark.parametrize(
    ("mean", "spread", "expected"),
    [(0.98765, 0.0042, "0.9877 ± 0.0042"), (123.4, 21.0, "123 ± 21"), (0.5, None, "0.5"), (0.5, 0.0, "0.5")],
)
def test_means_are_written_to_the_digits_that_their_spread_leaves(mean, spread, expected):
    assert plots.with_spread(mean, spread) == expected


def test_confusion_matrix_writes_counts_that_are_not_zero():
    axes = plots.confusion_matrix(np.array([[8, 2], [0, 10]]), ["cat", "dog"]).axes[0]
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert texts == {(0, 0): "8", (1, 0): "2", (1, 1): "10"}
    assert axes.get_title() == "accuracy 90.00% of 20"
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.8, 0.2], [0, 1]])


def test_reliability_draws_accuracy_and_gap_of_filled_bins():
    upper, lower = reliability().axes
    heights = [bar.get_height() for bar in upper.patches]
    np.testing.assert_allclose(heights, [0.75, 0.5, 0.5 - 0.75, 0.9 - 0.5])
    assert "35.71%" in upper.get_title()  # (|3 - 2| + |5 - 9|) / 14
    np.testing.assert_allclose([bar.get_height() for bar in lower.patches], [4 / 14, 10 / 14])


def test_image_sheet_scales_bytes_and_averages_odd_channels():
    sheet = plots.image_sheet([np.full((2, 2, 1), 51, np.uint8), np.dstack([np.zeros((2, 2)), np.ones((2, 2))])])
    np.testing.assert_allclose([axes.images[0].get_array()[0, 0] for axes in sheet.axes], [0.2, 0.5])


def test_pyplot_is_never_imported():
    code = "import sys, jaxdl.plots; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
