"""Graphs as examples: padding, reading on the device, budgets; files read, and what is refused, in a line."""

import pickle
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.data.graphs import GraphSource, NodeBudget, both_directions
from jaxdl.data.molecules import NUM_ATOM_FEATURES, NUM_BOND_FEATURES, Molecules
from jaxdl.data.mutag import Mutag
from jaxdl.data.planetoid import Planetoid
from jaxdl.data.sources import read
from jaxdl.errors import InputError
from jaxdl.layers.graph import pack, unbatch
from tests.data import graph_files
from tests.data_paths import data_path


def source(**options):
    """Three graphs: a path of three nodes, one node alone, and two nodes joined."""
    return GraphSource(
        [3, 1, 2],
        [4, 0, 2],
        {"inputs": np.arange(6, dtype=np.float32)[:, None]},
        {"edges": np.array([[0, 1], [1, 0], [1, 2], [2, 1], [0, 1], [1, 0]], np.int32)},
        {"labels": np.array([5, 6, 7], np.int32)},
        **options,
    )


def test_examples_are_padded_and_read_alike_on_the_device():
    graphs = source(max_nodes=4)
    assert len(graphs) == 3
    assert {name: value.shape for name, value in graphs[0].items()} == {
        "inputs": (4, 1), "num_nodes": (), "edges": (4, 2), "num_edges": (), "labels": (),
    }  # fmt: skip
    assert graphs[2]["inputs"][:, 0].tolist() == [4, 5, 0, 0] and graphs[2]["edges"].tolist()[2:] == [[0, 0]] * 2
    order = np.array([[2, 0], [1, 1]])
    on_host = read(graphs, order)
    on_device = jax.jit(graphs.rows)(graphs.resident(), jnp.asarray(order))
    assert set(on_host) == set(on_device)
    for name, values in on_host.items():
        np.testing.assert_array_equal(on_device[name], values)
        np.testing.assert_array_equal(values[0, 0], graphs[2][name])
    part = graphs.select(np.array([2, 1]))
    for name, values in part[0].items():
        np.testing.assert_array_equal(values, graphs[2][name])


def test_graphs_of_which_none_has_an_edge():
    alone = GraphSource([1, 2], [0, 0], {"inputs": np.ones((3, 1))}, {"edges": np.zeros((0, 2), np.int32)}, {})
    batch = alone.take(np.array([0, 1]))
    assert batch["edges"].shape == (2, 1, 2) and batch["num_edges"].tolist() == [0, 0]
    assert jax.jit(alone.rows)(alone.resident(), jnp.array([1]))["edges"].shape == (1, 1, 2)


def test_a_graph_over_the_padding_budget():
    with pytest.raises(InputError, match="graph 0 has 3 nodes and the padding budget is 2; 1 of 3 graphs are over it"):
        source(max_nodes=2)
    with pytest.raises(InputError, match="graph 0 has 4 edges and the padding budget is 1; 2 of 3 .*max_edges=4 would"):
        source(max_edges=1)


def test_the_budget_is_enough_for_any_batch_and_not_more_than_the_padding():
    random = np.random.default_rng(0)
    nodes, edges = random.integers(1, 20, 30), random.integers(0, 30, 30)
    arrays = {"inputs": np.ones((nodes.sum(), 1), np.float32)}, {"edges": np.zeros((edges.sum(), 2), np.int32)}
    graphs = GraphSource(nodes, edges, *arrays, {})
    budget = NodeBudget.of({"train": graphs, "test": graphs.select(np.arange(5))})
    for size in (1, 2, 7, 30):
        rows = budget.rows(size)
        assert rows[0] <= size * nodes.max() and rows[1] <= max(1, size * edges.max())
        for _ in range(50):  # a batch may begin in one epoch and end in the next
            first, second = random.permutation(30), random.permutation(30)
            split = random.integers(0, size + 1)
            chosen = np.concatenate([first[:split], second[: size - split]])
            assert nodes[chosen].sum() <= rows[0] and edges[chosen].sum() <= rows[1]
    largest = np.sort(nodes)[::-1]
    assert budget.rows(4)[0] == 2 * largest[:2].sum()
    assert NodeBudget.of({"train": [graphs[0]]}).rows(3) == (3 * nodes.max(), 3 * edges.max())


def test_both_directions():
    assert both_directions(np.array([[0, 1], [2, 0]])).tolist() == [[0, 1], [1, 0], [2, 0], [0, 2]]


# Planetoid.


def test_planetoid_nodes(tmp_path):
    path = graph_files.write_planetoid(tmp_path / "citations.npz")
    found = graph_files.citations()
    data = Planetoid(path=path.name).load(str(tmp_path))
    assert data.num_classes == 3 and set(data.splits) == {"train", "validation", "test"}
    example = data.splits["train"][0]
    np.testing.assert_array_equal(np.flatnonzero(example["node_weight"]), found["train"])
    matrix = np.zeros((40, 12))
    for column, value in zip(example["inputs"].T, example["values"].T):
        np.add.at(matrix, (np.arange(40), column), value)
    words = np.zeros((40, 12))
    words[found["feature_row"], found["feature_col"]] = 1
    np.testing.assert_allclose(matrix, words / np.maximum(words.sum(axis=1, keepdims=True), 1), rtol=1e-6)
    assert example["num_edges"] == 2 * len(found["edges"])


def test_planetoid_links(tmp_path):
    path = graph_files.write_planetoid(tmp_path / "citations.npz")
    dataset = Planetoid(path=path.name, predict="links", validation_links=0.1, test_links=0.2)
    data = dataset.load(str(tmp_path))
    linked = {tuple(pair) for pair in graph_files.citations()["edges"].tolist()}
    seen = []
    for source in data.splits.values():
        example = source[0]
        pairs = [tuple(sorted(pair)) for pair in example["pairs"].tolist()]
        assert [pair in linked for pair in pairs] == (example["pair_labels"] == 1).tolist()
        assert example["pair_labels"].mean() == 0.5
        seen += pairs
        messages = {tuple(sorted(edge)) for edge in example["edges"].tolist()}
        assert messages == {tuple(sorted(pair)) for pair in data.splits["train"][0]["pairs"][: len(messages)].tolist()}
    assert len(set(seen)) == len(seen), "no pair stands in two splits, or twice"
    assert linked <= set(seen)


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        (
            {"edges": np.array([[0, 1], [3, 40]])},
            "edge 1 joins nodes 3 and 40, but its 40 nodes are numbered from 0 to 39",
        ),
        ({"edges": np.array([[0, -1]])}, "joins nodes -1 and 0"),
        ({"edges": np.array([[0, 1], [5, 5]])}, "an edge joins node 5 to itself .*--dataset.simplify"),
        ({"edges": np.array([[0, 1], [1, 0]])}, "the edge between nodes 0 and 1 is there more than once .*simplify"),
        ({"feature_col": np.full(3, 12), "feature_row": np.zeros(3, int), "feature_value": np.ones(3)}, "width of 12"),
        ({"feature_value": np.ones(2)}, "feature_row, feature_col and feature_value differ in length"),
        ({"test": np.array([40])}, "test has a node that is not there"),
        ({"labels": np.full(40, -1)}, "train has a node that is not there, or has no label"),
        ({"feature_col": np.arange(-1, 2), "feature_row": np.zeros(3, int), "feature_value": np.ones(3)}, "col has -1"),
        ({"edges": np.ones((2, 5), int)}, r"edges is int64\[2, 5\]; it must be whole numbers, \[m, 2\]"),
        ({"edges": np.array([[0, 1.5]])}, r"edges is float64\[1, 2\]; it must be whole numbers"),
        ({"labels": np.zeros(30, int)}, "there are 30 labels, and num_nodes is 40"),
        ({"feature_value": np.array(["a"])}, r"feature_value is <U1\[1\]; it must be numbers"),
        ({"num_nodes": np.array([40, 1])}, r"num_nodes is int64\[2\]"),
        ({"num_nodes": np.array(0)}, "num_nodes is 0 and num_features 12; both must be 1 or more"),
        ({"train": np.zeros(40, bool)}, r"train is bool\[40\]; it must be whole numbers"),
        ({"val": np.zeros(0, int)}, "val has no nodes"),
        ({"train": np.array([3, 4]), "val": np.array([5]), "test": np.array([6, 4])}, "node 4 is in train and in test"),
    ],
)
def test_wrong_planetoid_files(arrays, told, tmp_path):
    path = graph_files.write_planetoid(tmp_path / "citations.npz", **arrays)
    with pytest.raises(InputError, match=told):
        Planetoid(path=path.name).load(str(tmp_path))


def test_edges_that_are_no_edges_can_be_left_out(tmp_path):
    edges = np.array([[0, 1], [1, 0], [2, 2], [2, 3]])
    path = graph_files.write_planetoid(tmp_path / "citations.npz", edges=edges)
    example = Planetoid(path=path.name, simplify=True).load(str(tmp_path)).splits["train"][0]
    assert example["edges"].tolist() == [[0, 1], [1, 0], [2, 3], [3, 2]]


def test_a_graph_without_edges_is_one(tmp_path):
    path = graph_files.write_planetoid(tmp_path / "citations.npz", edges=np.zeros((0, 2), np.int32))
    assert Planetoid(path=path.name).load(str(tmp_path)).splits["train"][0]["num_edges"] == 0


def test_pickles_are_refused(tmp_path):
    (tmp_path / "ind.cora.graph").write_bytes(pickle.dumps({0: [1]}))
    (tmp_path / "cora.npz").write_bytes(pickle.dumps({0: [1]}))
    np.savez(tmp_path / "objects.npz", edges=np.array([{}], dtype=object))
    np.savez(tmp_path / "other.npz", edges=np.zeros((0, 2)))
    for name, told in (
        ("ind.cora.graph", "is a pickle, which may run code .* an .npz of plain arrays is expected"),
        ("cora.npz", "pickled Python objects, which are never loaded"),
        ("objects.npz", "pickled Python objects, which are never loaded"),
        ("other.npz", "has no num_nodes, num_features"),
    ):
        with pytest.raises(InputError, match=told):
            Planetoid(path=name).load(str(tmp_path))


# MUTAG.


def test_mutag(tmp_path):
    graph_files.write_mutag(tmp_path / "graphs.txt")
    data = Mutag(path="graphs.txt", fold=1).load(str(tmp_path))
    assert (len(data.splits["train"]), len(data.splits["validation"]), data.num_classes) == (20, 20, 2)
    assert data.splits["validation"][0]["labels"] == 1  # the odd ones are rings
    ring = unbatch(
        pack(
            *[
                data.splits["validation"].take(np.array([0]))[name]
                for name in ("inputs", "edges", "num_nodes", "num_edges")
            ]
        )
    )[0]
    assert ring.nodes.sum(axis=1).tolist() == [1] * ring.num_nodes
    assert np.bincount(ring.receivers).tolist() == [2] * ring.num_nodes
    with pytest.raises(InputError, match="test_idx-3.txt does not exist|train_idx-3.txt does not exist"):
        Mutag(path="graphs.txt", fold=2).load(str(tmp_path))
    with pytest.raises(InputError, match="the padding budget is 5; .* --dataset.max_nodes=6 would do"):
        Mutag(path="graphs.txt", max_nodes=5).load(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("2\n1 0\n0 0\n", "line 4: 2 or more whole numbers are expected"),
        ("1\n2 0\n0 1 1\n0 1 x\n", "line 4: 2 or more whole numbers"),
        ("1\n1 0\n0 0\n1 1\n0 0\n", "line 4: the 1 graphs that line 1 says end before it"),
        ("1\n2 0\n0 2 1\n0 1 0\n", "line 3: node 0 has 1 neighbours and says 2"),
        ("1\n2 0\n0 1 1\n0 1 2\n", "graph 0, from line 3: edge 1 joins nodes 2 and 1, but its 2 nodes"),
        ("1\n2 0\n0 1 0\n0 0\n", "graph 0, from line 3: an edge joins node 0 to itself"),
        ("1\n2 0\n0 2 1 1\n0 0\n", "graph 0, from line 3: the edge between nodes 1 and 0 is there more than once"),
    ],
)
def test_wrong_mutag_files(text, told, tmp_path):
    graph_files.write_mutag(tmp_path / "graphs.txt")
    (tmp_path / "graphs.txt").write_text(text)
    with pytest.raises(InputError, match=told):
        Mutag(path="graphs.txt").load(str(tmp_path))


def test_the_real_mutag_and_cora():
    data = Mutag().load(str(data_path("mutag").parent))
    assert [len(data.splits[split]) for split in ("train", "validation")] == [170, 18]
    assert data.splits["train"][0]["inputs"].shape == (28, 7)
    cora = Planetoid(path="planetoid/cora.npz").load(str(data_path("planetoid").parent))
    assert [int(cora.splits[split][0]["node_weight"].sum()) for split in cora.splits] == [140, 500, 1000]
    assert cora.splits["train"].num_features == 1433 and cora.splits["train"][0]["num_edges"] == 2 * 5278


# Molecules.


@pytest.fixture
def rdkit():
    return pytest.importorskip("rdkit")


def test_molecules(rdkit, tmp_path):
    graph_files.write_molecules(tmp_path / "table.csv", ("solubility",))
    data = Molecules(path="table.csv", targets=("solubility",), split_kind="ordered").load(str(tmp_path))
    ethanol, benzene, *_ = (data.splits["train"][index] for index in range(3))
    assert (ethanol["num_nodes"], ethanol["num_edges"], benzene["num_nodes"], benzene["num_edges"]) == (3, 4, 6, 12)
    assert ethanol["inputs"].shape[1] == NUM_ATOM_FEATURES and ethanol["edge_features"].shape[1] == NUM_BOND_FEATURES
    elements = ethanol["inputs"][:3, :3].argmax(axis=1)
    assert elements.tolist() == [0, 0, 2]  # C, C, O
    assert (benzene["edge_features"][:12, 3] == 1).all()  # aromatic
    np.testing.assert_array_equal(benzene["edge_features"][0:12:2], benzene["edge_features"][1:12:2])
    salt = data.splits["train"][4]
    assert (salt["num_nodes"], salt["num_edges"]) == (2, 0)
    targets = np.stack([data.splits["train"][row]["targets"] for row in range(len(data.splits["train"]))])
    np.testing.assert_allclose(data.target_mean, targets.mean(axis=0), rtol=1e-5)


def test_missing_labels_weigh_nothing(rdkit, tmp_path):
    (tmp_path / "table.csv").write_text("smiles,a,b\nCC,1,\nCO,,0\nC,0,1\n" + "CN,1,1\n" * 9)
    data = Molecules(path="table.csv", kind="labels", split_kind="ordered").load(str(tmp_path))
    rows = [data.splits["train"][row] for row in range(2)]
    assert [row["target_weight"].tolist() for row in rows] == [[1, 0], [0, 1]]
    assert data.num_targets == 2 and data.class_names == ("a", "b")


@pytest.mark.parametrize(
    ("text", "flags", "told"),
    [
        (
            "smiles,a\nCC,1\nC(C,2\nCO,3\nXx,4\n",
            {},
            r"do not parse: line 3 \('C\(C'\), line 5 \('Xx'\); --dataset.skip_invalid",
        ),
        ("smiles,a\nCC,1\n" + "C(,1\n" * 12, {}, r"12 of 13 SMILES do not parse: .*, line 12 \('C\('\) and 2 more; --"),
        ("smiles,a\nC(C,2\n", {"skip_invalid": True}, "none of its 1 SMILES parses"),
        ("smiles,a\nCC,\nCO,1\n", {}, "line 2, column 'a': '' is not a finite number"),
        ("smiles,a\nCC,2\nCO,1\n", {"kind": "labels"}, "line 2, column 'a': '2' is not 0, 1 or nothing"),
        ("smiles,a\nCC,2\nCO,1\n", {"targets": ("b",)}, "--dataset.targets=b must be different ones of its columns"),
        ("s,a\nCC,2\nCO,1\n", {}, "--dataset.smiles=smiles and"),
    ],
)
def test_wrong_tables(text, flags, told, rdkit, tmp_path):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(InputError, match=told):
        Molecules(path="table.csv", **flags).load(str(tmp_path))


def test_without_rdkit(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rdkit", None)
    graph_files.write_molecules(tmp_path / "table.csv", ("a",))
    with pytest.raises(InputError, match=r"needs RDKit: pip install 'jaxdl\[molecules\]'"):
        Molecules(path="table.csv", targets=("a",)).load(str(tmp_path))


def test_invalid_smiles_can_be_left_out(rdkit, tmp_path, capfd):
    (tmp_path / "table.csv").write_text("smiles,a\nC(C,99\n" + "CC,1\n" * 20)
    data = Molecules(path="table.csv", skip_invalid=True, standardize_targets=False).load(str(tmp_path))
    assert sum(map(len, data.splits.values())) == 20
    assert all(source[0]["targets"] == 1 for source in data.splits.values())
    told = capfd.readouterr()
    assert "1 of 21 SMILES do not parse: line 2 ('C(C'); they are left out" in told.out and told.err == ""
