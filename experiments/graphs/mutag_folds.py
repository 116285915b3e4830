"""Ten folds by the protocol of Xu et al. 2019, arXiv 1810.00826, section 7: one epoch is chosen for all folds.

    python experiments/graphs/mutag_folds.py --sweeps=/tmp/mutag

The curves of validation accuracy are averaged over the folds, and the figure is the best mean and the standard
deviation over the folds at that epoch. The folds that choose it are those that are told, so it flatters a little.
"""

import argparse
import pathlib

import numpy as np

from jaxdl.train.record import read_metrics


def accuracies(folders: list[pathlib.Path]) -> tuple[np.ndarray, np.ndarray]:
    """Steps [K], and the validation accuracy of each run at each, [runs, K]."""
    curves = []
    for folder in folders:
        lines = [line for line in read_metrics(folder) if line["split"] == "validation"]
        curves.append({line["step"]: line["accuracy"] for line in lines})
    steps = sorted(set.intersection(*(set(curve) for curve in curves)))
    return np.array(steps), np.array([[curve[step] for step in steps] for curve in curves])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", required=True, help="directories of sweeps over dataset.fold, comma-separated")
    folders = []
    for sweep in parser.parse_args().sweeps.split(","):
        folders += sorted(path.parent for path in pathlib.Path(sweep).glob("trials/*/metrics.jsonl"))
    if not folders:
        parser.error("there are no runs under --sweeps")
    steps, found = accuracies(folders)
    best = int(found.mean(axis=0).argmax())
    told = lambda column: f"{100 * column.mean():.2f} ± {100 * column.std():.2f} %"
    print(f"{len(folders)} folds: {told(found[:, best])} at step {steps[best]}")
    print(f"at the last step, {steps[-1]}: {told(found[:, -1])}")
    print(f"each fold at its own best: {100 * found.max(axis=1).mean():.2f} %")


if __name__ == "__main__":
    main()
