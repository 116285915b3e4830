"""The points of Chinchilla's figure 4, as Besiroglu et al. 2024 (arXiv 2404.10102) extracted and fitted them."""

import csv

import numpy as np

from tests.data_paths import data_path


def chinchilla_points() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parameters, tokens and loss of the 240 runs: without the five of highest loss. Skips where there is no file."""
    with open(data_path("chinchilla/svg_extracted_data.csv"), newline="") as file:
        rows = [[float(row[name]) for name in ("Model Size", "Training FLOP", "loss")] for row in csv.DictReader(file)]
    N, C, loss = np.array(rows).T
    D = C / 6 / N
    worst = np.argsort(loss)[-5:]
    assert set(worst) == set(np.argsort(D / N)[:5])
    kept = np.setdiff1d(np.arange(len(loss)), worst)
    return N[kept], D[kept], loss[kept]
