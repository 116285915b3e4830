"""What features are worth without training them: nearest neighbours, retrieval, and a linear layer on top.

Shapes: N examples that are known, M that are asked about, F features, C classes. All on the host.
"""

from collections.abc import Sequence

import numpy as np

_CHUNK = 1024  # queries compared at a time


def unit(features: np.ndarray) -> np.ndarray:
    """Rows [..., F] of length one; a row of zeros stays."""
    length = np.linalg.norm(features, axis=-1, keepdims=True)
    return np.asarray(features / np.where(length > 0, length, 1), np.float32)


def nearest(queries: np.ndarray, features: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of `features` nearest to each query by cosine, the nearest first; of equal ones the earlier row.

    Args:
      queries: [M, F].
      features: [N, F].
      count: K, at most N.

    Returns:
      rows, int64 [M, K], and cosines, float32 [M, K].
    """
    known, found = unit(features), []
    for start in range(0, len(queries), _CHUNK):
        cosines = unit(queries[start : start + _CHUNK]) @ known.T
        rows = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
        found.append((rows, np.take_along_axis(cosines, rows, axis=1)))
    rows, cosines = (np.concatenate(parts) for parts in zip(*found))
    return rows, cosines


def nearest_neighbor_classes(
    features: np.ndarray, labels: np.ndarray, queries: np.ndarray, count: int = 200, temperature: float = 0.07
) -> np.ndarray:
    """The class that the nearest neighbours vote for, each with the weight exp(cosine / temperature).

    Wu et al. 2018, Unsupervised feature learning via non-parametric instance discrimination, arXiv 1805.01978,
    section 3.4, with their K = 200 and temperature 0.07.

    Args:
      features: [N, F], whose labels int [N] are known.
      queries: [M, F].
      count: K; all N where there are fewer.

    Returns:
      int64 [M]; of classes with equal votes the lower.
    """
    labels = np.asarray(labels)
    rows, cosines = nearest(queries, features, min(count, len(features)))
    # The nearest has weight 1: exp of the cosines themselves overflows at low temperatures.
    weights = np.exp((cosines - cosines[:, :1]).astype(np.float64) / temperature)
    votes = np.zeros((len(queries), int(labels.max()) + 1))
    np.add.at(votes, (np.arange(len(queries))[:, None], labels[rows]), weights)
    return votes.argmax(axis=1)


def linear_classes(features: np.ndarray, labels: np.ndarray, queries: np.ndarray, penalty: float = 1.0) -> np.ndarray:
    """The classes that multinomial logistic regression on standardised features gives: a linear probe.

    The loss summed over the N examples plus penalty / 2 times the sum of squared weights is minimised by L-BFGS
    (scikit-learn's LogisticRegression), as Chen et al. 2020 (arXiv 2002.05709), appendix B.8.1, do for small data.

    Args:
      features: [N, F], whose labels int [N] are known.
      queries: [M, F].
      penalty: greater than 0.

    Returns:
      int64 [M].
    """
    from sklearn.linear_model import LogisticRegression

    mean, std = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    std = np.where(std > 1e-6 * np.abs(mean), std, 1)  # a constant feature says nothing
    scaled = lambda x: ((x - mean) / std).astype(np.float32)
    model = LogisticRegression(C=1 / penalty, max_iter=1000, tol=1e-3)
    return model.fit(scaled(features), labels).predict(scaled(queries))


def ranks(similarity: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """The place of each query's best relevant candidate, 0 being the first; ties count against it.

    Args:
      similarity: [M, N] of queries and candidates.
      relevant: bool [M, N], with at least one candidate for each query.

    Returns:
      int64 [M].
    """
    best = np.where(relevant, similarity, -np.inf).max(axis=1, keepdims=True)
    return (~relevant & (similarity >= best)).sum(axis=1)


def recall_at(similarity: np.ndarray, relevant: np.ndarray, counts: Sequence[int] = (1, 5, 10)) -> dict[int, float]:
    """Recall@K: the share of queries that have a relevant candidate among the K most similar, by K.

    The arguments are those of `ranks`.
    """
    found = ranks(similarity, relevant)
    return {count: float((found < count).mean()) for count in counts}


def chance_recall_at(relevant: np.ndarray, counts: Sequence[int] = (1, 5, 10)) -> dict[int, float]:
    """What `recall_at` is expected to be when candidates are ordered at random.

    1 - C(N - r, K) / C(N, K) for a query with r relevant ones of N candidates (the hypergeometric distribution).
    """
    from scipy.stats import hypergeom

    of_query = np.asarray(relevant).sum(axis=1)
    total = relevant.shape[1]
    return {count: float((1 - hypergeom.pmf(0, total, of_query, min(count, total))).mean()) for count in counts}
