"""`launch.compare --axis` on small run directories written by hand."""

import json
import re

import pytest

from launch import compare
from tests.launch.test_compare import write_run


@pytest.fixture
def runs(tmp_path):
    """Two widths and two parametrizations of three rates and two seeds; the best rate is 0.1 but for one curve."""
    losses = {"0.01": 2.0, "0.1": 1.0, "1": 3.0}
    for kind in ("mup", "standard"):
        for width in ("64", "128"):
            for rate, loss in losses.items():
                for seed in (0, 1):
                    moved = kind == "standard" and width == "128"
                    value = (0.5 if rate == "0.01" else loss) if moved else loss
                    flags = {"parametrization": kind, "model.widths": width, "learning_rate": rate, "seed": seed}
                    lost = moved and rate == "1"
                    path = tmp_path / f"{kind}{width}{rate}{seed}"
                    write_run(path, flags, {10: 9.0, 20: value + seed / 10}, "train", "loss")
                    (path / "status.json").write_text(json.dumps({"state": "diverged" if lost else "done"}))
    return tmp_path


COMMAND = ["--axis=learning_rate", "--metric=loss", "--split=train", "--best=min"]


def test_the_best_of_each_curve_is_told_and_drawn(runs, capsys):
    out = runs / "plot.png"
    assert compare.main([f"--runs={runs}/*", *COMMAND, "--panels=parametrization", f"--out={out}"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[:5]]
    assert lines[0] == ["panel", "runs", "seeds", "best", "learning_rate", "train", "loss", "lost"]
    assert lines[1][:4] == ["mup", "widths=64", "2", "0.1"]
    assert lines[2][:5] == ["mup", "widths=128", "2", "0.1", "1.050"]
    assert lines[3][:4] == ["standard", "widths=64", "2", "0.1"]
    assert lines[4][:5] == ["standard", "widths=128", "2", "0.01", "0.550"] and lines[4][-1] == "2"
    assert out.read_bytes().startswith(b"\x89PNG")


def test_without_panels_curves_have_all_flags_in_their_label(runs, capsys):
    assert compare.main([f"--runs={runs}/mup*", *COMMAND, "--out="]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["runs", "widths=64", "widths=128"]


def test_a_run_that_is_not_done_is_left_out(runs, capsys):
    for seed in (0, 1):
        (runs / f"mup641{seed}" / "status.json").write_text(json.dumps({"state": "running"}))
    assert compare.main([f"--runs={runs}/mup*", *COMMAND, "--out="]) == 0
    assert capsys.readouterr().err == "left out: 2 of 12 runs are not done\n"


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--axis=learning_rat"], "not every run has this flag. Did you mean 'learning_rate'?"),
        (["--axis=parametrization"], "is 'mup' in .*, which is no number"),
        (["--axis=learning_rate", "--panels=model.width"], "--panels=model.width: not every run has this flag"),
        (["--axis=", "--panels=parametrization"], "--panels=parametrization needs --axis"),
        (["--axis=learning_rate", "--metric=los"], "no run has the metric 'los' of the split 'train'"),
    ],
)
def test_bad_input(runs, flags, message, capsys):
    assert compare.main([f"--runs={runs}/*", *COMMAND, "--out=", *flags]) == 2
    error = capsys.readouterr().err

    assert re.search(message, error) and error.count("\n") == 1
