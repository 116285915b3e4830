"""Counts of words, as vectors: bag of words, TF-IDF, co-occurrence, PPMI and its singular vectors.

Pure functions on NumPy arrays and SciPy's sparse matrices (CSR). Words are ids, 0 .. V - 1.
"""

from collections.abc import Sequence

import numpy as np
import scipy.sparse
import scipy.sparse.linalg

from jaxdl.errors import InputError


def bag_of_words(documents: Sequence[np.ndarray], vocab_size: int) -> scipy.sparse.csr_matrix:
    """How often each word is in each document: int64 CSR [documents, V].

    Args:
      documents: the ids of each, int [words]; it may be empty.
      vocab_size: V.
    """
    lengths = [len(document) for document in documents]
    words = np.concatenate([np.zeros(0, np.int64), *documents])
    rows = np.repeat(np.arange(len(documents)), lengths)
    return _summed(np.ones(len(words), np.int64), rows, words, (len(documents), vocab_size))


def inverse_document_frequency(counts: scipy.sparse.csr_matrix, smooth: bool = True) -> np.ndarray:
    """How rare each word is: log((1 + n) / (1 + df)) + 1, float64 [V], df of n documents having the word.

    Args:
      counts: [documents, V], of the training documents.
      smooth: without it the ones in the fraction are left out, and a word in no document gives infinity.

    Equal to scikit-learn's `TfidfTransformer(smooth_idf=smooth).fit(counts).idf_`.
    """
    documents = np.bincount(counts.nonzero()[1], minlength=counts.shape[1])
    with np.errstate(divide="ignore"):
        return np.log((counts.shape[0] + smooth) / (documents + smooth)) + 1


def tf_idf(
    counts: scipy.sparse.csr_matrix, idf: np.ndarray, sublinear: bool = False, normalize: bool = True
) -> scipy.sparse.csr_matrix:
    """Term frequency times inverse document frequency: float64 CSR [documents, V].

    Args:
      counts: [documents, V]; the frequency of a term is its count.
      idf: [V], `inverse_document_frequency` of the training documents.
      sublinear: 1 + log(count) in place of the count.
      normalize: each document to Euclidean norm 1 (an empty one stays 0).

    Equal to scikit-learn's `TfidfTransformer(sublinear_tf=sublinear, norm="l2" if normalize else None)`, whose default
    is this default. Other variants: Salton and Buckley 1988, Term-weighting approaches in automatic text retrieval.
    """
    result = scipy.sparse.csr_matrix(counts, dtype=np.float64, copy=True)
    result.eliminate_zeros()
    if sublinear:
        result.data = 1 + np.log(result.data)
    result.data *= idf[result.indices]
    if normalize:
        norms = np.sqrt(np.asarray(result.multiply(result).sum(axis=1))[:, 0])
        result.data /= np.repeat(norms, np.diff(result.indptr))
    return result


def cooccurrence(
    words: np.ndarray,
    vocab_size: int,
    window: int,
    segments: np.ndarray | None = None,
    distance_weighting: bool = False,
) -> scipy.sparse.csr_matrix:
    """How often each word is near each other word: symmetric CSR [V, V], float64.

    Args:
      words: int [words], a text.
      vocab_size: V.
      window: the largest distance that counts, on either side.
      segments: int [words]; words of different segments (lines, documents) are not near each other. None: one segment.
      distance_weighting: words d apart count 1 / d, as for GloVe (Pennington et al. 2014, section 4.2).
    """
    total = scipy.sparse.csr_matrix((vocab_size, vocab_size), dtype=np.float64)
    for distance in range(1, min(window, len(words) - 1) + 1):
        left, right = words[:-distance], words[distance:]
        if segments is not None:
            together = segments[:-distance] == segments[distance:]
            left, right = left[together], right[together]
        weight = 1 / distance if distance_weighting else 1.0
        total = total + _summed(np.full(len(left), weight), left, right, total.shape)
    return (total + total.T).tocsr()


def ppmi(counts: scipy.sparse.csr_matrix, smoothing: float = 0.75, shift: float = 1.0) -> scipy.sparse.csr_matrix:
    """Positive pointwise mutual information of words and contexts: max(log P(w, c) / (P(w) P_s(c)) - log k, 0).

    Levy, Goldberg and Dagan 2015, Improving distributional similarity with lessons learned from word embeddings,
    TACL 3, section 2.1 and eqs. 3 (shift) and 4 (smoothing).

    Args:
      counts: CSR [words, contexts], at least 0.
      smoothing: P_s(c) ~ count(c) ** smoothing; 1 is none.
      shift: k, as the number of negative samples of skip-gram; 1 is none.

    Returns:
      CSR [words, contexts], float64, without the zeros.
    """
    if not counts.sum() > 0:
        raise InputError("there are no co-occurrences to take the mutual information of.")
    entries = scipy.sparse.coo_matrix(counts, dtype=np.float64)
    entries.eliminate_zeros()
    of_word, of_context = (np.asarray(counts.sum(axis=axis), np.float64).ravel() for axis in (1, 0))
    context = of_context**smoothing / (of_context**smoothing).sum()
    values = np.log(entries.data) - np.log(of_word[entries.row]) - np.log(context[entries.col]) - np.log(shift)
    kept = values > 0
    return scipy.sparse.csr_matrix((values[kept], (entries.row[kept], entries.col[kept])), shape=counts.shape)


def svd_vectors(matrix: scipy.sparse.csr_matrix, features: int, eigenvalue_power: float = 0.5) -> np.ndarray:
    """Word vectors U S^p of the truncated singular value decomposition U S V': float64 [words, features].

    The features stand by falling singular value, each with its largest element positive. p (`eigenvalue_power`) is 1
    for the decomposition itself and less for word similarity (Levy et al. 2015, section 3.3).

    Raises:
      InputError: features must be below both sides of the matrix.
    """
    if not 0 < features < min(matrix.shape):
        raise InputError(f"{features} singular vectors of a matrix {matrix.shape}: there must be fewer than its sides.")
    start = np.random.default_rng(0).normal(size=min(matrix.shape))  # or ARPACK would draw it, each time another
    left, values, _ = scipy.sparse.linalg.svds(matrix.astype(np.float64), features, v0=start)
    left, values = left[:, ::-1], values[::-1]
    signs = np.sign(left[np.abs(left).argmax(axis=0), np.arange(features)])
    return left * signs * values**eigenvalue_power


def _summed(values, rows, columns, shape) -> scipy.sparse.csr_matrix:
    """Entries of which several may have one place, added."""
    return scipy.sparse.coo_matrix((values, (rows, columns)), shape=shape).tocsr()
