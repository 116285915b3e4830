"""Draws double descent: errors against the width of a sweep's networks, as their means and deviations over seeds.

    python experiments/scaling/double_descent_figure.py --runs=/tmp/double --out=double_descent.png

prints the table, too. Training errors are against the noisy labels, of the last line of metrics.
"""

import argparse
import pathlib

import numpy as np
from matplotlib.figure import Figure

from jaxdl import plots
from jaxdl.train.record import read_flags, read_json, read_metrics


def read(path: pathlib.Path) -> tuple[int, int, dict[str, float]]:
    """Width, parameters, and the error of each split at the end of a run that is done."""
    records = read_metrics(path)
    last = {record["split"]: record for record in records if "accuracy" in record}
    errors = {split: 100 * (1 - last[split]["accuracy"]) for split in ("train", "test")}
    parameters = read_json(path / "environment.json")["parameters"]
    return int(read_flags(path / "flags.txt")["model.widths"]), parameters, errors


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", required=True, help="the sweep's directory")
    parser.add_argument("--out", required=True, help="the PNG file")
    arguments = parser.parse_args()
    paths = sorted(path.parent for path in pathlib.Path(arguments.runs).glob("trials/*/status.json"))
    runs = [read(path) for path in paths if read_json(path / "status.json")["state"] == "done"]
    if not runs:
        parser.error(f"--runs={arguments.runs} has no run that is done under trials/.")
    parameters = {width: count for width, count, _ in runs}
    widths = sorted(parameters)
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for split, label in (("train", "training, noisy labels"), ("test", "test, right labels")):
        errors = [np.array([error[split] for width, _, error in runs if width == wanted]) for wanted in widths]
        mean, spread = np.array([e.mean() for e in errors]), np.array([e.std(ddof=1) for e in errors])
        axes.plot(widths, mean, "o-", color=plots.SPLIT_COLORS[split], markersize=4, label=label)
        axes.fill_between(widths, mean - spread, mean + spread, color=plots.SPLIT_COLORS[split], alpha=0.2, linewidth=0)
        for width, m, s, each in zip(widths, mean, spread, errors):
            print(f"{split} width {width}: {m:.2f} ± {s:.2f} % of {len(each)} seeds, {parameters[width]:,} parameters")
    axes.set_xscale("log", base=2)
    axes.set_xticks(widths[::2], [f"{width}\n{parameters[width]:,}" for width in widths[::2]])
    plots.style(axes, "hidden units, and parameters of the network", "error in %")
    axes.legend(frameon=False, title="mean ± standard deviation over seeds")
    pathlib.Path(arguments.out).write_bytes(plots.to_png(figure))


if __name__ == "__main__":
    main()
