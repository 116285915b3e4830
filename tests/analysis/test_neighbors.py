"""Nearest neighbours, probes and recall: against loops, scikit-learn and the obvious cases."""

import itertools

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from jaxdl.analysis import neighbors

RANDOM = np.random.default_rng(0)
FEATURES = RANDOM.normal(size=(50, 6)).astype(np.float32)
QUERIES = RANDOM.normal(size=(9, 6)).astype(np.float32)


def test_nearest_is_scikit_learns(monkeypatch):
    monkeypatch.setattr(neighbors, "_CHUNK", 4)
    rows, cosines = neighbors.nearest(QUERIES, 3 * FEATURES, 5)
    distance, expected = NearestNeighbors(n_neighbors=5, metric="cosine").fit(FEATURES).kneighbors(QUERIES)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(cosines, 1 - distance, atol=1e-6)


def test_of_equally_near_ones_the_first_and_zeros_have_no_direction():
    rows, cosines = neighbors.nearest(np.ones((1, 2)), np.array([[0.0, 0.0], [2.0, 2.0], [1.0, 1.0]]), 3)
    assert rows.tolist() == [[1, 2, 0]] and cosines[0, 2] == 0


def test_neighbours_vote_by_the_exponential_of_their_cosine():
    features = np.array([[1.0, 0.0], [0.6, 0.8], [0.6, -0.8]])  # cosines 1, 0.6 and 0.6 with the query
    labels, query = np.array([2, 1, 1]), np.array([[5.0, 0.0]])
    vote = lambda temperature, count=3: neighbors.nearest_neighbor_classes(features, labels, query, count, temperature)
    assert vote(0.1).tolist() == [2]  # e^10 > 2 e^6
    assert vote(1.0).tolist() == [1]  # e < 2 e^0.6
    assert vote(1.0, count=1).tolist() == [2]
    assert vote(1e-4).tolist() == [2]  # e^10000 is no float


def test_a_linear_probe_does_not_see_scale_or_constant_features():
    labels = np.arange(300) % 3
    features = RANDOM.normal(size=(300, 4)) + 3 * np.eye(3, 4)[labels]
    plain = neighbors.linear_classes(features[:200], labels[:200], features[200:])
    changed = np.concatenate([features * [1e3, 1e-3, 1, 1] + 7, np.full((300, 1), 5.0)], axis=1)
    found = neighbors.linear_classes(changed[:200], labels[:200], changed[200:])
    assert (found == plain).mean() > 0.97  # float32, and where L-BFGS stops
    assert (plain == labels[200:]).mean() > 0.85


def test_recall_by_the_definition():
    similarity = RANDOM.normal(size=(12, 20))
    relevant = RANDOM.random((12, 20)) < 0.2
    relevant[:, 3] = True
    found = neighbors.recall_at(similarity, relevant, (1, 2, 5, 20))
    for count in found:
        best = np.argsort(-similarity, axis=1)[:, :count]
        assert found[count] == np.mean([relevant[query, row].any() for query, row in enumerate(best)])
    assert found[20] == 1


def test_ties_count_against_recall():
    relevant = np.eye(4, dtype=bool)
    assert neighbors.ranks(np.zeros((4, 4)), relevant).tolist() == [3] * 4
    assert neighbors.ranks(np.eye(4), relevant).tolist() == [0] * 4


@pytest.mark.parametrize("right", [1, 2])
def test_chance_is_the_mean_over_all_orders(right):
    relevant = np.zeros((1, 5), bool)
    relevant[0, :right] = True
    chance = neighbors.chance_recall_at(relevant, (1, 2, 5, 10))
    for count in (1, 2, 5):
        orders = [min(order[:right]) < count for order in itertools.permutations(range(5))]
        assert chance[count] == pytest.approx(np.mean(orders))
    assert chance[10] == 1
