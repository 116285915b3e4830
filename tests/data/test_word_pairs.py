"""Words and the words around them: subsampling, windows, lines, counts; refusals."""

import numpy as np
import pytest
import scipy.stats

from jaxdl.data.pipeline import Pipeline
from jaxdl.data.sources import materialize, read
from jaxdl.data.word_pairs import Cooccurrence, WordPairs, keep_probability
from jaxdl.errors import InputError

TEXT = "a b c a\n\nb b rare a <unk> c\n a\n"


@pytest.fixture
def text(tmp_path):
    (tmp_path / "train.txt").write_text(TEXT)
    (tmp_path / "valid.txt").write_text("c zebra b\n")
    return tmp_path


def long_text(path, words=20_000, vocabulary=50):
    random = np.random.default_rng(0)
    drawn = np.minimum(random.zipf(1.3, words), vocabulary)
    (path / "train.txt").write_text("\n".join(" ".join(f"w{i}" for i in line) for line in drawn.reshape(-1, 100)))
    return path


def pairs_of(batch):
    """All (word, neighbour) of a batch, sorted."""
    length = batch["reach"].shape[1]
    side = (batch["inputs"].shape[1] - length) // 2
    found = []
    for tokens, reach in zip(batch["inputs"], batch["reach"]):
        for place, (before, after) in enumerate(reach.astype(int)):
            centre = place + side
            found += [
                (int(tokens[centre]), int(tokens[other]))
                for other in range(centre - before, centre + after + 1)
                if other != centre
            ]
    return sorted(found)


def test_vocabulary_lines_and_windows_by_hand(text):
    data = WordPairs(min_count=2, window=2, length=3, subsampling=0.0, dynamic_window=False).load(str(text))
    assert data.tokenizer.words == ("<unk>", "a", "b", "c")
    np.testing.assert_array_equal(data.token_counts, [0, 4, 3, 2])
    batch = materialize(data.splits["train"])
    assert batch["inputs"].dtype == np.int32 and batch["inputs"].shape == (3, 7)  # 9 words, 3 an example
    # Lines: 1 2 3 1, and 2 2 1 3 (rare and <unk> are gone), and 1.
    expected = []
    for line in ([1, 2, 3, 1], [2, 2, 1, 3], [1]):
        expected += [(line[i], line[j]) for i in range(len(line)) for j in range(len(line)) if 0 < abs(i - j) <= 2]
    assert pairs_of(batch) == sorted(expected)
    assert pairs_of(materialize(data.splits["validation"])) == [(2, 3), (3, 2)]  # zebra is no word


@pytest.mark.parametrize("length", [1, 2, 5, 16])
def test_the_length_of_an_example_changes_no_pair(text, length):
    settings = {"min_count": 1, "window": 3, "subsampling": 0.0}
    whole, parts = (WordPairs(**settings, length=n).load(str(text)).splits["train"] for n in (9, length))
    assert pairs_of(materialize(parts)) == pairs_of(materialize(whole))


def test_an_example_is_the_same_alone_and_in_a_batch(text):
    source = WordPairs(min_count=1, length=2, subsampling=0.0).load(str(text)).splits["train"]
    batch = read(source, np.array([3, 0]))
    for name, value in source[3].items():
        np.testing.assert_array_equal(value, batch[name][0])
    pipelines = [Pipeline(source, batch_size=2, seed=5) for _ in range(2)]
    for name, value in pipelines[0].batch(7).items():
        np.testing.assert_array_equal(value, pipelines[1].batch(7)[name])


def test_keep_probability_is_word2vecs():
    counts = np.array([0, 100, 1, 899])
    # word2vec.c: (sqrt(count / (sample * total)) + 1) * (sample * total) / count
    expected = [(np.sqrt(c / (0.01 * 1000)) + 1) * (0.01 * 1000) / c for c in (100, 1, 899)]
    np.testing.assert_allclose(keep_probability(counts, 0.01)[1:], np.minimum(expected, 1))
    assert keep_probability(counts, 0.01)[2] == 1 and (keep_probability(counts, 0.0) == 1).all()


def test_subsampling_keeps_what_it_says(tmp_path):
    passes = 20
    data = WordPairs(min_count=1, subsampling=0.02, passes=passes, window=1).load(str(long_text(tmp_path)))
    batch = materialize(data.splits["train"])
    centres = batch["inputs"][:, 1:-1]
    kept = np.bincount(centres.ravel(), minlength=51)[1:]
    counts = data.token_counts[1:]
    expected = keep_probability(data.token_counts, 0.02)[1:] * counts * passes
    assert kept[0] < 0.4 * counts[0] * passes and (expected[-5:] == counts[-5:] * passes).any()
    # Of n words with probability p the count kept has variance n p (1 - p); five standard deviations.
    deviation = np.sqrt(np.maximum(expected * (1 - expected / (counts * passes)), 1))
    assert (np.abs(kept - expected) < 5 * deviation).all()


def test_dynamic_windows_are_uniform(tmp_path):
    data = WordPairs(min_count=1, subsampling=0.0, window=5).load(str(long_text(tmp_path)))
    reach = materialize(data.splits["train"])["reach"].reshape(-1, 100, 2)[:, 5:-5].reshape(-1, 2)
    np.testing.assert_array_equal(reach[:, 0], reach[:, 1])  # far from the line's ends it is what was drawn
    counts = np.bincount(reach[:, 0], minlength=6)[1:]
    assert len(counts) == 5 and scipy.stats.chisquare(counts).pvalue > 1e-3


def test_passes_and_seeds_are_drawn_anew(tmp_path):
    long_text(tmp_path)
    load = lambda **flags: materialize(WordPairs(min_count=1, **flags).load(str(tmp_path)).splits["train"])
    first, again, other = (load(sampling_seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first["inputs"], again["inputs"])
    assert first["inputs"].shape != other["inputs"].shape or (first["inputs"] != other["inputs"]).any()
    twice = load(passes=2)
    full = len(first["inputs"]) - 1  # the last example is filled up from the second pass
    np.testing.assert_array_equal(twice["reach"][:full], first["reach"][:full])
    assert len(twice["inputs"]) > 1.9 * full


def test_cooccurrence_entries(text):
    data = Cooccurrence(min_count=2, window=2, length=3).load(str(text))
    batch = materialize(data.splits["train"])
    assert batch["inputs"].shape[1:] == (3, 2) and batch["cooccurrences"].dtype == np.float32
    entries = {
        tuple(pair): count
        for pair, count in zip(batch["inputs"].reshape(-1, 2).tolist(), batch["cooccurrences"].ravel().tolist())
        if count
    }
    # a b c a and b b a c: a-b at distances 1, 2, 1, 2; a-c at 2, 1, 1; b-c at 1, 2; b-b at 1, both ways.
    # a b / b c / c a / a c (2) / b a (2) | b b / b a / a c / b a (2) / b c (2)
    assert entries == {
        **{pair: 1 + 0.5 + 1 + 0.5 for pair in ((1, 2), (2, 1))},
        **{pair: 0.5 + 1 + 1 for pair in ((1, 3), (3, 1))},
        **{pair: 1 + 0.5 for pair in ((2, 3), (3, 2))},
        (2, 2): 2.0,
    }


def test_a_single_file_is_the_training_text(text):
    data = WordPairs(path="valid.txt", min_count=1).load(str(text))
    assert list(data.splits) == ["train"] and data.tokenizer.vocab_size == 4


@pytest.mark.parametrize("dataset", [WordPairs, Cooccurrence])
def test_refusals(tmp_path, dataset):
    with pytest.raises(InputError, match="does not exist"):
        dataset(path="absent").load(str(tmp_path))
    with pytest.raises(InputError, match="no train.txt"):
        dataset().load(str(tmp_path))
    (tmp_path / "train.txt").write_bytes(b"caf\xe9 " * 10)
    with pytest.raises(InputError, match="train.txt is not UTF-8: byte 0xe9 at offset 3 "):
        dataset().load(str(tmp_path))
    (tmp_path / "train.txt").write_text("")
    with pytest.raises(InputError, match="train.txt is empty"):
        dataset().load(str(tmp_path))
    for content in ("a b c\n", "a a a a a\n"):
        (tmp_path / "train.txt").write_text(content)
        with pytest.raises(InputError, match="a vocabulary needs at least two"):
            dataset().load(str(tmp_path))
    with pytest.raises(InputError, match="--dataset.window=256"):
        dataset(window=256).load(str(tmp_path))
    (tmp_path / "train.txt").write_text("a b\n" * 5)
    for content, message in (("", "valid.txt is empty"), ("c d\n", "'validation' has no word of the 2 that train")):
        (tmp_path / "valid.txt").write_text(content)
        with pytest.raises(InputError, match=message):
            dataset().load(str(tmp_path))
    (tmp_path / "valid.txt").unlink()
    if dataset is WordPairs:
        with pytest.raises(InputError, match="--dataset.subsampling=1e-20 leaves no word"):
            dataset(subsampling=1e-20).load(str(tmp_path))
    (tmp_path / "train.txt").write_text("a\nb\n" * 5)
    if dataset is Cooccurrence:
        with pytest.raises(InputError, match="no two words"):
            dataset().load(str(tmp_path))
