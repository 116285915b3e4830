"""Small labelled graphs in the text format of Xu et al. 2019 (MUTAG, PROTEINS, ...), with ten given folds.

https://github.com/weihua916/powerful-gnns and https://github.com/muhanzhang/pytorch_DGCNN have such files.
"""

import dataclasses
import pathlib

import numpy as np

from jaxdl.data.base import Data
from jaxdl.data.files import folder_of
from jaxdl.data.graphs import GraphSource, concatenated, simple_edges
from jaxdl.errors import InputError
from jaxdl.types import NonNegativeInt, PositiveInt


@dataclasses.dataclass(frozen=True)
class Mutag:
    """Graphs whose nodes have one tag each, and a class each: 188 nitro compounds, mutagenic or not.

    Debnath et al. 1991. The first line is the number of graphs; a graph begins with a line of its number of nodes and
    its label, and each node is a line of its tag, how many neighbours it has, and their numbers. Beside the file stand
    train_idx-K.txt and test_idx-K.txt, the numbers of the graphs of fold K, from 1.

    Attributes:
      path: the file, relative to --data_dir.
      fold: the fold whose test graphs are "validation", from 0.
      simplify: leave self-loops and repeated edges out; else they are refused.
      max_nodes: rows to which the nodes of a graph are padded; as many as the largest has if none.
      max_edges: rows to which the edges of a graph are padded, two for each undirected one; likewise.
    """

    path: str = "mutag/MUTAG.txt"
    fold: NonNegativeInt = 0
    simplify: bool = False
    max_nodes: PositiveInt | None = None
    max_edges: PositiveInt | None = None

    def load(self, data_dir: str = "") -> Data:
        """Inputs float32 [n, tags], one-hot; edges int32 [e, 2], in both directions as the file has them; labels int32.

        Raises:
          InputError: no such file or fold, or a line that is not as it should be.
        """
        path = folder_of(data_dir, self.path)
        labels, tags, edges = _read(path, self.simplify)
        kinds = sorted({tag for graph in tags for tag in graph})
        places = {kind: place for place, kind in enumerate(kinds)}
        one_hot = np.eye(len(kinds), dtype=np.uint8)
        classes = sorted(set(labels))
        source = GraphSource(
            np.array([len(graph) for graph in tags]),
            np.array([len(graph) for graph in edges]),
            {"inputs": one_hot[[places[tag] for graph in tags for tag in graph]]},
            {"edges": concatenated(edges, (2,), np.int32)},
            {"labels": np.array([classes.index(label) for label in labels], np.int32)},
            max_nodes=self.max_nodes,
            max_edges=self.max_edges,
        )
        train, test = (
            _fold(path.parent / f"{name}_idx-{self.fold + 1}.txt", len(labels)) for name in ("train", "test")
        )
        if np.intersect1d(train, test).size:
            raise InputError(f"{path.parent}: fold {self.fold} has a graph both in its training and in its test file.")
        splits = {"train": source.select(train), "validation": source.select(test)}
        return Data(splits, num_classes=len(classes), class_names=tuple(map(str, classes)))


def _read(path: pathlib.Path, simplify: bool) -> tuple[list[int], list[list[int]], list[np.ndarray]]:
    """The label of each graph, the tags of its nodes, and its edges, int [e, 2]."""
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no text file: {error}.") from None
    at = 0

    def numbers(at_least: int) -> list[int]:
        nonlocal at
        at += 1
        try:
            found = [int(text) for text in lines[at - 1]]
        except (IndexError, ValueError):
            found = []
        if len(found) < at_least:
            raise InputError(f"{path}, line {at}: {at_least} or more whole numbers are expected there.")
        return found

    labels, tags, edges = [], [], []
    for index in range(numbers(1)[0]):
        num_nodes, label = numbers(2)[:2]
        start = at
        graph_tags, graph_edges = [], []
        for node in range(num_nodes):
            tag, degree, *neighbours = numbers(2)
            if len(neighbours) != degree:
                raise InputError(f"{path}, line {at}: node {node} has {len(neighbours)} neighbours and says {degree}.")
            graph_tags.append(tag)
            graph_edges += [(neighbour, node) for neighbour in neighbours]
        found = np.array(graph_edges, np.int64).reshape(-1, 2)
        labels.append(label)
        tags.append(graph_tags)
        edges.append(simple_edges(found, num_nodes, f"{path}, graph {index}, from line {start + 1}", simplify))
    if any(lines[at:]):
        raise InputError(f"{path}, line {at + 1}: the {len(labels)} graphs that line 1 says end before it.")
    return labels, tags, edges


def _fold(path: pathlib.Path, num_graphs: int) -> np.ndarray:
    if not path.is_file():
        raise InputError(f"{path} does not exist: --dataset.fold counts from 0, and its files from 1.")
    try:
        found = np.array(path.read_text(encoding="utf-8").split(), np.int64)
    except (ValueError, UnicodeDecodeError):
        raise InputError(f"{path} must hold numbers of graphs, one a line.") from None
    if not len(found) or found.min() < 0 or found.max() >= num_graphs:
        raise InputError(f"{path} must hold numbers of graphs from 0 to {num_graphs - 1}.")
    return np.sort(found)
