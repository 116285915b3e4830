"""Citation networks with Planetoid's splits: Cora, Citeseer and PubMed, one graph each.

Yang et al. 2016, Revisiting semi-supervised learning with graph embeddings, arXiv:1603.08861. Their files are pickles,
which may run code when they are read; here they are plain arrays.
"""

import dataclasses
import pathlib
from typing import Literal

import numpy as np

from jaxdl.data.base import Data
from jaxdl.data.files import folder_of
from jaxdl.data.graphs import GraphSource, both_directions, simple_edges
from jaxdl.data.tables import read_npz
from jaxdl.errors import InputError
from jaxdl.types import NonNegativeInt, Rate

_SPLITS = {"train": "train", "validation": "val", "test": "test"}
# The arrays of a file: the shape of each, and of a length that differs between files its name.
_SHAPES = {
    "num_nodes": (),
    "num_features": (),
    "feature_row": ("entries",),
    "feature_col": ("entries",),
    "feature_value": ("entries",),
    "edges": ("m", 2),
    "labels": ("num_nodes",),
    **{key: ("nodes",) for key in _SPLITS.values()},
}


@dataclasses.dataclass(frozen=True)
class Planetoid:
    """One graph of documents that cite each other: their words, and for some of them the topic; or which cite which.

    The file is an .npz with `num_nodes` and `num_features`; the entries of the matrix of words, `feature_row`,
    `feature_col` and `feature_value` [entries]; `edges` int [m, 2], each once; `labels` int [num_nodes], -1 for none;
    and `train`, `val` and `test`, numbers of nodes.

    Attributes:
      path: the file, relative to --data_dir.
      predict: nodes, a topic for each, on the file's split; or links, of which some are held out.
      row_normalize: divide each document's words by their sum.
      simplify: leave self-loops and repeated edges out; else they are refused.
      validation_links: part of the links held out for validation, of predict=links.
      test_links: part of the links held out as test, of predict=links.
      link_seed: seed of which links are held out and which pairs without one they are compared with.
    """

    path: str = ""
    predict: Literal["nodes", "links"] = "nodes"
    row_normalize: bool = True
    simplify: bool = False
    validation_links: Rate = 0.05
    test_links: Rate = 0.1
    link_seed: NonNegativeInt = 0

    def load(self, data_dir: str = "") -> Data:
        """Each split is one example, the graph: sparse `inputs` and `values` [n, K], `edges`, and of nodes `labels`
        int32 [n] and `node_weight` float32 [n], 1 for the split's; of links `pairs` int32 [P, 2], `pair_labels` and
        `pair_weight` float32 [P]. Splits of links all pass messages along the edges that are left for training.

        Raises:
          InputError: no such file, a pickle, arrays that are missing or of wrong shapes, numbers out of range, or a
            node in two splits.
        """
        path = folder_of(data_dir, self.path)
        found = _read(path)
        num_nodes, num_features = int(found["num_nodes"]), int(found["num_features"])
        columns, values = self._features(path, found, num_nodes, num_features)
        pairs = np.sort(found["edges"], axis=1)
        pairs = simple_edges(pairs, num_nodes, str(path), self.simplify)
        by_node = {"inputs": columns, "values": values}
        if self.predict == "links":
            splits = self._links(by_node, pairs, num_nodes, num_features)
            return Data(splits)
        labels = found["labels"].astype(np.int32)
        num_classes = int(labels.max(initial=0)) + 1
        splits, split_of = {}, np.full(num_nodes, "", "U5")
        for split, key in _SPLITS.items():
            nodes = found[key]
            if not len(nodes):
                raise InputError(f"{path}: {key} has no nodes.")
            if nodes.min() < 0 or nodes.max() >= num_nodes or (labels[nodes] < 0).any():
                raise InputError(
                    f"{path}: {key} has a node that is not there, or has no label; nodes are 0 to {num_nodes - 1}."
                )
            taken = nodes[split_of[nodes] != ""]
            if len(taken):
                raise InputError(
                    f"{path}: node {taken[0]} is in {split_of[taken[0]]} and in {key} ({len(taken)} nodes are)."
                )
            split_of[nodes] = key
            weight = np.zeros(num_nodes, np.float32)
            weight[nodes] = 1
            of_nodes = by_node | {"labels": np.maximum(labels, 0), "node_weight": weight}
            splits[split] = _one_graph(of_nodes, both_directions(pairs), {}, num_features)
        return Data(splits, num_classes=num_classes)

    def _features(self, path, found, num_nodes: int, num_features: int):
        """The matrix of words by rows: columns int32 [N, K] and values float32 [N, K], 0 where a row has fewer."""
        row, column, value = (found[f"feature_{name}"] for name in ("row", "col", "value"))
        if not len(row) == len(column) == len(value):
            raise InputError(f"{path}: feature_row, feature_col and feature_value differ in length.")
        for name, numbers, size in (("feature_row", row, num_nodes), ("feature_col", column, num_features)):
            wrong = numbers[(numbers < 0) | (numbers >= size)]
            if len(wrong):
                raise InputError(f"{path}: {name} has {wrong[0]}; with a width of {size} it is 0 to {size - 1}.")
        if not np.isfinite(value).all():
            raise InputError(f"{path}: feature_value has a value that is not finite.")
        order = np.argsort(row, kind="stable")
        row, column, value = row[order], column[order], value[order].astype(np.float32)
        counts = np.bincount(row, minlength=num_nodes)
        place = np.arange(len(row)) - (np.cumsum(counts) - counts)[row]
        columns = np.zeros((num_nodes, max(int(counts.max(initial=0)), 1)), np.int32)
        values = np.zeros(columns.shape, np.float32)
        columns[row, place], values[row, place] = column, value
        if self.row_normalize:
            total = values.sum(axis=1, keepdims=True)
            values = np.divide(values, total, out=np.zeros_like(values), where=total != 0)
        return columns, values

    def _links(self, by_node, pairs: np.ndarray, num_nodes: int, num_features: int) -> dict[str, GraphSource]:
        """Kipf and Welling 2016, arXiv:1611.07308, section 3: as many pairs without a link as there are with one."""
        random = np.random.default_rng(self.link_seed)
        pairs = pairs[random.permutation(len(pairs))]
        counts = [round(len(pairs) * part) for part in (self.validation_links, self.test_links)]
        if 0 in counts or sum(counts) >= len(pairs):
            raise InputError(
                f"{len(pairs)} links cannot be split into training, validation and test by these fractions."
            )
        held = {"validation": pairs[: counts[0]], "test": pairs[counts[0] : sum(counts)], "train": pairs[sum(counts) :]}
        taken = set((pairs[:, 0].astype(np.int64) * num_nodes + pairs[:, 1]).tolist())
        if len(taken) + len(pairs) > num_nodes * (num_nodes - 1) // 2:
            raise InputError(
                f"the graph has too few pairs of nodes without a link to compare its {len(pairs)} links with."
            )
        edges, splits = both_directions(held["train"]), {}
        for split in ("train", "validation", "test"):
            negative = _unlinked(random, taken, num_nodes, len(held[split]))
            found = {
                "pairs": np.concatenate([held[split], negative]).astype(np.int32)[None],
                "pair_labels": np.repeat(np.float32([1, 0]), len(negative))[None],
                "pair_weight": np.ones((1, 2 * len(negative)), np.float32),
            }
            splits[split] = _one_graph(by_node, edges, found, num_features)
        return splits


def _one_graph(by_node, edges: np.ndarray, by_graph, num_features: int) -> GraphSource:
    counts = np.array([len(by_node["inputs"])]), np.array([len(edges)])
    return GraphSource(*counts, by_node, {"edges": edges}, by_graph, num_features=num_features)


def _unlinked(random: np.random.Generator, taken: set[int], num_nodes: int, count: int) -> np.ndarray:
    """So many pairs of different nodes, smaller number first, that are not in `taken`, to which they are added."""
    found = []
    while len(found) < count:
        first, second = sorted(random.integers(0, num_nodes, 2).tolist())
        if first != second and first * num_nodes + second not in taken:
            taken.add(first * num_nodes + second)
            found.append((first, second))
    return np.array(found)


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    if path.name.startswith("ind."):
        raise InputError(
            f"{path} is a pickle, which may run code when it is read; an .npz of plain arrays is expected."
        )
    found = read_npz(path)
    missing = [key for key in _SHAPES if key not in found]
    if missing:
        raise InputError(f"{path} has no {', '.join(missing)}; it must hold {', '.join(_SHAPES)}.")
    for name, shape in _SHAPES.items():
        array = found[name]
        kind = np.number if name == "feature_value" else np.integer
        if array.ndim != len(shape) or shape[1:] != array.shape[1:] or not np.issubdtype(array.dtype, kind):
            what = "numbers" if kind is np.number else "whole numbers"
            expected = ", ".join(map(str, shape))
            raise InputError(f"{path}: {name} is {array.dtype}{list(array.shape)}; it must be {what}, [{expected}].")
    num_nodes, num_features = found["num_nodes"], found["num_features"]
    if min(num_nodes, num_features) < 1:
        raise InputError(f"{path}: num_nodes is {num_nodes} and num_features {num_features}; both must be 1 or more.")
    if len(found["labels"]) != num_nodes:
        raise InputError(f"{path}: there are {len(found['labels'])} labels, and num_nodes is {num_nodes}.")
    return found
