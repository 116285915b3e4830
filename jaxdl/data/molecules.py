"""Molecules from a table of SMILES: atoms are nodes and bonds edges, featurised by RDKit (an extra, `molecules`).

The features are those usual since Duvenaud et al. 2015, arXiv:1509.09292, section 5, and MoleculeNet (Wu et al. 2018,
arXiv:1703.00564): what can be read off the graph, and no coordinates.
"""

import dataclasses
import pathlib
from typing import Literal

import numpy as np

from jaxdl.data.base import Data, moments
from jaxdl.data.files import folder_of
from jaxdl.data.graphs import GraphSource, both_directions, concatenated
from jaxdl.data.splits import SplitFlags
from jaxdl.data.tables import read_csv
from jaxdl.errors import InputError
from jaxdl.types import PositiveInt, Rate

ELEMENTS = (
    "C",
    "N",
    "O",
    "S",
    "F",
    "Si",
    "P",
    "Cl",
    "Br",
    "I",
    "B",
    "Na",
    "K",
    "Ca",
    "Fe",
    "Zn",
    "Cu",
    "Sn",
    "Hg",
    "Se",
)
HYBRIDIZATIONS = ("SP", "SP2", "SP3", "SP3D", "SP3D2")
BONDS = ("SINGLE", "DOUBLE", "TRIPLE", "AROMATIC")
_MAX_NAMED = 10  # lines of a table that a message names


@dataclasses.dataclass(frozen=True)
class Molecules(SplitFlags):
    """Molecules of a CSV file with a header, one a line, and what was measured of each.

    Attributes:
      path: the file, relative to --data_dir.
      smiles: the column of the SMILES.
      targets: the columns to predict; empty is every other column.
      kind: regression; or labels, each 0 or 1 or left empty where it was not measured.
      standardize_targets: of a regression, to mean 0 and standard deviation 1; metrics stay in the original unit.
      skip_invalid: leave out the lines whose SMILES do not parse; else they are refused.
      max_nodes: rows to which the atoms of a molecule are padded; as many as the largest has if none.
      max_edges: rows to which the edges are padded, two for each bond; likewise.
    """

    path: str = ""
    smiles: str = "smiles"
    targets: tuple[str, ...] = ()
    kind: Literal["regression", "labels"] = "regression"
    standardize_targets: bool = True
    skip_invalid: bool = False
    max_nodes: PositiveInt | None = None
    max_edges: PositiveInt | None = None
    test_fraction: Rate = 0.1

    def load(self, data_dir: str = "") -> Data:
        """Inputs float32 [n, F] and edge_features float32 [e, D], one-hot; edges int32 [e, 2]; targets float32 [T], and
        of labels `target_weight` float32 [T], 0 where one is missing.

        Raises:
          InputError: RDKit is not installed, no such file or column, SMILES that do not parse, or a value that is none.
        """
        path = folder_of(data_dir, self.path)
        header, lines = read_csv(path)
        targets = self.targets or tuple(name for name in header if name != self.smiles)
        unknown = [name for name in (self.smiles, *targets) if name not in header]
        if unknown or not targets or self.smiles in targets:
            raise InputError(
                f"{path}: --dataset.smiles={self.smiles} and --dataset.targets={','.join(targets)} must be different "
                f"ones of its columns {header}."
            )
        parsed = _parse(path, header.index(self.smiles), lines, self.skip_invalid)
        lines = [line for line, molecule in zip(lines, parsed, strict=True) if molecule is not None]
        atoms, bonds, features = zip(*[_features(molecule) for molecule in parsed if molecule is not None], strict=True)
        values, weight = _values(path, header, lines, targets, self.kind)
        by_graph = {"targets": values} | ({"target_weight": weight} if self.kind == "labels" else {})
        source = GraphSource(
            np.array([len(rows) for rows in atoms]),
            np.array([len(rows) for rows in bonds]),
            {"inputs": concatenated(atoms, (NUM_ATOM_FEATURES,), np.uint8)},
            {
                "edges": concatenated(bonds, (2,), np.int32),
                "edge_features": concatenated(features, (NUM_BOND_FEATURES,), np.uint8),
            },
            by_graph,
            max_nodes=self.max_nodes,
            max_edges=self.max_edges,
        )
        splits = source.split(self.split, test_fraction=self.test_fraction)
        if self.kind == "labels":
            return Data(splits, num_targets=len(targets), class_names=targets)
        mean, std = moments(splits["train"], "targets") if self.standardize_targets else (None, None)
        return Data(splits, num_targets=len(targets), target_mean=mean, target_std=std)


def _parse(path: pathlib.Path, column: int, lines, skip_invalid: bool) -> list:
    """RDKit's molecule of each line, or None where there is none."""
    try:
        from rdkit import Chem, rdBase
    except ImportError:
        raise InputError("dataset 'molecules' needs RDKit: pip install 'jaxdl[molecules]'.") from None
    with rdBase.BlockLogs():
        found = [Chem.MolFromSmiles(line[column].strip()) for _, line in lines]
    found = [molecule if molecule is not None and molecule.GetNumAtoms() else None for molecule in found]
    invalid = [
        (number, line[column]) for (number, line), molecule in zip(lines, found, strict=True) if molecule is None
    ]
    if len(invalid) == len(found):
        raise InputError(f"{path}: none of its {len(found)} SMILES parses.")
    if invalid:
        named = ", ".join(f"line {number} ('{text.strip()[:60]}')" for number, text in invalid[:_MAX_NAMED])
        more = f" and {len(invalid) - _MAX_NAMED} more" if len(invalid) > _MAX_NAMED else ""
        told = f"{path}: {len(invalid)} of {len(found)} SMILES do not parse: {named}{more}"
        if not skip_invalid:
            raise InputError(f"{told}; --dataset.skip_invalid leaves them out.")
        print(f"{told}; they are left out.")
    return found


def _one_hot(value, choices) -> list[bool]:
    """Which of the choices it is, and at the end whether it is none of them."""
    return [value == choice for choice in choices] + [value not in choices]


def _atom(atom) -> list[bool]:
    return (
        _one_hot(atom.GetSymbol(), ELEMENTS)
        + _one_hot(atom.GetDegree(), range(6))
        + _one_hot(atom.GetFormalCharge(), (-1, 0, 1))
        + _one_hot(atom.GetTotalNumHs(), range(4))
        + _one_hot(str(atom.GetHybridization()), HYBRIDIZATIONS)
        + [atom.GetIsAromatic(), atom.IsInRing()]
    )


def _bond(bond) -> list[bool]:
    return _one_hot(str(bond.GetBondType()), BONDS) + [bond.GetIsConjugated(), bond.IsInRing()]


NUM_ATOM_FEATURES = len(ELEMENTS) + 1 + 6 + 1 + 3 + 1 + 4 + 1 + len(HYBRIDIZATIONS) + 1 + 2
NUM_BOND_FEATURES = len(BONDS) + 1 + 2


def _features(molecule) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Atoms uint8 [n, F], edges int32 [e, 2], and their features uint8 [e, D]: bond i is edges 2 i and 2 i + 1."""
    atoms = np.array([_atom(atom) for atom in molecule.GetAtoms()], np.uint8)
    bonds = list(molecule.GetBonds())
    pairs = np.array([(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in bonds], np.int32).reshape(-1, 2)
    features = np.array([_bond(bond) for bond in bonds], np.uint8).reshape(-1, NUM_BOND_FEATURES)
    return atoms, both_directions(pairs), np.repeat(features, 2, axis=0)


def _values(path: pathlib.Path, header, lines, targets, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """What was measured and whether it was: float32 [lines, T] twice."""
    values = np.zeros((len(lines), len(targets)), np.float32)
    weight = np.ones_like(values)
    for row, (number, line) in enumerate(lines):
        for place, name in enumerate(targets):
            text = line[header.index(name)].strip()
            if kind == "labels" and not text:
                weight[row, place] = 0
                continue
            try:
                values[row, place] = float(text)
            except ValueError:
                values[row, place] = np.nan
            wrong = values[row, place] not in (0, 1) if kind == "labels" else not np.isfinite(values[row, place])
            if wrong:
                expected = "0, 1 or nothing" if kind == "labels" else "a finite number"
                raise InputError(f"{path}, line {number}, column '{name}': '{text}' is not {expected}.")
    return values, weight
