"""`launch.compare` on small run directories written by hand."""

import json

import pytest

from jaxdl.errors import InputError
from launch import compare


def write_run(path, flags, values, split="validation", metric="accuracy"):
    path.mkdir(parents=True)
    lines = [f"--{name}={value}" for name, value in {**flags, "workdir": path}.items()]
    (path / "flags.txt").write_text("\n".join(lines) + "\n")
    records = [{"step": step, "split": split, metric: value} for step, value in values.items()]
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def runs(tmp_path):
    """Two activations, two seeds each; one seed of tanh went further."""
    for activation, seed, values in (
        ("relu", 0, {10: 0.5, 20: 0.80}),
        ("relu", 1, {10: 0.5, 20: 0.90}),
        ("tanh", 0, {10: 0.6, 20: 0.70}),
        ("tanh", 1, {10: 0.6, 20: 0.70, 30: 0.99}),
    ):
        flags = {"model": "mlp", "model.activation": activation, "seed": seed}
        write_run(tmp_path / f"{activation}{seed}", flags, values)
    return tmp_path


def test_the_table_has_mean_and_spread_over_seeds_best_first(runs, capsys):
    out = runs / "plot.png"
    assert compare.main([f"--runs={runs}/relu*,{runs}/tanh*", f"--out={out}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["run", "seeds", "step", "validation", "accuracy"],
        ["relu", "2", "20", "0.850", "±", "0.071"],
        ["tanh", "2", "20", "0.7"],
    ]
    assert out.read_bytes().startswith(b"\x89PNG")


def test_min_turns_the_order_round_and_no_plot_is_drawn_unasked(runs, capsys):
    assert compare.main([f"--runs={runs}/*", "--best=min", "--out="]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["run", "tanh", "relu"]
    assert not list(runs.glob("*.png"))


def test_a_run_without_values_is_said_and_left_out(runs, capsys):
    write_run(runs / "relu2", {"model": "mlp", "model.activation": "relu", "seed": 2}, {10: None})
    assert compare.main([f"--runs={runs}/*", "--out="]) == 0
    output = capsys.readouterr()
    assert output.err == "relu: 1 of 3 runs have no validation accuracy yet\n"
    assert output.out.splitlines()[1].split()[:2] == ["relu", "2"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([{"model": "a", "seed": "0"}, {"model": "a", "seed": "1"}], ["all runs"]),
        ([{"model": "a"}, {"model": "b"}], ["a", "b"]),
        ([{"model": "a", "optimizer.b": "1"}, {"model": "b", "optimizer.b": "2"}], ["model=a, b=1", "model=b, b=2"]),
        # A flag of one model alone is not needed to tell the models apart, and is where there are two of that model.
        ([{"model": "a", "model.x": "1"}, {"model": "b"}], ["a", "b"]),
        (
            [{"model": "a", "model.x": "1"}, {"model": "a", "model.x": "2"}, {"model": "b"}],
            ["model=a, x=1", "model=a, x=2", "model=b"],
        ),
    ],
)
def test_labels_are_the_flags_that_differ(tmp_path, flags, expected):
    groups = compare.group_runs({tmp_path / str(i): values for i, values in enumerate(flags)})
    assert list(groups) == expected
    assert sum(map(len, groups.values())) == len(flags)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out=x.png"], "which runs?"),
        (["--runs={runs}/relu0,{runs}/nowhere"], "there is no directory {runs}/nowhere"),
        (["--runs={runs}"], "{runs} is no run directory: it has no flags.txt. Its runs are --runs='{runs}/*'."),
        (["--runs={runs}/*", "--metric=acuracy"], "Did you mean 'accuracy'? There are: accuracy."),
        (["--runs={runs}/*", "--split=test"], "There are: none."),
        (["--runs={runs}/*", "--out={runs}/no/folder.png"], "folder.png cannot be written: No such file"),
        (["--runs={runs}/*", "--best=most"], "best"),
        (["--run={runs}/*"], "runs"),
    ],
)
def test_bad_input_is_one_line_and_status_2(runs, capsys, arguments, message):
    assert compare.main([argument.format(runs=runs) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert message.format(runs=runs) in error
    assert error.count("\n") == 1


def test_a_run_counts_once(runs):
    flags = {"model": "mlp", "model.activation": "relu", "seed": 0}
    write_run(runs / "again", flags, {10: 0.5})
    with pytest.raises(InputError, match="again and .*relu0 are the same run"):
        compare.Compare(runs=(f"{runs}/*",), out="").run()
    assert len(compare.find_runs((f"{runs}/relu0", f"{runs}/relu*"))) == 2


def test_seeds_without_a_step_in_common_are_refused(tmp_path):
    write_run(tmp_path / "a", {"seed": 0}, {10: 0.5})
    write_run(tmp_path / "b", {"seed": 1}, {15: 0.5})
    with pytest.raises(InputError, match="no step in common"):
        compare.Compare(runs=(f"{tmp_path}/*",), out="").run()
