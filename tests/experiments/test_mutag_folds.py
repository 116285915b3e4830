"""The figure of ten folds: one epoch for all, the one whose mean is best."""

import json
import pathlib
import subprocess
import sys

SCRIPT = pathlib.Path(__file__).parents[2] / "experiments/graphs/mutag_folds.py"


def test_one_step_is_chosen_for_all_folds(tmp_path):
    curves = {"fold0": [0.5, 0.8, 1.0], "fold1": [0.9, 0.8, 0.5]}  # means 0.7, 0.8, 0.75
    for name, curve in curves.items():
        lines = [{"step": 10 * (at + 1), "split": "validation", "accuracy": value} for at, value in enumerate(curve)]
        lines.append({"step": 10, "split": "train", "accuracy": 0.1})
        (tmp_path / "trials" / name).mkdir(parents=True)
        (tmp_path / "trials" / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    told = subprocess.run([sys.executable, SCRIPT, f"--sweeps={tmp_path}"], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() == [
        "2 folds: 80.00 ± 0.00 % at step 20",
        "at the last step, 30: 75.00 ± 25.00 %",
        "each fold at its own best: 95.00 %",
    ]


def test_no_runs(tmp_path):
    told = subprocess.run([sys.executable, SCRIPT, f"--sweeps={tmp_path}"], capture_output=True, text=True)
    assert told.returncode == 2 and "there are no runs under --sweeps" in told.stderr
