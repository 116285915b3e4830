"""Examples of language modelling out of a stream of tokens: windows of it, or rows packed with whole documents.

An example of length T is `inputs` int32 [T], `targets` int32 [T], the tokens that follow them, `token_weight` float32
[T], 1 where there is a target, and of packed documents `segments` int32 [T]: 1, 2, ... by document, 0 for padding.
Tokens are held once, in the smallest integers that take them, and become int32 as they are read.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.data.sources import Batch, Example


def compact(tokens: np.ndarray, vocab_size: int) -> np.ndarray:
    """The tokens [N] as uint8, uint16 or int32, whichever is the smallest that takes the vocabulary."""
    kind = next(kind for kind in (np.uint8, np.uint16, np.int32) if vocab_size - 1 <= np.iinfo(kind).max)
    return tokens.astype(kind)


class Windows:
    """The windows of a stream that begin at any of its tokens: neighbours share all tokens but one.

    N tokens have N - T windows, so an epoch of them shows every token T times.

    Args:
      tokens: integers [N], N > T.
      length: T.
    """

    def __init__(self, tokens: np.ndarray, length: int):
        self.tokens, self.length = tokens, length

    def __len__(self) -> int:
        return len(self.tokens) - self.length

    def __getitem__(self, index: int) -> Example:
        return {name: value[0] for name, value in self.take(np.array([index])).items()}

    def take(self, indices: np.ndarray) -> Batch:
        found = self.tokens[np.asarray(indices)[:, None] + np.arange(self.length + 1)].astype(np.int32)
        return _example(found, np.ones((len(found), self.length), np.float32))

    def resident(self) -> dict[str, np.ndarray]:
        """What a device holds to make batches by itself (`rows`)."""
        return {"tokens": self.tokens}

    def rows(self, resident: dict[str, jax.Array], indices: jax.Array) -> dict[str, jax.Array]:
        """On the device: the batch [..., T] of windows `indices`, int32 [...], out of `resident`."""
        places = indices[..., None] + jnp.arange(self.length + 1).reshape((1,) * indices.ndim + (-1,))
        found = resident["tokens"].at[places].get(mode="promise_in_bounds").astype(jnp.int32)
        return _example(found, jnp.ones(found[..., 1:].shape, jnp.float32))


class ConsecutiveWindows:
    """Windows one after the other, so that each token but the first is the target of one of them: for evaluation.

    The last is filled up with targets of weight 0. Examples have `num_bytes`, float32 []: the bytes of text that its
    targets stand for, by the mean of the split.

    Args:
      tokens: integers [N], N > 1.
      length: T.
      bytes_per_token: bytes of the split's text over N.
    """

    def __init__(self, tokens: np.ndarray, length: int, bytes_per_token: float):
        self.tokens, self.length, self.bytes_per_token = tokens, length, bytes_per_token

    def __len__(self) -> int:
        return -(-(len(self.tokens) - 1) // self.length)

    def __getitem__(self, index: int) -> Example:
        return {name: value[0] for name, value in self.take(np.array([index])).items()}

    def take(self, indices: np.ndarray) -> Batch:
        places = np.asarray(indices)[:, None] * self.length + np.arange(self.length + 1)
        found = self.tokens[np.minimum(places, len(self.tokens) - 1)].astype(np.int32)
        weight = np.float32(places[:, 1:] < len(self.tokens))
        return _example(found, weight) | {"num_bytes": np.float32(weight.sum(axis=1) * self.bytes_per_token)}


class PackedDocuments:
    """Rows filled with whole documents, in their order; one that does not fit into what is left begins the next row.

    Documents longer than a row are cut into pieces, each a document of its own. A document's first token is no target.
    Examples have `num_bytes`, as those of `ConsecutiveWindows`.

    Args:
      documents: integers [n], n > 0, for each.
      length: T.
      bytes_per_token: bytes of the split's text over the number of its tokens.
    """

    def __init__(self, documents: Sequence[np.ndarray], length: int, bytes_per_token: float):
        self.tokens = np.concatenate(documents)
        self.length, self.bytes_per_token = length, bytes_per_token
        ends = np.cumsum([len(document) for document in documents])
        pieces, first_of_row, free = [], [], 0
        for start, end in zip(ends - [len(document) for document in documents], ends, strict=True):
            for place in range(start, end - 1, length):
                size = min(length, end - 1 - place)  # of the piece's inputs; its targets are one later
                if size > free:
                    first_of_row.append(len(pieces))
                    free = length
                free -= size
                pieces.append((place, size))
        self._pieces = np.array(pieces, np.int64).reshape(-1, 2)
        self._first_of_row = np.array([*first_of_row, len(pieces)], np.int64)

    def __len__(self) -> int:
        return len(self._first_of_row) - 1

    def __getitem__(self, index: int) -> Example:
        found = np.zeros((3, self.length), np.int32)  # inputs, targets, segments
        used = 0
        row = slice(*self._first_of_row[index : index + 2])
        for segment, (place, size) in enumerate(self._pieces[row], 1):
            found[0, used : used + size] = self.tokens[place : place + size]
            found[1, used : used + size] = self.tokens[place + 1 : place + size + 1]
            found[2, used : used + size] = segment
            used += size
        weight = np.float32(found[2] > 0)
        num_bytes = np.float32(used * self.bytes_per_token)
        return {"inputs": found[0], "targets": found[1], "segments": found[2], "token_weight": weight} | {
            "num_bytes": num_bytes
        }


def _example(found, weight):
    """Inputs and targets out of [..., T + 1] tokens."""
    return {"inputs": found[..., :-1], "targets": found[..., 1:], "token_weight": weight}
