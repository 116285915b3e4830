"""Plots: pure functions from arrays to a Matplotlib figure. They never touch pyplot, so no display and no state.

Colours are those of Okabe and Ito 2008, Color universal design, which people with any colour vision tell apart;
where there are more curves than colours, the line style changes too. This module imports Matplotlib, so who
draws imports it where it draws.
"""

import io
import itertools
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib import cm, colormaps, colors, patches, ticker
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave

BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE, BLACK, YELLOW = PALETTE = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000", "#F0E442",
)  # fmt: skip
SPLIT_COLORS = {"train": BLUE, "validation": VERMILION, "test": GREEN}
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)))
GRAY = "#666666"
MAX_TARGETS = 9


def to_png(figure: Figure, dpi: int = 150) -> bytes:
    """The figure as a PNG file's content."""
    buffer = io.BytesIO()
    imsave(buffer, _draw(figure, dpi), format="png", dpi=dpi)  # savefig would draw it twice
    return buffer.getvalue()


def to_array(figure: Figure, dpi: int = 100) -> np.ndarray:
    """The figure as pixels, uint8 [H, W, 3]: what TensorBoard takes."""
    return _draw(figure, dpi)[:, :, :3].copy()


def _draw(figure: Figure, dpi: int) -> np.ndarray:
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def learning_curves(records: Iterable[Mapping], metric: str | None = None, best_step: int | None = None) -> Figure:
    """Loss, a metric, the losses of several players and the learning rate over the steps of one run.

    Args:
      records: dictionaries with `step` and `split`, and with `loss`, `metric`, `PLAYER_loss`, `learning_rate` where
        there are.
      metric: the metric of the second panel; None or "loss" for no second panel.
      best_step: the step whose validation metric is marked and named in the legend.
    """
    records = list(records)
    names = ["loss"] if metric in (None, "loss") else ["loss", metric]
    rates = _series(records, "train", "learning_rate")
    of_players = {name: _series(records, "train", name) for name in _player_losses(records)}
    heights = [3.0] * (len(names) + bool(of_players)) + [1.2] * bool(len(rates[0]))
    figure = Figure(figsize=(6.4, sum(heights) + 0.4), layout="constrained")
    panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, name in zip(panels, names):
        drawn = []
        for split, color in SPLIT_COLORS.items():
            steps, values = _series(records, split, name)
            if not len(steps):
                continue
            drawn.append(values)
            if split == "train":
                _draw_noisy(axes, steps, values, color, split)
            else:
                marker = "D" if split == "test" else "o"
                axes.plot(steps, values, color=color, marker=marker, markersize=4, linewidth=1.4, label=split)
        steps, values = _series(records, "validation", name)
        if name == (metric or "loss") and best_step in list(steps):
            at = list(steps).index(best_step)
            label = f"best: {values[at]:.4g} at step {int(steps[at]):,}"
            axes.plot(steps[at], values[at], "o", markersize=10, fillstyle="none", color=BLACK, zorder=5, label=label)
        if name == "loss" and drawn:
            log_if_wide(axes, np.concatenate(drawn))
        style(axes, "" if name is not names[-1] or len(rates[0]) else "step", name.replace("_", " "))
        if drawn:
            axes.legend(frameon=False, fontsize=8)
    for (name, (steps, values)), color in zip(of_players.items(), itertools.cycle((PURPLE, ORANGE, GREEN, SKY))):
        _draw_noisy(panels[len(names)], steps, values, color, name.removesuffix("_loss"))
    if of_players:
        style(panels[len(names)], "" if len(rates[0]) else "step", "training losses")
        panels[len(names)].legend(frameon=False, fontsize=8)
    if len(rates[0]):
        panels[-1].plot(*rates, color=GRAY, linewidth=1.2)
        style(panels[-1], "step", "learning rate")
        panels[-1].set_ylim(bottom=0)
        panels[-1].ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
        panels[-1].yaxis.get_offset_text().set_fontsize(8)
    panels[-1].xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
    return figure


def _player_losses(records: Sequence[Mapping]) -> list[str]:
    """The names of training losses beside `loss`."""
    return sorted(
        {name for record in records if record["split"] == "train" for name in record if name.endswith("_loss")}
    )


def comparison(
    curves: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]],
    metric: str,
    best: str = "max",
    title: str = "",
) -> Figure:
    """One curve for each label: the mean over its runs, within a band of one standard deviation.

    Args:
      curves: label -> one (steps, values) for each seed; the steps that all seeds of a label share are drawn.
      metric: what the values are, for the axis.
      best: "max" or "min": the order of the legend, best last value first.
      title: above the axes.
    """
    means = {}
    for label, runs in curves.items():
        steps, values = common_steps(runs)
        if len(steps):
            means[label] = steps, values.mean(axis=0), values.std(axis=0, ddof=1) if len(values) > 1 else None
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    ranked = sorted(means, key=lambda label: means[label][1][-1], reverse=best == "max")
    for label in ranked:
        steps, mean, spread = means[label]
        index = list(curves).index(label)  # the order given, so that a label keeps its colour from plot to plot
        color, dashes = PALETTE[index % 7], DASHES[index // 7 % 3]  # yellow is too pale for a line on white
        last = with_spread(mean[-1], None if spread is None else spread[-1])
        marker = "o" if len(steps) == 1 else ""
        axes.plot(steps, mean, color=color, linestyle=dashes, linewidth=1.5, marker=marker, label=f"{label}  {last}")
        if spread is not None:
            axes.fill_between(steps, mean - spread, mean + spread, color=color, alpha=0.15, linewidth=0)
    style(axes, "step", metric.replace("_", " "), title)
    axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
    if best == "min" and means:
        log_if_wide(axes, np.concatenate([mean for _, mean, _ in means.values()]))
    if means:
        last = "last value" if all(spread is None for _, _, spread in means.values()) else "last value ± SD over seeds"
        place = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
        axes.legend(frameon=False, fontsize=8, title=last, title_fontsize=8, alignment="left", **place)
    return figure


def with_spread(mean: float, spread: float | None) -> str:
    """`0.8977 ± 0.0112`: the mean to the digits that the spread leaves; None is a single run."""
    if spread is None or not spread > 0:
        return f"{mean:.4g}"
    digits = max(0, 1 - math.floor(math.log10(spread)))
    return f"{mean:.{digits}f} ± {spread:.{digits}f}"


def common_steps(runs: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The steps that all runs have, [S], and each run's values there, [R, S]."""
    shared = np.asarray(runs[0][0])
    for steps, _ in runs[1:]:
        shared = np.intersect1d(shared, steps)
    return shared, np.stack([np.asarray(values)[np.searchsorted(steps, shared)] for steps, values in runs])


def confusion_matrix(counts: np.ndarray, names: Sequence[str]) -> Figure:
    """Rows are true classes, columns predictions; colour is the share of the row, numbers are counts.

    Numbers are left out above 20 classes and class names above 100. The colour scale is a square root, because
    the cells that matter in a good classifier hold few of their row.

    Args:
      counts: int [C, C].
      names: C class names.
    """
    counts = np.asarray(counts)
    num_classes = len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    longest = max((len(name) for name in names), default=1)
    side = float(np.clip(0.36 * num_classes, 2.4, 11))
    size = float(np.clip(72 * 0.8 * side / num_classes, 4.5, 8))
    margin = 0.5 + size * (0.0088 * min(longest, 30))  # inches for the names
    figure = Figure(figsize=(side + margin + 0.9, side + margin + 0.2), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", norm=colors.PowerNorm(0.5, vmin=0, vmax=1), interpolation="nearest")
    if num_classes <= 20:
        digits = 8 if counts.max(initial=0) < 1000 else 6.5
        for row, column in zip(*np.nonzero(counts)):
            shade = "white" if shares[row, column] > 0.4 else "black"
            axes.text(column, row, counts[row, column], ha="center", va="center", color=shade, fontsize=digits)
    if num_classes <= 100:
        axes.set_xticks(range(num_classes), names, rotation=90 if longest > 2 else 0, fontsize=size)
        axes.set_yticks(range(num_classes), names, fontsize=size)
        axes.tick_params(length=0 if num_classes > 20 else 2)
    accuracy = np.trace(counts) / max(counts.sum(), 1)
    axes.set_title(f"accuracy {accuracy:.2%} of {counts.sum():,}", fontsize=9)
    axes.set_xlabel("predicted class", fontsize=9)
    axes.set_ylabel("true class", fontsize=9)
    inset = axes.inset_axes([1 + 0.1 / side, 0, 0.15 / side, 1])
    bar = figure.colorbar(image, cax=inset, ticks=[0, 0.01, 0.05, 0.2, 0.5, 1])
    bar.set_label("share of the true class", fontsize=8)
    bar.ax.yaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
    bar.ax.tick_params(labelsize=7)
    return figure


def image_sheet(
    images: Sequence[np.ndarray], captions: Sequence[str] | None = None, title: str = "", columns: int | None = None
) -> Figure:
    """Images in rows, each with its caption above.

    Args:
      images: each [H, W, channels], uint8 or float in 0 .. 1. Other than 3 or 4 channels are averaged to gray.
      captions: one for each image; may have several lines.
      title: above the sheet.
      columns: images in a row; by default the sheet is about half as high again as a square is.
    """
    columns = columns or max(1, min(len(images), math.ceil(math.sqrt(1.5 * len(images)))))
    rows = max(1, math.ceil(len(images) / columns))
    lines = max((caption.count("\n") + 1 for caption in captions or ()), default=0)
    width = max(1.05 * columns, 0.07 * len(title))
    figure = Figure(figsize=(width, rows * (1.0 + 0.15 * lines) + (0.35 if title else 0.05)), layout="constrained")
    for index, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.set_axis_off()
        if index >= len(images):
            continue
        image = np.asarray(images[index])
        if image.dtype == np.uint8:
            image = image / 255
        image = image if image.shape[-1] in (3, 4) else image.mean(axis=-1)
        axes.imshow(np.clip(image, 0, 1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        if captions:
            axes.set_title(captions[index], fontsize=7, pad=2)
    if title:
        figure.suptitle(title, fontsize=9)
    return figure


def retrieved(
    texts: Sequence[str], images: Sequence[Sequence[np.ndarray]], cosines: np.ndarray, right: np.ndarray
) -> Figure:
    """Texts, each with the images that it finds in the row below it, the most similar first.

    Args:
      texts: M of them.
      images: for each text N images [H, W, channels], uint8 or float in 0 .. 1.
      cosines: float [M, N], above the images.
      right: bool [M, N]: which images belong to the text; they are framed.
    """
    rows, columns = np.shape(cosines)
    figure = Figure(figsize=(max(1.3 * columns, 5.0), 1.55 * rows), layout="constrained")
    for row, part in enumerate(np.atleast_1d(figure.subfigures(rows, 1))):
        part.suptitle("\n".join(textwrap.wrap(texts[row], 85)), fontsize=8, x=0.01, ha="left")
        for column, axes in enumerate(part.subplots(1, columns, squeeze=False)[0]):
            image = np.asarray(images[row][column])
            image = image / 255 if image.dtype == np.uint8 else image
            image = image if image.shape[-1] in (3, 4) else image.mean(axis=-1)
            axes.imshow(np.clip(image, 0, 1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set_title(f"{cosines[row, column]:.2f}", fontsize=7, pad=2)
            axes.set(xticks=[], yticks=[])
            for spine in axes.spines.values():
                spine.set(visible=bool(right[row, column]), color=GREEN, linewidth=3)
    return figure


def reliability(count: np.ndarray, confidence: np.ndarray, correct: np.ndarray) -> Figure:
    """Accuracy against confidence, and how often each confidence occurs.

    Guo et al. 2017, On calibration of modern neural networks (arXiv 1706.04599), figure 1.

    Args:
      count, confidence, correct: sums over each of M bins of equal width in 0 .. 1, as `metrics.Calibration` has them.
    """
    edges = np.linspace(0, 1, len(count) + 1)
    filled = count > 0
    centers, width = (edges[:-1] + edges[1:])[filled] / 2, 1 / len(count)
    accuracies, confidences = correct[filled] / count[filled], confidence[filled] / count[filled]
    error = np.abs(correct - confidence).sum() / max(count.sum(), 1)
    figure = Figure(figsize=(3.8, 4.9), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
    upper.bar(centers, accuracies, width, color=SKY, edgecolor="white", linewidth=0.5, label="accuracy")
    gap = dict(color=VERMILION, alpha=0.35, edgecolor=VERMILION, linewidth=0.5, hatch="////")
    upper.bar(centers, confidences - accuracies, 0.96 * width, bottom=accuracies, label="gap to confidence", **gap)
    upper.plot([0, 1], [0, 1], color=GRAY, linestyle="--", linewidth=1)
    upper.set_xlim(0, 1)
    upper.set_ylim(0, 1)
    upper.legend(frameon=False, fontsize=8, loc="upper left")
    style(upper, "", "accuracy", f"expected calibration error {error:.2%}")
    lower.bar(centers, count[filled] / max(count.sum(), 1), width, color=GRAY, edgecolor="white", linewidth=0.5)
    lower.yaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
    style(lower, "confidence", "examples")
    return figure


def predictions(targets: np.ndarray, predicted: np.ndarray) -> Figure:
    """Predictions against targets, with the diagonal on which they would be exact; a panel for each target.

    Args:
      targets, predicted: float [N, T]; the first nine targets are drawn.
    """
    figure, panels = _target_panels(targets.shape[1])
    for target, axes in enumerate(panels):
        x, y = targets[:, target], predicted[:, target]
        axes.scatter(x, y, **_points(len(x)))
        low, high = min(x.min(), y.min()), max(x.max(), y.max())
        axes.plot([low, high], [low, high], color=GRAY, linestyle="--", linewidth=1)
        deviations = np.square(x - x.mean()).sum()
        r2 = f", R² = {1 - np.square(x - y).sum() / deviations:.3f}" if deviations > 0 else ""
        axes.set_aspect("equal", adjustable="datalim")
        style(axes, "target", "prediction", f"{_target_name(target, targets.shape[1])}N = {len(x):,}{r2}")
    return figure


def residuals(targets: np.ndarray, predicted: np.ndarray) -> Figure:
    """Prediction less target, against the prediction: bias and uneven spread show; a panel for each target.

    Args:
      targets, predicted: float [N, T]; the first nine targets are drawn.
    """
    figure, panels = _target_panels(targets.shape[1])
    for target, axes in enumerate(panels):
        x, residual = predicted[:, target], predicted[:, target] - targets[:, target]
        axes.scatter(x, residual, **_points(len(x)))
        axes.axhline(0, color=GRAY, linestyle="--", linewidth=1)
        title = f"mean {residual.mean():.2g}, SD {residual.std():.3g}"
        style(axes, "prediction", "prediction − target", _target_name(target, targets.shape[1]) + title)
    return figure


def roc_curves(scores: np.ndarray, labels: np.ndarray, weight: np.ndarray, names: Sequence[str]) -> Figure:
    """True against false positives at every threshold, for each of several labels.

    Args:
      scores, labels, weight: float [N, T]; labels are 0 or 1, and where `weight` is 0 there is none.
      names: of the T labels; those that have but one value are left out.
    """
    figure = Figure(figsize=(5.6, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GRAY, linestyle="--", linewidth=1)
    drawn = 0
    for column, name in enumerate(names):
        own = weight[:, column] > 0
        found = labels[own, column]
        if not 0 < found.sum() < len(found):
            continue
        order = np.argsort(-scores[own, column], kind="stable")
        # One point for each threshold: of equal scores, the last.
        last = np.append(np.diff(scores[own, column][order]) != 0, True)
        hits, misses = (np.append(0, np.cumsum(x[order])[last] / x.sum()) for x in (found, 1 - found))
        color, dash = PALETTE[drawn % len(PALETTE)], DASHES[drawn // len(PALETTE) % len(DASHES)]
        label = f"{name}: {np.trapezoid(hits, misses):.3f}"
        axes.plot(misses, hits, color=color, linestyle=dash, linewidth=1.2, label=label)
        drawn += 1
    axes.set_aspect("equal")
    style(axes, "false positive rate", "true positive rate", "ROC, and the area under it")
    if drawn:
        axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def loss_by_position(totals: np.ndarray, counts: np.ndarray) -> Figure:
    """The mean loss of the token at each place of a sequence: how much a longer context helps.

    Args:
      totals: nats summed over the tokens at each place, [T].
      counts: how many tokens those were, [T]; places without any are left out.
    """
    places = np.flatnonzero(counts)
    losses = totals[places] / counts[places]
    mean = totals.sum() / counts.sum()
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(places + 1, losses, color=BLUE, linewidth=1.4, marker="o" if len(places) < 20 else "")
    axes.axhline(mean, color=GRAY, linestyle="--", linewidth=1, label=f"mean {mean:.4g}")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axes.legend(frameon=False, fontsize=8)
    style(axes, "tokens seen", "loss (nats a token)", f"{int(counts.sum()):,} tokens")
    return figure


def surprisal(tokens: Sequence[str], bits: np.ndarray, columns: int = 64) -> Figure:
    """A text whose tokens are coloured by how little the model expected them.

    Args:
      tokens: the text of each token; line breaks and tabs are shown as signs.
      bits: -log2 of the probability that the model gave each, [N].
      columns: characters in a line of the figure.
    """
    signs = str.maketrans({"\n": "⏎", "\t": "→", "\r": "␍", " ": "␣"})
    placed, row, column = [], 0, 0
    for token, value in zip(tokens, bits, strict=True):
        shown = (token if token.strip() else token.translate(signs)).translate(str.maketrans({"\n": "⏎", "\t": "→"}))
        shown = shown or "·"
        if column and column + len(shown) > columns:
            row, column = row + 1, 0
        placed.append((row, column, shown[:columns], value))
        column += len(shown)
        if token.endswith("\n"):
            row, column = row + 1, 0
    rows = placed[-1][0] + 1
    figure = Figure(figsize=(0.115 * columns + 1.1, 0.22 * rows + 0.9), layout="constrained")
    axes = figure.subplots()
    norm = colors.PowerNorm(0.5, vmin=0, vmax=max(float(np.max(bits)), 1.0))
    palette = colormaps["YlOrRd"]
    text = {"family": "monospace", "fontsize": 8, "ha": "center", "va": "center"}
    for row, column, shown, value in placed:
        axes.add_patch(
            patches.Rectangle((column, row), len(shown), 1, facecolor=palette(norm(value)), edgecolor="white")
        )
        for index, character in enumerate(shown):
            axes.text(
                column + index + 0.5, row + 0.5, character, **text, color="white" if norm(value) > 0.8 else "black"
            )
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)
    axes.set_axis_off()
    axes.set_title(f"mean {np.mean(bits):.3g} bits a token", fontsize=9)
    bar = figure.colorbar(cm.ScalarMappable(norm, palette), ax=axes, fraction=0.03, pad=0.02)
    bar.set_label("surprisal (bits)", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def word_map(points: np.ndarray, words: Sequence[str]) -> Figure:
    """Words where their vectors, float [words, 2], are: the first two principal components, say."""
    figure = Figure(figsize=(9.6, 7.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(*points.T, ".", color=SKY, markersize=3)
    for (x, y), word in zip(points, words):
        axes.annotate(word, (x, y), fontsize=6, color=BLACK, parse_math=False)
    style(axes, "first principal component", "second principal component")
    return figure


def _target_panels(num_targets: int):
    drawn = min(num_targets, MAX_TARGETS)
    columns = min(drawn, 3)
    rows = math.ceil(drawn / columns)
    figure = Figure(figsize=(3.5 * columns, 3.3 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for unused in panels[drawn:]:
        unused.remove()
    if drawn < num_targets:
        figure.suptitle(f"the first {drawn} of {num_targets} targets", fontsize=9)
    return figure, panels[:drawn]


def _target_name(target: int, num_targets: int) -> str:
    return f"target {target}: " if num_targets > 1 else ""


def _points(number: int) -> dict:
    """Marks that stay readable from ten points to a hundred thousand."""
    return {
        "s": float(np.clip(4000 / max(number, 1), 2, 16)),
        "alpha": float(np.clip(300 / max(number, 1), 0.08, 0.7)),
        "color": BLUE,
        "linewidths": 0,
    }


def _series(records: Sequence[Mapping], split: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and finite values of one number in the records of one split."""
    pairs = [
        (record["step"], record[name])
        for record in records
        if record.get("split") == split and isinstance(record.get(name), (int, float)) and math.isfinite(record[name])
    ]
    steps, values = zip(*pairs) if pairs else ((), ())
    return np.asarray(steps, np.float64), np.asarray(values, np.float64)


def _draw_noisy(axes, steps: np.ndarray, values: np.ndarray, color: str, label: str) -> None:
    """A line; when it has more points than can be told apart, their running mean over it."""
    window = len(steps) // 50
    if window < 3:
        axes.plot(steps, values, color=color, linewidth=1.2, label=label)
        return
    axes.plot(steps, values, color=color, linewidth=0.6, alpha=0.3)
    sums = np.concatenate([[0], np.cumsum(values)])
    position = np.arange(len(values))
    first, last = np.maximum(position - window // 2, 0), np.minimum(position + window // 2 + 1, len(values))
    mean = (sums[last] - sums[first]) / (last - first)
    axes.plot(steps, mean, color=color, linewidth=1.4, label=f"{label} (mean of {window // 2 * 2 + 1} points)")


def log_if_wide(axes, values: np.ndarray) -> None:
    """A logarithmic axis where the values are positive and span a decade."""
    if values.min() > 0 and values.max() > 10 * values.min():
        axes.set_yscale("log")
        if values.max() < 1000 * values.min():  # few whole powers of ten: name 2 and 5 as well
            axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_formatter(ticker.NullFormatter())


def style(axes, xlabel: str, ylabel: str, title: str = "") -> None:
    """Labels, and what all axes of this house share: small type, a faint grid, no box."""
    axes.set_xlabel(xlabel, fontsize=9)
    axes.set_ylabel(ylabel, fontsize=9)
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=8, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2, linewidth=0.6, which="major")
    axes.set_axisbelow(True)
