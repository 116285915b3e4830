"""Looking at word vectors: nearest neighbours, analogies, agreement with people's judgements, and files of them.

>>> import numpy as np
>>> words = WordVectors(("king", "man", "woman", "queen"), np.array([[2, 1], [1, 0], [0, 1], [1, 2]], np.float32))
>>> [word for word, _ in nearest(words, "king", 2)]
['man', 'queen']

The numbers are those of gensim's `KeyedVectors`: words that differ in case alone are one in evaluations, where the more
frequent one counts, and the words of a question are no answers to it.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from jaxdl.catalog import nearest as nearest_name
from jaxdl.errors import InputError

Combination = Literal["add", "multiply"]

_CHUNK = 256  # questions answered at a time: a matrix [256, V]
_COSMUL_EPS = 1e-6  # gensim's; Levy and Goldberg 2014 have 0.001


@dataclasses.dataclass(frozen=True, eq=False)
class WordVectors:
    """Words and their vectors.

    Attributes:
      words: [V], all different, the most frequent first.
      vectors: float [V, D].
    """

    words: tuple[str, ...]
    vectors: np.ndarray

    def __post_init__(self):
        if len(self.words) != len(self.vectors):
            raise InputError(f"there are {len(self.words)} words but {len(self.vectors)} vectors.")

    @functools.cached_property
    def unit(self) -> np.ndarray:
        """The vectors at length 1, [V, D]; a vector of zeros stays so."""
        norms = np.linalg.norm(self.vectors, axis=1, keepdims=True)
        return self.vectors / np.where(norms == 0, 1, norms)

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(self.words)}

    @functools.cached_property
    def _caseless_ids(self) -> dict[str, int]:
        return {word.upper(): index for index, word in reversed(list(enumerate(self.words)))}

    @functools.cached_property
    def _groups(self) -> np.ndarray:
        """For each word the id of the most frequent word that differs from it in case alone, int64 [V]."""
        return np.array([self._caseless_ids[word.upper()] for word in self.words], np.int64)

    def id(self, word: str) -> int:
        """Raises: InputError, when there is no such word; the message offers the nearest."""
        if word not in self._ids:
            raise InputError(f"the vocabulary has no word '{word}'.{nearest_name(word, self.words)}")
        return self._ids[word]

    def find(self, word: str) -> int | None:
        """The id of a word in any case; None where there is none."""
        return self._caseless_ids.get(word.upper())


def nearest(vectors: WordVectors, word: str, count: int = 10) -> list[tuple[str, float]]:
    """The `count` words whose vectors have the largest cosine with that of `word`, and the cosines."""
    index = vectors.id(word)
    return _best(vectors, vectors.unit @ vectors.unit[index], [index], count)


def analogy(
    vectors: WordVectors, a: str, b: str, c: str, count: int = 10, combination: Combination = "add"
) -> list[tuple[str, float]]:
    """The words that are to `c` as `b` is to `a` ("man", "king", "woman"), best first, and their scores.

        add (3CosAdd):      cos(d, (b - a + c) / |b - a + c|)          a, b, c at length 1
        multiply (3CosMul): s(d, b) s(d, c) / (s(d, a) + 1e-6)         s = (1 + cos) / 2

    Levy and Goldberg 2014, Linguistic regularities in sparse and explicit word representations, eqs. 3 and 4.
    """
    ids = [vectors.id(word) for word in (a, b, c)]
    return _best(vectors, _scores(vectors.unit, np.array([ids]), combination)[0], ids, count)


class Similarity(NamedTuple):
    """`spearman` in -1 .. 1 over the `covered` pairs, of `total`, of which the vocabulary has both words."""

    spearman: float
    covered: int
    total: int


def evaluate_similarity(vectors: WordVectors, pairs: Sequence[tuple[str, str, float]]) -> Similarity:
    """Spearman's rank correlation between the cosines of pairs of words and the scores that people gave them.

    The correlation is NaN of fewer than two covered pairs.
    """
    from scipy.stats import spearmanr

    found = [(vectors.find(a), vectors.find(b), score) for a, b, score in pairs]
    covered = [(a, b, score) for a, b, score in found if a is not None and b is not None]
    if len(covered) < 2:
        return Similarity(float("nan"), len(covered), len(pairs))
    left, right, scores = (list(column) for column in zip(*covered))
    cosines = (vectors.unit[left] * vectors.unit[right]).sum(axis=1)
    return Similarity(float(spearmanr(cosines, scores).statistic), len(covered), len(pairs))


class Answers(NamedTuple):
    """`correct` of the `covered` questions, of `total`, of which the vocabulary has all four words."""

    correct: int
    covered: int
    total: int

    @property
    def accuracy(self) -> float:
        return self.correct / self.covered if self.covered else float("nan")


Question = tuple[str, str, str, str]


def evaluate_analogies(
    vectors: WordVectors, sections: dict[str, Sequence[Question]], combination: Combination = "add"
) -> dict[str, Answers]:
    """Right answers by section, and in "all": a question a b c d is right if `analogy` of a, b, c puts d first.

    Words are compared without their case, and the three words of a question, in any case, are no answers to it.
    """
    result = {}
    for name, questions in sections.items():
        found = [[vectors.find(word) for word in question] for question in questions]
        ids = np.array([question for question in found if None not in question], np.int64).reshape(-1, 4)
        correct = sum(_correct(vectors, ids[i : i + _CHUNK], combination) for i in range(0, len(ids), _CHUNK))
        result[name] = Answers(correct, len(ids), len(questions))
    return result | {"all": Answers(*(sum(column) for column in zip(*result.values(), (0, 0, 0))))}


def principal_components(vectors: np.ndarray, count: int) -> np.ndarray:
    """Where vectors, float [n, D], lie along their first principal components: float [n, count]; missing ones are 0."""
    centred = vectors - vectors.mean(axis=0, keepdims=True)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    result = np.zeros((len(vectors), count), vectors.dtype)
    result[:, : len(values)] = (left * values)[:, :count]
    return result


def read_similarity(path: str | pathlib.Path) -> list[tuple[str, str, float]]:
    """Pairs of words and their score from a file of lines `word<TAB>word<TAB>score`; lines of `#` are comments.

    WordSim-353 (Finkelstein et al. 2002, scores 0 to 10) and SimLex-999 (Hill et al. 2015) as gensim has them.
    """

    def pair(line: str) -> tuple[str, str, float]:
        a, b, score = line.split("\t")
        return a, b, float(score)

    lines = [(number, line) for number, line in _lines(path) if not line.startswith("#")]
    return [_parsed(pair, path, number, line, "word<TAB>word<TAB>score") for number, line in lines]


def read_analogies(path: str | pathlib.Path) -> dict[str, list[Question]]:
    """Questions of four words by section, from a file as Mikolov's questions-words.txt: `: section`, `a b c d`."""

    def question(line: str) -> Question:
        a, b, c, d = line.split()
        return a, b, c, d

    sections: dict[str, list[Question]] = {}
    for number, line in _lines(path):
        if line.startswith(":"):
            questions = sections.setdefault(line[1:].strip(), [])
        elif not sections:
            raise InputError(f"{path}:{number}: '{line}' stands before the first section, a line ': name'.")
        else:
            questions.append(_parsed(question, path, number, line, "four words"))
    return sections


def write_word2vec(vectors: WordVectors, path: str | pathlib.Path) -> None:
    """Writes word2vec's text format: `V D`, then lines `word number number ...`; float32 is kept exactly."""
    numbers = " ".join(["%.9g"] * vectors.vectors.shape[1])
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write("%d %d\n" % vectors.vectors.shape)
            for word, vector in zip(vectors.words, vectors.vectors):
                file.write(f"{word} {numbers % tuple(vector)}\n")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from None


def read_word2vec(path: str | pathlib.Path) -> WordVectors:
    """Word vectors, float32, in word2vec's text format. Raises InputError for a file that is not."""
    lines = _lines(path)
    number, header = lines[0] if lines else (1, "")
    count, features = _parsed(lambda line: tuple(map(int, line.split())), path, number, header, "the header 'V D'", 2)
    if len(lines) != count + 1:
        raise InputError(f"{path}: its header promises {count} words and it has {len(lines) - 1}.")
    words, vectors = [], np.empty((count, features), np.float32)
    for row, (number, line) in enumerate(lines[1:]):
        word, *values = line.rstrip().split(" ")
        expected = f"a word and {features} numbers"
        vectors[row] = _parsed(lambda _: [float(value) for value in values], path, number, line, expected, features)
        words.append(word)
    return WordVectors(tuple(words), vectors)


def _best(vectors: WordVectors, scores: np.ndarray, without: Sequence[int], count: int) -> list[tuple[str, float]]:
    order = np.argsort(-scores, kind="stable")
    order = order[~np.isin(order, without)][:count]
    return [(vectors.words[index], float(scores[index])) for index in order]


def _scores(unit: np.ndarray, ids: np.ndarray, combination: Combination) -> np.ndarray:
    """The score of every word as the answer to each question a b c: [questions, V] from int [questions, 3]."""
    a, b, c = (unit[ids[:, place]] for place in range(3))
    if combination == "add":
        target = b - a + c
        norms = np.linalg.norm(target, axis=1, keepdims=True)
        return (target / np.where(norms == 0, 1, norms)) @ unit.T
    near_a, near_b, near_c = ((1 + vector @ unit.T) / 2 for vector in (a, b, c))
    return near_b * near_c / (near_a + _COSMUL_EPS)


def _correct(vectors: WordVectors, ids: np.ndarray, combination: Combination) -> int:
    """How many questions a b c d, int [questions, 4], are answered right; ids are of the most frequent case."""
    scores = _scores(vectors.unit, ids[:, :3], combination)
    for place in range(3):
        scores[vectors._groups[None, :] == ids[:, place : place + 1]] = -np.inf
    return int((vectors._groups[scores.argmax(axis=1)] == ids[:, 3]).sum())


def _lines(path: str | pathlib.Path) -> list[tuple[int, str]]:
    """The numbered lines of a text file that are not blank."""
    try:
        text = pathlib.Path(path).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is no UTF-8 text.") from None
    return [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _parsed(parse: Callable, path, number: int, line: str, expected: str, length: int | None = None):
    """`parse(line)`, of `length` items; what is wrong is told with the line's number."""
    try:
        result = parse(line)
        if length is None or len(result) == length:
            return result
    except ValueError:
        pass
    raise InputError(f"{path}:{number}: expected {expected}, and the line is '{line[:60]}'.")
