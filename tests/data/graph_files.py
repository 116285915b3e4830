"""Small graph data in the layouts of the real files, for tests that only need some."""

import pathlib

import numpy as np

SMILES = ("CCO", "c1ccccc1", "CC(=O)O", "C#N", "[Na+].[Cl-]", "O=C(O)c1ccccc1O", "CCN(CC)CC", "C", "ClC=C", "BrCC(F)F")


def citations(num_nodes: int = 40, num_features: int = 12, num_classes: int = 3, seed: int = 0) -> dict:
    """Documents whose words and citations tell their topic; the arrays of a Planetoid .npz. Node 0 is isolated."""
    random = np.random.default_rng(seed)
    labels = (np.arange(num_nodes) % num_classes).astype(np.int32)
    words = random.random((num_nodes, num_features)) < 0.1 + 0.5 * (
        np.arange(num_features) % num_classes == labels[:, None]
    )
    row, column = np.nonzero(words)
    pairs = np.argwhere(np.triu(random.random((num_nodes, num_nodes)) < 0.2 * (labels[:, None] == labels[None]), 1))
    nodes = random.permutation(num_nodes)
    return {
        "num_nodes": np.int32(num_nodes),
        "num_features": np.int32(num_features),
        "feature_row": row.astype(np.int32),
        "feature_col": column.astype(np.int32),
        "feature_value": np.ones(len(row), np.float32),
        "edges": pairs[(pairs > 0).all(axis=1)].astype(np.int32),
        "labels": labels,
        **{
            name: np.sort(part)
            for name, part in zip(
                ("train", "val", "test"),
                np.split(nodes, 3 if num_nodes % 3 == 0 else [num_nodes // 3, 2 * num_nodes // 3]),
            )
        },
    }


def write_planetoid(path: pathlib.Path, **arrays) -> pathlib.Path:
    """Such an .npz, with these arrays in place of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **(citations() | arrays))
    return path


def write_mutag(path: pathlib.Path, num_graphs: int = 40, folds: int = 2) -> pathlib.Path:
    """Rings (class 1) and paths (class 0) of 3 to 6 nodes with tags, and their folds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    lines = [str(num_graphs)]
    for graph in range(num_graphs):
        size, ring = int(random.integers(3, 7)), graph % 2
        lines.append(f"{size} {ring}")
        for node in range(size):
            neighbours = [other % size for other in (node - 1, node + 1) if ring or 0 <= other < size]
            lines.append(" ".join(map(str, [random.integers(0, 2) if node else 2, len(neighbours), *neighbours])))
    path.write_text("\n".join(lines) + "\n")
    for fold in range(folds):
        inside = np.arange(num_graphs) % folds == fold
        for name, chosen in (("train", ~inside), ("test", inside)):
            (path.parent / f"{name}_idx-{fold + 1}.txt").write_text("\n".join(map(str, np.flatnonzero(chosen))))
    return path


def write_molecules(path: pathlib.Path, targets, labels: bool = False, copies: int = 4) -> pathlib.Path:
    """A table of molecules, with numbers, or labels of which some are missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    lines = [",".join(["name", "smiles", *targets])]
    for row in range(copies * len(SMILES)):
        values = [random.choice(["0", "1", ""]) if labels else f"{random.normal():.3f}" for _ in targets]
        lines.append(",".join([f"molecule{row}", SMILES[row % len(SMILES)], *values]))
    path.write_text("\n".join(lines) + "\n")
    return path
