"""Figures of sequence to sequence: where a decoder looked, and what it wrote. Matplotlib, as `jaxdl.plots`."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from jaxdl.plots import GREEN, VERMILION

LONGEST = 48  # characters of a text in a table


def attention_maps(
    weights: Sequence[np.ndarray],
    sources: Sequence[Sequence[str]],
    outputs: Sequence[Sequence[str]],
    titles: Sequence[str],
) -> Figure:
    """One heat map an example: a row for each token that was decoded, a column for each of the source.

    Bahdanau, Cho and Bengio 2015 (arXiv 1409.0473), figure 3.

    Args:
      weights: of each example, float [t, s] in 0 .. 1, every row a distribution.
      sources: the s tokens of each source, as text.
      outputs: the t tokens of each output.
      titles: above each map.
    """
    columns = min(len(weights), 3)
    rows = math.ceil(len(weights) / columns)
    cell = 0.24
    width = columns * (0.9 + cell * max(map(len, sources))) + 0.7
    height = rows * (0.9 + cell * max(map(len, outputs)))
    figure = Figure(figsize=(max(width, 4.0), max(height, 2.2)), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes in panels[len(weights) :]:
        axes.remove()
    for axes, map_, source, output, title in zip(panels, weights, sources, outputs, titles):
        image = axes.imshow(map_, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        long = max(map(len, source), default=1) > 2
        axes.set_xticks(range(len(source)), source, fontsize=8, rotation=90 if long else 0)
        axes.set_yticks(range(len(output)), output, fontsize=8)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.set_title(title, fontsize=8)
    bar = figure.colorbar(image, ax=figure.axes, shrink=min(1.0, 2.0 / height), aspect=12)
    bar.set_label("attention weight", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def example_table(rows: Sequence[tuple[str, str, str]], title: str = "") -> Figure:
    """Sources, right outputs and decoded ones, a line each; what was decoded is green where it is right, else red.

    Args:
      rows: (source, target, decoded).
      title: above the table.
    """
    cut = lambda text: text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    texts = [("source", "target", "decoded"), *(tuple(map(cut, row)) for row in rows)]
    lengths = [max(len(row[column]) for row in texts) + 3 for column in range(3)]
    starts = np.cumsum([0, *lengths[:2]])
    width, height = max(0.083 * sum(lengths), 0.075 * len(title), 3.0) + 0.2, 0.2 * len(texts) + 0.4
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.1 / width, 0.05 / height, 1 - 0.2 / width, 0.2 * len(texts) / height))
    axes.set_axis_off()
    axes.set_xlim(0, sum(lengths))
    axes.set_ylim(len(texts), 0)
    for line, row in enumerate(texts):
        color = "black" if line == 0 else (GREEN if rows[line - 1][1] == rows[line - 1][2] else VERMILION)
        for column, text in enumerate(row):
            shade = color if column == 2 else "black"
            weight = "bold" if line == 0 else "normal"
            place = {"family": "monospace", "fontsize": 8, "va": "center", "parse_math": False}
            axes.text(starts[column], line + 0.5, text, color=shade, weight=weight, **place)
    figure.suptitle(title, fontsize=9, y=1 - 0.1 / height, va="top")
    return figure
