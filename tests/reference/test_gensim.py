"""Word vectors held against gensim: the same tables, the same answers; one update of word2vec."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

gensim = pytest.importorskip("gensim")

from gensim.models import KeyedVectors, Word2Vec  # noqa: E402

from jaxdl.analysis import embeddings  # noqa: E402
from jaxdl.data.base import Data  # noqa: E402
from jaxdl.data.tokenizers import WordTokenizer  # noqa: E402
from jaxdl.models import create  # noqa: E402
from jaxdl.tasks.embeddings import NegativeSampling  # noqa: E402
from tests.data_paths import data_path  # noqa: E402

pytestmark = pytest.mark.reference

QUESTIONS = 400  # of each section: gensim takes milliseconds for each


@pytest.fixture(scope="module")
def both():
    """Random vectors, in which words of one question are near each other, for the words of the evaluations."""
    folder = data_path("word_similarity")
    random = np.random.default_rng(0)
    words, vectors = {}, []

    def add(word, vector):
        if word not in words:
            words[word] = None
            vectors.append(vector)

    for questions in embeddings.read_analogies(folder / "questions-words.txt").values():
        offset = random.normal(size=20)
        for a, b, *_ in questions:
            base = random.normal(size=20)
            add(a, base)
            add(b, base + 0.5 * offset + 0.3 * random.normal(size=20))
    for name in ("wordsim353.tsv", "simlex999.txt"):
        for a, b, _ in embeddings.read_similarity(folder / name):
            for word in (a, b):
                if random.random() < 0.9:
                    add(word.capitalize() if random.random() < 0.3 else word, random.normal(size=20))
    vectors = np.asarray(vectors, np.float32)
    theirs = KeyedVectors(20)
    theirs.add_vectors(list(words), vectors)
    return embeddings.WordVectors(tuple(words), vectors), theirs


def assert_same(ours, theirs):
    assert [word for word, _ in ours] == [word for word, _ in theirs]
    np.testing.assert_allclose([score for _, score in ours], [score for _, score in theirs], rtol=1e-4)


def test_neighbours_and_analogies(both):
    ours, theirs = both
    for word in ours.words[:100:7]:
        assert_same(embeddings.nearest(ours, word), theirs.most_similar(word))
    for a, b, c in zip(ours.words[::50], ours.words[1::50], ours.words[2::50]):
        assert_same(embeddings.analogy(ours, a, b, c), theirs.most_similar(positive=[b, c], negative=[a]))
        multiplied = theirs.most_similar_cosmul(positive=[b, c], negative=[a])
        assert_same(embeddings.analogy(ours, a, b, c, combination="multiply"), multiplied)


@pytest.mark.parametrize("name", ["wordsim353.tsv", "simlex999.txt"])
def test_word_pairs(both, name):
    ours, theirs = both
    path = data_path("word_similarity") / name
    result = embeddings.evaluate_similarity(ours, embeddings.read_similarity(path))
    _, spearman, missing = theirs.evaluate_word_pairs(str(path))
    np.testing.assert_allclose(result.spearman, spearman.statistic, atol=1e-9)
    np.testing.assert_allclose(100 * (1 - result.covered / result.total), missing)
    assert 0 < missing < 50


def test_word_analogies(both, tmp_path):
    ours, theirs = both
    sections = embeddings.read_analogies(data_path("word_similarity") / "questions-words.txt")
    sections = {name: questions[:QUESTIONS:5] for name, questions in sections.items()}
    lines = [f": {name}\n" + "\n".join(map(" ".join, questions)) for name, questions in sections.items()]
    (tmp_path / "questions").write_text("\n".join(lines) + "\n")
    results = embeddings.evaluate_analogies(ours, sections)
    accuracy, found = theirs.evaluate_word_analogies(str(tmp_path / "questions"))
    np.testing.assert_allclose(results["all"].accuracy, accuracy)
    assert 0.05 < accuracy < 0.95
    for section in found[:-1]:
        correct, wrong = len(section["correct"]), len(section["incorrect"])
        assert results[section["section"]][:2] == (correct, correct + wrong)


def test_files_are_exchanged(both, tmp_path):
    ours, theirs = both
    embeddings.write_word2vec(ours, tmp_path / "ours.txt")
    read = KeyedVectors.load_word2vec_format(str(tmp_path / "ours.txt"))
    assert tuple(read.index_to_key) == ours.words
    np.testing.assert_array_equal(read.vectors, ours.vectors)
    theirs.save_word2vec_format(str(tmp_path / "theirs.txt"))
    back = embeddings.read_word2vec(tmp_path / "theirs.txt")
    assert back.words == ours.words
    np.testing.assert_array_equal(back.vectors, ours.vectors)


@pytest.mark.parametrize("name", ["skip_gram", "cbow"])
def test_an_update_is_gensims(name):
    """One line of three words, and a noise distribution that draws the fourth always: nothing is left to chance.

    gensim updates after each prediction, so its learning rate is small; its sigmoid is a table of steps of 0.012.
    """
    words, size, rate = ["a", "b", "c", "d"], 8, 1e-3
    theirs = Word2Vec(
        vector_size=size, window=1, negative=1, min_count=1, sample=0, sg=name == "skip_gram", cbow_mean=1, workers=1
    )
    theirs.build_vocab_from_freq({word: 9 - index for index, word in enumerate(words)})
    random = np.random.default_rng(0)
    tables = {table: random.normal(size=(4, size)).astype(np.float32) for table in ("input", "output")}
    theirs.wv.vectors[:], theirs.syn1neg[:] = tables["input"], tables["output"]
    theirs.cum_table = np.array([0, 0, 0, 2**31 - 1], np.uint32)
    theirs.train([words[:3]], total_examples=1, epochs=1, start_alpha=rate, end_alpha=rate)
    changes = {"input": theirs.wv.vectors - tables["input"], "output": theirs.syn1neg - tables["output"]}

    data = Data({}, tokenizer=WordTokenizer(("<unk>", *words)), token_counts=np.array([0, 0, 0, 0, 1]))
    task, model = NegativeSampling(negatives=1).for_data(data), create(name, vocab_size=5, features=size)
    params = {table: jnp.concatenate([jnp.zeros((1, size)), values]) for table, values in tables.items()}
    batch = {
        "inputs": jnp.array([[0, 1, 2, 3, 0]], jnp.int32),
        "reach": jnp.array([[[0, 1], [1, 1], [1, 0]]], jnp.uint8),
    }

    def loss(params):
        forward = lambda *inputs: model.apply({"params": params}, *inputs, train=True)
        return task.loss(forward, batch, jax.random.key(0))[0]

    gradient = jax.grad(loss)(params)
    for table, change in changes.items():
        np.testing.assert_allclose(change / rate, -gradient[table][1:], atol=0.03, rtol=0.01)
        assert np.abs(change / rate).max() > 0.5
