"""Count models: by hand, and against scikit-learn."""

import numpy as np
import pytest
import scipy.sparse
from sklearn.feature_extraction.text import TfidfTransformer

from jaxdl.analysis import counts
from jaxdl.errors import InputError

DOCUMENTS = [np.array([0, 1, 1, 3]), np.array([], int), np.array([1, 2]), np.array([1, 1, 1, 0])]


def test_bag_of_words():
    bags = counts.bag_of_words(DOCUMENTS, 5)
    assert bags.dtype == np.int64
    np.testing.assert_array_equal(bags.toarray(), [[1, 2, 0, 1, 0], [0, 0, 0, 0, 0], [0, 1, 1, 0, 0], [1, 3, 0, 0, 0]])
    assert counts.bag_of_words([], 3).shape == (0, 3)


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("sublinear", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
def test_tf_idf_is_scikit_learns(smooth, sublinear, normalize):
    train = counts.bag_of_words(DOCUMENTS, 4)  # each word is in some document: without smoothing idf is finite
    other = counts.bag_of_words([np.array([3, 3, 0]), np.array([], int)], 4)
    theirs = TfidfTransformer(norm="l2" if normalize else None, smooth_idf=smooth, sublinear_tf=sublinear).fit(train)
    idf = counts.inverse_document_frequency(train, smooth)
    np.testing.assert_allclose(idf, theirs.idf_)
    for documents in (train, other):
        ours = counts.tf_idf(documents, idf, sublinear, normalize)
        np.testing.assert_allclose(ours.toarray(), theirs.transform(documents).toarray())
    assert counts.tf_idf(train, idf, sublinear, normalize) is not train and train.dtype == np.int64


def test_cooccurrence_by_hand():
    words = np.array([0, 1, 2, 0, 0])
    plain = counts.cooccurrence(words, 4, 2)
    #         pairs at distance 1: 01 12 20 00, at distance 2: 02 10 20; both ways round
    np.testing.assert_array_equal(plain.toarray(), [[2, 2, 3, 0], [2, 0, 1, 0], [3, 1, 0, 0], [0, 0, 0, 0]])
    weighted = counts.cooccurrence(words, 4, 2, distance_weighting=True)
    np.testing.assert_array_equal(weighted.toarray(), [[2, 1.5, 2, 0], [1.5, 0, 1, 0], [2, 1, 0, 0], [0, 0, 0, 0]])


def test_cooccurrence_stays_within_segments():
    words, segments = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    np.testing.assert_array_equal(counts.cooccurrence(words, 2, 3, segments).toarray(), [[0, 2], [2, 0]])
    assert counts.cooccurrence(words[:1], 2, 3).nnz == 0


def test_ppmi_by_hand():
    matrix = scipy.sparse.csr_matrix([[4.0, 0.0, 1.0], [0.0, 2.0, 1.0]])
    # P(w) = 5/8, 3/8; P(c) = 4/8, 2/8, 2/8
    expected = np.array([[np.log(0.5 / (5 / 8 * 0.5)), 0, 0], [0, np.log(0.25 / (3 / 8 * 0.25)), np.log(4 / 3)]])
    np.testing.assert_allclose(counts.ppmi(matrix, smoothing=1).toarray(), expected)
    np.testing.assert_allclose(
        counts.ppmi(matrix, smoothing=1, shift=1.5).toarray(), np.maximum(expected - np.log(1.5), 0), atol=1e-12
    )


def test_ppmi_smoothing_takes_from_rare_contexts():
    matrix = scipy.sparse.csr_matrix([[8.0, 1.0], [8.0, 0.0]])
    smoothed = np.array([16**0.75, 1]) / (16**0.75 + 1)
    expected = np.log(1 / 17 / (9 / 17 * smoothed[1]))
    ours = counts.ppmi(matrix, smoothing=0.75).toarray()
    np.testing.assert_allclose(ours[0, 1], expected)
    assert ours[0, 1] < counts.ppmi(matrix, smoothing=1).toarray()[0, 1]


def test_svd_vectors_are_numpys():
    matrix = np.random.default_rng(0).normal(size=(7, 5))
    left, values, _ = np.linalg.svd(matrix, full_matrices=False)
    ours = counts.svd_vectors(scipy.sparse.csr_matrix(matrix), 3, eigenvalue_power=0.5)
    np.testing.assert_allclose(np.abs(ours), np.abs(left[:, :3] * np.sqrt(values[:3])), atol=1e-10)
    assert (ours[np.abs(ours).argmax(axis=0), np.arange(3)] > 0).all()
    np.testing.assert_array_equal(ours, counts.svd_vectors(scipy.sparse.csr_matrix(matrix), 3, 0.5))


def test_refusals():
    with pytest.raises(InputError, match="no co-occurrences"):
        counts.ppmi(scipy.sparse.csr_matrix((2, 2)))
    with pytest.raises(InputError, match="5 singular vectors of a matrix"):
        counts.svd_vectors(scipy.sparse.eye(5).tocsr(), 5)
