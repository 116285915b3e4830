"""Neighbours, analogies and agreement with people, on vectors small enough to check by hand; files of them."""

import math

import numpy as np
import pytest

from jaxdl.analysis import embeddings
from jaxdl.analysis.embeddings import Answers, Similarity, WordVectors
from jaxdl.errors import InputError
from tests.data_paths import data_path

# Royalty on the first axis, male and female on the others.
ROYAL = WordVectors(
    ("man", "king", "woman", "queen", "Man", "apple"),
    np.array([[0, 1, 0, 0], [2, 2, 0, 0], [0, 0, 1, 0], [3, 0, 3, 0], [0, 1, 0, 0.1], [0, 0, 0, 1]], np.float32),
)


def test_nearest_by_cosine_without_the_word_itself():
    found = embeddings.nearest(ROYAL, "king", 3)
    assert [word for word, _ in found] == ["man", "Man", "queen"]
    np.testing.assert_allclose([score for _, score in found], [0.5**0.5, 0.5**0.5 / 1.01**0.5, 0.5], rtol=1e-6)
    assert len(embeddings.nearest(ROYAL, "king", 100)) == 5


@pytest.mark.parametrize("combination", ["add", "multiply"])
def test_analogy(combination):
    (word, score), *_ = embeddings.analogy(ROYAL, "man", "king", "woman", 1, combination)
    assert word == "queen"
    a, b, c, d = (ROYAL.unit[ROYAL.words.index(name)] for name in ("man", "king", "woman", "queen"))
    if combination == "add":
        expected = d @ (b - a + c) / np.linalg.norm(b - a + c)
    else:
        expected = (1 + d @ b) / 2 * (1 + d @ c) / 2 / ((1 + d @ a) / 2 + 1e-6)
    assert math.isclose(score, expected, rel_tol=1e-5)


def test_similarity_ignores_case_and_tells_the_coverage():
    pairs = [("KING", "man", 9.0), ("king", "queen", 5.0), ("king", "apple", 1.0), ("king", "pear", 9.0)]
    assert embeddings.evaluate_similarity(ROYAL, pairs) == Similarity(pytest.approx(1.0), 3, 4)
    swapped = [("king", "man", 5.0), ("king", "queen", 9.0), ("king", "apple", 1.0)]
    # Ranks (3, 2, 1) against (2, 3, 1): 1 - 6 * (1 + 1) / (3 * 8) = 1/2.
    assert embeddings.evaluate_similarity(ROYAL, swapped).spearman == pytest.approx(0.5)
    nothing = embeddings.evaluate_similarity(ROYAL, pairs[3:])
    assert math.isnan(nothing.spearman) and nothing[1:] == (0, 1)


@pytest.mark.parametrize("combination", ["add", "multiply"])
def test_analogies_by_section(combination):
    sections = {
        "family": [("man", "king", "woman", "Queen"), ("man", "king", "woman", "apple"), ("boy", "king", "a", "b")],
        "none": [("x", "y", "z", "w")],
    }
    results = embeddings.evaluate_analogies(ROYAL, sections, combination)
    assert results == {"family": Answers(1, 2, 3), "none": Answers(0, 0, 1), "all": Answers(1, 2, 4)}
    assert results["all"].accuracy == 0.5 and math.isnan(results["none"].accuracy)
    assert embeddings.evaluate_analogies(ROYAL, {}) == {"all": Answers(0, 0, 0)}


def test_a_question_word_in_another_case_is_no_answer():
    """Without that, "Man" would be nearest to man - man + man."""
    question = {"s": [("man", "man", "man", "king")]}
    assert embeddings.evaluate_analogies(ROYAL, question)["all"].correct == 1


def test_a_vector_of_zeros_is_near_nothing():
    vectors = WordVectors(("a", "b", "c"), np.array([[1, 0], [0, 0], [1, 1]], np.float32))
    assert dict(embeddings.nearest(vectors, "a"))["b"] == 0
    assert all(np.isfinite(score) for _, score in embeddings.analogy(vectors, "b", "b", "b"))


def test_principal_components_are_scikit_learns():
    from sklearn.decomposition import PCA

    vectors = np.random.default_rng(0).normal(size=(9, 4))
    theirs = PCA(2).fit_transform(vectors)
    ours = embeddings.principal_components(vectors, 2)
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-10)
    assert (embeddings.principal_components(vectors[:, :1], 2)[:, 1] == 0).all()


def test_word2vec_files_keep_float32_exactly(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32) * 1e-3
    original = WordVectors(("the", "é", "<b>", "d", "e", "f"), vectors)
    embeddings.write_word2vec(original, tmp_path / "vectors.txt")
    read = embeddings.read_word2vec(tmp_path / "vectors.txt")
    assert read.words == original.words and read.vectors.dtype == np.float32
    np.testing.assert_array_equal(read.vectors, vectors)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected the header 'V D'"),
        ("2 x\n", "expected the header 'V D'"),
        ("2 2\na 1 2\n", "its header promises 2 words and it has 1"),
        ("1 2\na 1\n", ":2: expected a word and 2 numbers"),
        ("1 2\na 1 b\n", ":2: expected a word and 2 numbers"),
    ],
)
def test_bad_word2vec_files(tmp_path, content, message):
    (tmp_path / "v.txt").write_text(content)
    with pytest.raises(InputError, match=message):
        embeddings.read_word2vec(tmp_path / "v.txt")


def test_bad_evaluation_files(tmp_path):
    (tmp_path / "pairs").write_text("# comment\nking queen 3\n")
    with pytest.raises(InputError, match=":2: expected word<TAB>word<TAB>score, and the line is 'king queen 3'"):
        embeddings.read_similarity(tmp_path / "pairs")
    (tmp_path / "early").write_text("a b c d\n")
    with pytest.raises(InputError, match="before the first section"):
        embeddings.read_analogies(tmp_path / "early")
    (tmp_path / "short").write_text(": s\na b c\n")
    with pytest.raises(InputError, match="expected four words"):
        embeddings.read_analogies(tmp_path / "short")
    with pytest.raises(InputError, match="cannot be read: No such file"):
        embeddings.read_similarity(tmp_path / "absent")
    (tmp_path / "latin").write_bytes(b"caf\xe9\n")
    with pytest.raises(InputError, match="no UTF-8 text"):
        embeddings.read_analogies(tmp_path / "latin")
    with pytest.raises(InputError, match="no word 'kin'. Did you mean 'king'"):
        embeddings.nearest(ROYAL, "kin")
    with pytest.raises(InputError, match="2 words but 1 vectors"):
        WordVectors(("a", "b"), np.zeros((1, 3)))


def test_the_published_files():
    folder = data_path("word_similarity")
    assert len(embeddings.read_similarity(folder / "wordsim353.tsv")) == 353
    assert embeddings.read_similarity(folder / "simlex999.txt")[0] == ("old", "new", 1.58)
    sections = embeddings.read_analogies(folder / "questions-words.txt")
    assert (len(sections), sum(map(len, sections.values()))) == (14, 19_544)
