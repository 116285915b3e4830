"""`launch.scaling_law` on tables and on small run directories written by hand."""

import dataclasses
import json

import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.scaling import fits
from jaxdl.scaling.laws import LAWS, chinchilla
from launch import scaling_law
from tests.launch.test_compare import write_run

TRUTH = {"A": 400.0, "B": 1500.0, "E": 1.7, "alpha": 0.34, "beta": 0.36}
QUICK = ["--resamples=30", "--target_losses=2.5"]


@pytest.fixture(autouse=True)
def few_starts(monkeypatch):
    """The law is begun at nine of its 4,500 starts, for speed."""
    starts = np.array([(a, b, 0.5, 0.5, 0.5) for a in (5.0, 10.0, 15.0) for b in (5.0, 10.0, 15.0)])
    law = dataclasses.replace(LAWS["chinchilla"], starts=lambda axes, values: starts)
    monkeypatch.setattr(fits, "LAWS", {**LAWS, "chinchilla": law})


def points():
    """25 runs at five budgets, with a little noise."""
    flops = np.repeat(np.geomspace(1e15, 1e19, 5), 5)
    N = np.sqrt(flops / 120) * np.tile(10 ** np.linspace(-0.6, 0.6, 5), 5)
    D = flops / 6 / N
    return N, D, chinchilla(N, D, **TRUTH) * np.exp(0.002 * np.random.default_rng(0).standard_normal(25))


def write_table(path, header="parameters,tokens,loss", change=None):
    rows = [[repr(float(value)) for value in row] for row in zip(*points())]
    if change:
        change(rows)
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    return path


def write_points_as_runs(folder):
    """Each run is measured four times: the last is the point."""
    for index, (N, D, loss) in enumerate(zip(*points())):
        length, batch_size = 64, 8
        steps = max(4, round(D / length / batch_size))
        path = folder / f"run{index:02}"
        seen = [steps // 8, steps // 4, steps // 2, steps]
        values = {step: chinchilla(N, step * 512.0, **TRUTH) for step in seen[:-1]} | {steps: loss}
        flags = {"model.width": 2**index, "batch_size": batch_size, "dataset.length": length, "seed": index}
        write_run(path, flags, values, metric="loss")
        (path / "environment.json").write_text(json.dumps({"parameters": round(N)}))
        (path / "status.json").write_text(json.dumps({"state": "done", "step": steps}))
    return folder


def test_a_table_becomes_a_report(tmp_path, capsys):
    table, out = write_table(tmp_path / "t.csv"), tmp_path / "law"
    assert scaling_law.main([f"--csv={table}", f"--out={out}", *QUICK]) == 0
    printed = capsys.readouterr().out
    assert "exponent of N" in printed and f"written: {out}/report.md" in printed
    data = json.loads((out / "report.json").read_text())
    assert data["points"] == 25 and len(data["isoflop"]) == 5
    assert data["law"]["constants"]["E"] == pytest.approx(1.7, rel=0.1)
    assert {path.stem for path in out.glob("*.png")} == {"frontier", "isoflop", "contours", "residuals", "bootstrap"}


def test_columns_are_named_and_flops_give_tokens(tmp_path):
    def to_flops(rows):
        for row in rows:
            row[1] = repr(6 * float(row[0]) * float(row[1]))

    table = write_table(tmp_path / "t.csv", "Model Size,FLOP,nats", to_flops)
    command = scaling_law.ScalingLaw(csv=str(table), parameters="Model Size", flops="FLOP", loss="nats")
    N, D, loss = points()
    found = command._from_table()
    np.testing.assert_allclose(list(found.columns.values()), [N, D, loss], rtol=1e-12)
    fewer = found.without_highest(2)
    assert sorted(fewer.columns["loss"]) == sorted(loss)[:-2] and len(fewer.labels) == 23
    assert fewer.notes == [f"2 of 25 points left out, those of a loss of {sorted(loss)[-2]:.4g} and more"]


def test_runs_become_the_same_report_and_those_not_done_are_listed(tmp_path, capsys):
    runs = write_points_as_runs(tmp_path / "runs")
    for state, error in (("diverged", "the loss is not finite at step 7"), ("running", None)):
        path = write_run(runs / state, {"batch_size": 8, "seed": 99}, {4: 3.0}, metric="loss")
        (path / "environment.json").write_text('{"parameters": 1000}')
        (path / "status.json").write_text(json.dumps({"state": state, "error": error}))
    (write_run(runs / "unmeasured", {"batch_size": 8, "seed": 98}, {}) / "status.json").write_text('{"state": "done"}')
    assert scaling_law.main([f"--runs={runs}", f"--out={tmp_path}/law", *QUICK]) == 0
    told = capsys.readouterr().err
    assert f"left out: {runs}/diverged: diverged: the loss is not finite at step 7\n" in told
    assert f"left out: {runs}/running: running\n" in told
    assert f"left out: {runs}/unmeasured: environment.json has no parameters\n" in told
    data = json.loads((tmp_path / "law" / "report.json").read_text())
    assert data["points"] == 25 and data["notes"][0] == "25 runs" and len(data["notes"]) == 4
    assert data["law"]["constants"]["E"] == pytest.approx(1.7, rel=0.1)
    assert data["envelope_frontier"] is not None
    assert (tmp_path / "law" / "envelope.png").exists()


def test_tokens_are_steps_times_batch_size_and_length(tmp_path):
    runs = write_points_as_runs(tmp_path)
    run = scaling_law.read_run(runs / "run03", "validation", "loss")
    N, D, loss = (column[3] for column in points())
    assert run.parameters == round(N) and run.loss[-1] == loss
    assert run.tokens[-1] == pytest.approx(D, rel=0.05) and run.tokens[-1] == run.steps[-1] * 512
    assert run.number("model.width") == 8
    assert run.number("examples") == 8 * run.steps[-1]
    assert dataclasses.replace(run, flags=run.flags | {"model.widths": "64,64"}).number("model.widths") == 64
    with pytest.raises(InputError, match="--axis=model.widths is '64,32' in .*run03, which is no number."):
        dataclasses.replace(run, flags=run.flags | {"model.widths": "64,32"}).number("model.widths")


def test_one_axis_of_runs_and_of_a_table(tmp_path, capsys):
    runs = write_points_as_runs(tmp_path / "runs")
    assert scaling_law.main([f"--runs={runs}", "--axis=model.width", f"--out={tmp_path}/a", *QUICK]) == 0
    assert json.loads((tmp_path / "a" / "report.json").read_text())["axis"] == "model.width"
    lines = [f"{width},{0.9 - width**-0.5}" for width in (4, 8, 16, 32, 64, 128)]
    (tmp_path / "t.csv").write_text("\n".join(["width,accuracy", *lines]))
    arguments = [f"--csv={tmp_path}/t.csv", "--axis=width", "--loss=accuracy", f"--out={tmp_path}/b", *QUICK]
    assert scaling_law.main(arguments) == 0
    law = json.loads((tmp_path / "b" / "report.json").read_text())["law"]
    assert law["constants"] == pytest.approx({"A": 1, "E": 0.9, "alpha": 0.5}, rel=1e-3)


def test_a_column_names_the_runs_of_training_curves(tmp_path):
    (tmp_path / "t.csv").write_text(
        "name,parameters,tokens,loss\na,10,200,3\na,10,100,4\nb,20,100,3.5\nb,20,400,2.5\nc,30,100,2.9\n"
    )
    command = scaling_law.ScalingLaw(csv=f"{tmp_path}/t.csv", curve="name", out="x")
    found = command._from_table()
    assert found.columns["D"].tolist() == [200, 400, 100] and found.columns["loss"].tolist() == [3, 2.5, 2.9]
    assert [(N, D.tolist()) for N, D, _ in found.curves] == [(10, [100, 200]), (20, [100, 400])]


def put(row, column, text):
    return lambda rows: rows[row].__setitem__(column, text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put(2, 2, "abc"), "line 4: loss is 'abc', which is no number."),
        (put(2, 0, ""), "line 4: parameters is '', which is no number."),
        (put(0, 1, "0"), "line 2: tokens is 0, and must be positive"),
        (put(1, 2, "nan"), "line 3: loss is nan; leave the point out, or mend it."),
        (lambda rows: rows.append(rows[4]), "line 6 and {table} line 27 are the same point; leave one of them out."),
        (lambda rows: rows.__delitem__(slice(4, None)), "4 points are too few for 5 constants; at least 6 are needed."),
        (put(3, 1, "1,500"), "line 5 has more cells than the header; a number has no comma"),
        (lambda rows: [row.__setitem__(2, "2.5") for row in rows], "all points have loss 2.5; a law needs several"),
        (lambda rows: rows.clear(), "has a header and no lines."),
        (
            lambda rows: [row.__setitem__(1, repr(1e15 / 6 / float(row[0]))) for row in rows],
            "all points are of one budget, 1e+15 FLOPs; a law of N and D needs at least two budgets.",
        ),
    ],
)
def test_a_bad_table_is_one_line_and_nothing_is_written(tmp_path, capsys, change, message):
    table = write_table(tmp_path / "t.csv", change=change)
    assert scaling_law.main([f"--csv={table}", f"--out={tmp_path}/law"]) == 2
    error = capsys.readouterr().err
    assert message.format(table=table) in error and error.count("\n") == 1
    assert not (tmp_path / "law").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out=x"], "which points? Either --csv=FILE or --runs=SWEEP."),
        (["--csv={table}"], "where to? --out=DIR."),
        (
            ["--csv={table}", "--out=x", "--tokens=token"],
            "no column 'token'. Did you mean 'tokens'? There are: ",
        ),
        (["--csv={folder}/none.csv", "--out=x"], "none.csv cannot be read: No such file"),
        (["--csv={table}", "--out=x", "--leave_out=25"], "--leave_out=25 leaves none of the 25 points."),
        (["--csv={table}", "--out=x", "--published=hofmann"], "no published law 'hofmann'"),
        (["--csv={table}", "--out=x", "--predict_parameters=7e9"], "are of the same runs: give as many of each."),
        (["--csv={table}", "--out=x", "--budgets=-1"], "--budgets: every number must be positive."),
        (["--runs={folder}/none", "--out=x"], "--runs: there is no directory {folder}/none"),
        (["--runs={folder}/empty", "--out=x"], "is no run directory"),
        (["--runs={folder}/runs", "--out=x", "--split=test"], "none of the 25 runs is done and has a test loss."),
        (["--runs={folder}/runs", "--out=x", "--axis=model.widht"], "Did you mean 'model.width'?"),
    ],
)
def test_bad_flags_are_one_line_and_status_2(tmp_path, capsys, arguments, message):
    table = write_table(tmp_path / "t.csv")
    (tmp_path / "empty").mkdir()
    write_points_as_runs(tmp_path / "runs")
    names = {"table": table, "folder": tmp_path}
    assert scaling_law.main([argument.format(**names) for argument in arguments]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message.format(**names) in errors[0]


def test_a_metric_that_rises_is_no_loss_of_n_and_d(tmp_path, capsys, monkeypatch):
    # Begun where the 4,500 starts have their best one: alpha and beta below 0.
    law = dataclasses.replace(LAWS["chinchilla"], starts=lambda axes, values: np.array([(-2, -2, 0, -0.1, -0.1)]))
    monkeypatch.setattr(fits, "LAWS", {**LAWS, "chinchilla": law})

    def rise(rows):
        for row, N, D in zip(rows, *points()[:2]):
            row[2] = repr(float(1 + 0.1 * N**0.05 + 0.1 * D**0.05))

    table = write_table(tmp_path / "t.csv", change=rise)
    assert scaling_law.main([f"--csv={table}", f"--out={tmp_path}/law"]) == 2
    error = capsys.readouterr().err
    assert "the loss does not fall with the parameters (alpha is -0.05" in error and error.count("\n") == 1
    assert not (tmp_path / "law").exists()


def test_a_fit_that_did_not_converge_is_status_1(tmp_path, capsys, monkeypatch):
    usual = fits.fit_parametric
    monkeypatch.setattr(
        fits, "fit_parametric", lambda *points, **how: dataclasses.replace(usual(*points, **how), converged=False)
    )
    table = write_table(tmp_path / "t.csv")
    assert scaling_law.main([f"--csv={table}", f"--out={tmp_path}/law", *QUICK]) == 1
    output = capsys.readouterr()
    assert "did not converge" in output.out and output.err.startswith("error: the fit did not converge; ")
    assert not list((tmp_path / "law").glob("*.png"))
