"""Tasks on graphs: what counts in loss and metrics; batching, padding, devices and microbatches change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from jaxdl import experiment
from jaxdl.data.base import Data
from jaxdl.data.graphs import GraphSource
from jaxdl.data.pipeline import eval_batches
from jaxdl.data.planetoid import Planetoid
from jaxdl.data.sources import read
from jaxdl.errors import InputError
from jaxdl.layers.graph import unbatch
from jaxdl.models import create
from jaxdl.settings import parse
from jaxdl.tasks import graphs
from jaxdl.tasks.classification import Classification
from jaxdl.train.record import read_metrics
from launch import evaluate
from tests.data import graph_files

G, F, T = 9, 3, 2


def random_source(seed=0, **by_graph):
    random = np.random.default_rng(seed)
    nodes, edges = random.integers(1, 6, G), random.integers(0, 9, G)
    ends = np.concatenate([random.integers(0, n, (e, 2)) for n, e in zip(nodes, edges)]).astype(np.int32)
    by_node = {
        "inputs": random.normal(size=(nodes.sum(), F)).astype(np.float32),
        "labels": random.integers(0, 3, nodes.sum()).astype(np.int32),
        "node_weight": np.float32(random.random(nodes.sum()) < 0.6),
    }
    return GraphSource(nodes, edges, by_node, {"edges": ends}, by_graph)


def evaluated(task, data, model, variables, batch_size):
    """The task's metrics over the training split, computed."""
    total = None
    forward = lambda *inputs: model.apply(variables, *inputs, train=False)
    step = jax.jit(lambda batch: task.evaluate(forward, batch))
    for batch in eval_batches(data.splits["train"], batch_size):
        part = step(batch)
        total = part if total is None else {name: part[name].merge(metric) for name, metric in total.items()}
    return {name: metric.compute() for name, metric in jax.device_get(total).items()}


def test_nodes_of_weight_zero_and_padding_do_not_count():
    source = random_source()
    data = Data({"train": source}, num_classes=3)
    task = graphs.NodeClassification().for_data(data)
    model = create("gcn", num_outputs=3, width=4)
    batch = source.take(np.arange(G))
    [packed] = task.inputs(batch)
    variables = model.init(jax.random.key(0), packed, train=False)
    logits = np.concatenate([model.apply(variables, one, train=False) for one in unbatch(packed)])
    labels, counts = source.by_node["labels"], source.by_node["node_weight"] > 0
    expected = sklearn.metrics.accuracy_score(labels[counts], logits.argmax(axis=1)[counts])
    cross_entropy = -np.asarray(jax.nn.log_softmax(logits))[np.arange(len(labels)), labels]
    for size in (1, 4, G):
        found = evaluated(task, data, model, variables, size)
        np.testing.assert_allclose(found["accuracy"], expected, rtol=1e-6)
        np.testing.assert_allclose(found["loss"], cross_entropy[counts].mean(), rtol=1e-4)
    forward = lambda *inputs: model.apply(variables, *inputs, train=True)
    loss, told = task.loss(forward, batch, jax.random.key(0))
    np.testing.assert_allclose([loss, told["loss"].compute()], cross_entropy[counts].mean(), rtol=1e-4)


def test_training_does_not_see_the_labels_of_other_splits():
    """Neither the loss nor its gradient changes when all labels but the training nodes' do."""
    source = random_source()
    task = graphs.NodeClassification().for_data(Data({"train": source}, num_classes=3))
    model = create("gat", num_outputs=3, width=4, num_heads=2)
    batch = source.take(np.arange(G))
    variables = model.init(jax.random.key(0), *task.inputs(batch), train=False)

    @jax.jit
    @jax.value_and_grad
    def loss(variables, labels):
        forward = lambda *inputs: model.apply(variables, *inputs, train=True)
        return task.loss(forward, batch | {"labels": labels}, jax.random.key(0))[0]

    other = np.where(batch["node_weight"] > 0, batch["labels"], (batch["labels"] + 1) % 3)
    assert (other != batch["labels"]).any()
    jax.tree.map(np.testing.assert_array_equal, loss(variables, batch["labels"]), loss(variables, other))


def test_missing_labels_do_not_count():
    random = np.random.default_rng(1)
    targets, measured = (np.float32(random.random((G, T)) < share) for share in (0.5, 0.7))
    targets[:3, 0] = [0, 1, 0]
    source = random_source(targets=targets, target_weight=measured)
    data = Data({"train": source}, num_targets=T)
    task = graphs.GraphMultiLabel().for_data(data)
    model = create("gin", num_outputs=T, width=4, normalization="none")
    [packed] = task.inputs(source.take(np.arange(G)))
    variables = model.init(jax.random.key(0), packed, train=False)
    logits = np.asarray(model.apply(variables, packed, train=False))
    columns = [
        sklearn.metrics.roc_auc_score(targets[own, t], logits[own, t])
        for t in range(T)
        if len(np.unique(targets[own := measured[:, t] > 0, t])) == 2
    ]
    losses = np.logaddexp(0, np.where(targets > 0, -logits, logits))
    for size in (2, G):
        found = evaluated(task, data, model, variables, size)
        np.testing.assert_allclose(found["roc_auc"], np.mean(columns), rtol=1e-6)
        np.testing.assert_allclose(found["loss"], losses[measured > 0].mean(), rtol=1e-4)
    with pytest.raises(InputError, match="targets must be 0 or 1"):
        task.check(Data({"train": random_source(targets=targets + 0.5)}, num_targets=T))


def test_links_told_from_pairs_drawn_within_their_graph(tmp_path):
    graph_files.write_planetoid(tmp_path / "citations.npz")
    data = Planetoid(path="citations.npz", predict="links").load(str(tmp_path))
    task = graphs.LinkPrediction().for_data(data)
    batch = read(data.splits["train"], np.array([0, 0]))
    asked = []

    def forward(graph, pairs):
        asked.append(np.asarray(pairs))
        return jnp.zeros(len(pairs))

    loss, _ = task.loss(forward, batch, jax.random.key(0))
    np.testing.assert_allclose(loss, np.log(2), rtol=1e-6)
    pairs = asked[0].reshape(2, -1, 2)
    assert (pairs[0] < 40).all() and (pairs[1] >= 40).all() and (pairs[1] < 80).all()
    half = pairs.shape[1] // 2
    np.testing.assert_array_equal(pairs[0, :half], batch["pairs"][0])
    assert (pairs[0, half:] != pairs[1, half:] - 40).any(), "each example draws its own"


def test_what_does_not_fit():
    labelled = Data({"train": random_source(labels=np.zeros(G, np.int32))}, num_classes=3)
    with pytest.raises(InputError, match="the dataset has none; of planetoid, --dataset.predict=links"):
        graphs.LinkPrediction().for_data(labelled).check(labelled)
    with pytest.raises(InputError, match="the dataset's labels are of nodes, not of graphs; try --task=node_class"):
        graphs.GraphClassification().check(Data({"train": random_source()}, num_classes=3))
    missing = random_source(targets=np.zeros((G, T), np.float32), target_weight=np.ones((G, T), np.float32))
    with pytest.raises(InputError, match="the targets are labels, of which some are missing; try --task=graph_multi"):
        graphs.GraphRegression().check(Data({"train": missing}, num_targets=T))
    images = experiment.parse(["--dataset=digits", "--model=gcn", "--task=node_classification", "--steps=1"])
    with pytest.raises(InputError, match="needs graphs, and an example of the dataset has no edges, num_nodes"):
        experiment.build(images)
    assert isinstance(graphs.GraphClassification(), Classification)


COMMON = ["--plots=false", "--progress=off", "--tensorboard=false", "--steps=3", "--log_every=1", "--eval_every=3"]
RUNS = {
    "graphs": [
        *("--model=gin", "--model.width=4", "--model.num_layers=2", "--model.dropout_rate=0.3"),
        *("--task=graph_classification", "--dataset=mutag", "--dataset.path=graphs.txt", "--batch_size=8"),
    ],
    "links": [
        *("--model=gcn", "--model.width=4", "--model.num_outputs=4", "--task=link_prediction"),
        *("--dataset=planetoid", "--dataset.predict=links", "--dataset.path=citations.npz", "--batch_size=1"),
    ],
}


def lines(flags, folder):
    settings = parse([*COMMON, *flags, f"--data_dir={folder.parent}", f"--workdir={folder}"])
    assert experiment.run(settings).status == 0
    return [{name: value for name, value in line.items() if name != "split"} for line in read_metrics(folder)]


def test_devices_change_nothing(tmp_path):
    """Dropout, the statistics of batches with unequal shards, and metrics: on one device and on four."""
    graph_files.write_mutag(tmp_path / "graphs.txt")
    whole = lines([*RUNS["graphs"], "--mesh=data:1"], tmp_path / "whole")
    split = lines([*RUNS["graphs"], "--mesh=data:4", "--parallelism=shard_map"], tmp_path / "split")
    for ours, theirs in zip(split, whole, strict=True):
        for name, value in theirs.items():
            np.testing.assert_allclose(ours[name], value, rtol=2e-4, atol=1e-5, err_msg=name)


def test_graphs_train_in_microbatches_in_half_precision_from_the_host(tmp_path):
    graph_files.write_mutag(tmp_path / "graphs.txt")
    flags = ["--gradient_accumulation=2", "--precision=bfloat16", "--remat", "--data_mode=host", "--mesh=data:1"]
    found = lines([*RUNS["graphs"], *flags], tmp_path / "run")
    assert np.isfinite(found[0]["loss"]) and found[-1]["accuracy"] >= 0


def test_links_train_and_are_drawn(tmp_path):
    graph_files.write_planetoid(tmp_path / "citations.npz")
    longer = ["--steps=60", "--eval_every=60", "--log_every=60", "--learning_rate=0.02", "--mesh=data:1"]
    found = lines([*RUNS["links"], *longer, "--plots=true"], tmp_path / "run")
    assert found[-1]["roc_auc"] > 0.6
    assert (tmp_path / "run/plots/roc.png").exists()


def test_features_of_another_width_than_those_trained_on(tmp_path):
    graph_files.write_planetoid(tmp_path / "citations.npz")
    graph_files.write_planetoid(tmp_path / "wider.npz", num_features=np.int32(14))
    lines([*RUNS["links"], "--mesh=data:1"], tmp_path / "run")
    with pytest.raises(InputError, match=r"data of another width: it has an array of \(12, 4\) where .* of \(14, 4\)"):
        evaluate.main([f"--workdir={tmp_path / 'run'}", "--dataset.path=wider.npz"])


def test_nodes_train_and_are_drawn(tmp_path):
    graph_files.write_planetoid(tmp_path / "citations.npz")
    flags = ["--model=gat", "--model.width=4", "--model.num_heads=2", "--model.dropout_rate=0.2"]
    flags += ["--model.attention_dropout_rate=0.2", "--task=node_classification", "--dataset=planetoid"]
    flags += ["--dataset.path=citations.npz", "--batch_size=1", "--mesh=data:1", "--learning_rate=0.02"]
    folder = tmp_path / "run"
    found = lines([*flags, "--steps=60", "--eval_every=60", "--log_every=60", "--plots=true"], folder)
    assert found[-1]["accuracy"] > 0.6  # by chance 0.33
    assert {path.name for path in folder.glob("plots/*.png")} >= {"confusion_matrix.png", "reliability.png"}
