"""Pairs of sequences as padded arrays: what the datasets of sequence to sequence share."""

from collections.abc import Sequence

import numpy as np

from jaxdl.data.sources import Batch


def pad(sequences: Sequence[np.ndarray], value: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Sequences of ids as one array.

    Args:
      sequences: N of them, int [n] with n <= length.
      value: what rows are filled up with.
      length: of the rows, L.

    Returns:
      int32 [N, L], and the lengths, int32 [N].
    """
    lengths = np.array([len(sequence) for sequence in sequences], np.int32)
    rows = np.full((len(sequences), length), value, np.int32)
    rows[np.arange(length)[None, :] < lengths[:, None]] = np.concatenate(sequences)
    return rows, lengths


def pairs(
    sources: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    end: int,
    source_length: int | None = None,
    target_length: int | None = None,
) -> Batch:
    """Sources and targets as the task `sequence_to_sequence` takes them.

    Args:
      sources: N of them, ids [s]; rows are filled up with 0.
      targets: as many, ids [t], without an end; `end` is added, and fills the rows up.
      end: the end-of-text token of the targets.
      source_length, target_length: of the rows, S and T; None is that of the longest (of targets, end included).

    Returns:
      `inputs` int32 [N, S], `lengths` int32 [N], `targets` int32 [N, T], `target_lengths` int32 [N], end included.
    """
    inputs, lengths = pad(sources, 0, source_length or max(map(len, sources)))
    targets, target_lengths = pad(targets, end, target_length or max(map(len, targets)) + 1)
    return {"inputs": inputs, "lengths": lengths, "targets": targets, "target_lengths": target_lengths + 1}
