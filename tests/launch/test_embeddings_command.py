"""`launch.embeddings` on a run of three steps, and on files; each wrong use is one line."""

import numpy as np
import pytest

from jaxdl import experiment
from jaxdl.analysis.embeddings import read_word2vec
from launch import embeddings


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("embeddings")
    (path / "train.txt").write_text("the king and the queen saw the man and the woman\n" * 20)
    (path / "pairs.tsv").write_text("king\tqueen\t9\nMan\twoman\t8\nthe\tking\t1\nking\tzebra\t1\n")
    (path / "questions.txt").write_text(": family\nman king woman queen\nman king boy prince\n")
    flags = [
        "--model=skip_gram",
        "--model.features=5",
        "--task=negative_sampling",
        "--dataset=word_pairs",
        "--dataset.subsampling=0",
        f"--data_dir={path}",
        "--optimizer=sgd",
        "--batch_size=4",
        "--steps=3",
        "--tensorboard=false",
        "--progress=off",
        "--mesh=data:1",
        f"--workdir={path / 'run'}",
    ]
    experiment.run(experiment.parse(flags))
    return path


def test_all_at_once(run, capsys):
    arguments = ["--neighbours=king,the", "--analogy=man:king:woman", "--count=2", "--combination=multiply"]
    files = [f"--similarity={run}/pairs.tsv", f"--analogies={run}/questions.txt", f"--export={run}/vectors.txt"]
    assert embeddings.main([f"--workdir={run}/run", *arguments, *files]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0] == "nearest to king" and lines[3] == "nearest to the" and lines[6] == "man is to king as woman is to"
    )
    assert lines[9].startswith(f"{run}/pairs.tsv: Spearman ") and lines[9].endswith("over 3 of 4 pairs")
    assert lines[11].startswith("  family: accuracy ") and lines[11].endswith("of 1, of 2 questions")
    vectors = read_word2vec(run / "vectors.txt")
    assert sorted(vectors.words) == ["and", "king", "man", "queen", "saw", "the", "woman"]
    assert vectors.vectors.shape == (7, 5) and np.abs(vectors.vectors).max() <= 0.2
    assert embeddings.main([f"--vectors={run}/vectors.txt", "--neighbours=king,the", "--count=2"]) == 0
    assert capsys.readouterr().out.splitlines() == lines[:6]


def test_a_run_ends_with_neighbours_and_a_map(run):
    [neighbours], [drawn] = ((run / "run" / "samples").rglob(pattern) for pattern in ("*.txt", "*.png"))
    lines = neighbours.read_text().strip().splitlines()
    assert len(lines) == 7 and all(line.count(",") == 5 for line in lines)  # seven words, the six others
    assert drawn.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing was asked for"),
        (["--neighbours=king"], "whose vectors? Either --workdir=RUN or --vectors=FILE"),
        (["--workdir=absent", "--neighbours=king"], "is no run directory"),
        (["--workdir={run}/run", "--neighbours=quen"], "no word 'quen'. Did you mean 'queen'?"),
        (["--workdir={run}/run", "--analogy=man:king"], "a question is a:b:c"),
        (["--workdir={run}/run", "--similarity={run}/absent"], "cannot be read: No such file"),
        (["--workdir={run}/run", "--similarity={run}/questions.txt"], "expected word<TAB>word<TAB>score"),
        (["--workdir={run}/run", "--export={run}/no/where.txt"], "cannot be written: No such file"),
    ],
)
def test_wrong_use_is_one_line(run, capsys, arguments, message):
    assert embeddings.main([argument.format(run=run) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_run_without_word_vectors_is_refused(tmp_path, capsys):
    flags = ["--model=softmax_regression", "--dataset=digits", "--steps=1", "--plots=false", "--tensorboard=false"]
    experiment.run(experiment.parse([*flags, "--progress=off", "--mesh=data:1", f"--workdir={tmp_path}/run"]))
    assert embeddings.main([f"--workdir={tmp_path}/run", "--neighbours=king"]) == 2
    assert "model SoftmaxRegression has no vectors of words" in capsys.readouterr().err
