"""Sums of two whole numbers, written out: '335+48' to '383'. The task of Flax's seq2seq example.

https://github.com/google/flax/tree/main/examples/seq2seq, input_pipeline.py: the smaller number stands first; it has at
most two digits, and the larger at most three. That makes 95,050 different sums. Flax draws each example at random and
has no held-out ones; here every sum belongs to one split. What begins the decoding, '=' there, is the end of text here.
"""

import dataclasses

import numpy as np

from jaxdl.data.base import Data
from jaxdl.data.sequences import pairs
from jaxdl.data.sources import Batch, Example
from jaxdl.data.tokenizers import CharacterTokenizer
from jaxdl.errors import InputError
from jaxdl.types import PositiveInt, Seed

_MOST_EXAMPLES = 2**31 - 1  # of a split: what a shuffled order can address


def number_of_sums(small: int, large: int) -> int:
    """How many pairs (a, b) there are with 0 <= a <= b < large and a < small, where small <= large."""
    return small * large - small * (small - 1) // 2


def sum_of_index(index: np.ndarray, small: int, large: int) -> tuple[np.ndarray, np.ndarray]:
    """A bijection from 0 .. number_of_sums - 1 to the pairs that it counts.

    Row a of the triangle holds large - a pairs, so rows a and small - 1 - a together hold as many for every a.

    Args:
      index: int64 [n].
      small, large: the numbers' bounds; `small` is even.

    Returns:
      a, b: int64 [n].
    """
    row, place = np.divmod(index, 2 * large - small + 1)
    first = place < large - row
    a = np.where(first, row, small - 1 - row)
    return a, a + np.where(first, place, place - (large - row))


def permute(index: np.ndarray, count: int, seed: int) -> np.ndarray:
    """A pseudorandom permutation of 0 .. count - 1 at `index` (int64 [n]), computed for these places alone.

    A Feistel network of four rounds (Luby and Rackoff 1988) permutes 0 .. 4^w - 1, the least such that is at least
    `count`. What falls outside goes through it again until it does not (cycle walking: Black and Rogaway 2002,
    Ciphers with arbitrary finite domains, section 3).
    """
    half = np.uint64((max(count - 1, 1).bit_length() + 1) // 2)
    mask = (np.uint64(1) << half) - np.uint64(1)
    keys = np.random.default_rng(seed).integers(0, 2**64, 4, dtype=np.uint64)
    result = index.astype(np.uint64)
    outside = np.ones(result.shape, bool)
    while outside.any():
        left, right = result[outside] >> half, result[outside] & mask
        for key in keys:
            left, right = right, left ^ (_mix(right ^ key) & mask)
        result[outside] = left << half | right
        outside = result >= np.uint64(count)
    return result.astype(np.int64)


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014): every bit of the result depends on every bit of `x`."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class Sums:
    """Sums `start` to `stop` - 1 of the order that `seed` gives: example i depends on nothing else.

    Args:
      tokenizer: of the characters + and 0 to 9, and of the end.
      digits, smaller_digits: the most that the larger and the smaller number have.
    """

    def __init__(
        self, tokenizer: CharacterTokenizer, start: int, stop: int, seed: int, digits: int, smaller_digits: int
    ):
        self.tokenizer, self.seed = tokenizer, seed
        self.start, self.stop = start, stop
        self.digits, self.smaller_digits = digits, smaller_digits

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return {name: rows[0] for name, rows in self.take(np.array([index])).items()}

    def take(self, indices: np.ndarray) -> Batch:
        numbers = list(zip(*(number.tolist() for number in self.numbers(indices))))
        return pairs(
            self._encode([f"{a}+{b}" for a, b in numbers]),
            self._encode([str(a + b) for a, b in numbers]),
            self.tokenizer.end_of_text,
            source_length=self.smaller_digits + 1 + self.digits,
            target_length=self.digits + 2,
        )

    def numbers(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The summands of these examples: int64 [n] each, the smaller first."""
        small, large = 10**self.smaller_digits, 10**self.digits
        places = permute(np.asarray(indices) + self.start, number_of_sums(small, large), self.seed)
        return sum_of_index(places, small, large)

    def _encode(self, texts: list[str]) -> list[np.ndarray]:
        """Each text's ids; one call for all is many times faster than one for each."""
        return np.split(self.tokenizer.encode("".join(texts)), np.cumsum([len(text) for text in texts[:-1]]))


@dataclasses.dataclass(frozen=True)
class Addition:
    """Sums of two whole numbers as characters: '335+48' to '383'. Nothing is downloaded.

    Attributes:
      digits: the most digits of the larger number.
      smaller_digits: the most digits of the smaller number, which stands first.
      train_size: sums to train on; none is all that are not held out.
      validation_size: sums held out for validation.
      test_size: sums held out for the test.
      split_seed: of the choice which sums are held out; a run's seed does not change it.
    """

    digits: PositiveInt = 3
    smaller_digits: PositiveInt = 2
    train_size: PositiveInt | None = None
    validation_size: PositiveInt = 1000
    test_size: PositiveInt = 5000
    split_seed: Seed = 0

    def load(self, data_dir: str = "") -> Data:
        """Inputs int32 [B, smaller_digits + 1 + digits], targets int32 [B, digits + 2].

        Raises:
          InputError: sizes that do not go together.
        """
        if not self.smaller_digits <= self.digits <= 9:
            raise InputError(
                f"digits={self.digits} and smaller_digits={self.smaller_digits}: the larger number has at most 9 "
                "digits, and the smaller no more than the larger."
            )
        count = number_of_sums(10**self.smaller_digits, 10**self.digits)
        held_out = self.validation_size + self.test_size
        train_size = count - held_out if self.train_size is None else self.train_size
        if train_size < 1 or held_out + train_size > count:
            raise InputError(
                f"there are {count:,} sums, too few for {held_out:,} held out and "
                f"{self.train_size or 1:,} to train on; ask for less, or for more digits."
            )
        if train_size > _MOST_EXAMPLES:
            raise InputError(f"{train_size:,} sums are too many for a split; give --dataset.train_size=1000000, say.")
        tokenizer = CharacterTokenizer("+0123456789", end_of_text=True)
        bounds = np.cumsum([0, self.validation_size, self.test_size, train_size]).tolist()
        names = ("validation", "test", "train")
        splits = {
            name: Sums(tokenizer, start, stop, self.split_seed, self.digits, self.smaller_digits)
            for name, start, stop in zip(names, bounds, bounds[1:])
        }
        return Data(splits, tokenizer=tokenizer, target_tokenizer=tokenizer)
