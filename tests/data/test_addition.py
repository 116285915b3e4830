"""The addition task: right sums, splits that have nothing in common, and examples that depend on (seed, i) alone."""

import numpy as np
import pytest

from jaxdl.data.addition import Addition, number_of_sums, permute, sum_of_index
from jaxdl.errors import InputError
from jaxdl.tasks.sequence_to_sequence import text_of


@pytest.mark.parametrize(("small", "large"), [(10, 10), (10, 100), (100, 1000), (100, 100)])
def test_every_pair_has_one_index(small, large):
    a, b = sum_of_index(np.arange(number_of_sums(small, large)), small, large)
    expected = {(x, y) for x in range(small) for y in range(x, large)}
    assert len(a) == len(expected) and set(zip(a.tolist(), b.tolist())) == expected


@pytest.mark.parametrize("count", [1, 2, 3, 64, 95_050])
def test_permute_is_a_permutation_that_the_seed_decides(count):
    order = permute(np.arange(count), count, seed=0)
    np.testing.assert_array_equal(np.sort(order), np.arange(count))
    some = np.arange(count)[::3]
    np.testing.assert_array_equal(permute(some, count, seed=0), order[::3])
    if count > 3:
        assert (order != permute(np.arange(count), count, seed=1)).any()
        assert (order != np.arange(count)).any()


def test_permute_mixes():
    """Neighbours do not stay together: the correlation of i and its place is that of chance, 1 / sqrt(n) = 0.003."""
    count = 95_050
    order = permute(np.arange(count), count, seed=0)
    assert abs(np.corrcoef(np.arange(count), order)[0, 1]) < 0.015
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.015


def test_the_texts_are_right_sums():
    data = Addition().load()
    assert [len(data.splits[name]) for name in ("train", "validation", "test")] == [89_050, 1000, 5000]
    batch = data.splits["test"].take(np.arange(200))
    for inputs, length, targets, target_length in zip(*(batch[n] for n in batch)):
        source, target = data.tokenizer.decode(inputs[:length]), text_of(data.target_tokenizer, targets)
        a, b = map(int, source.split("+"))
        assert a <= b and a < 100 and b < 1000 and a + b == int(target)
        assert target_length == len(target) + 1 and targets[len(target)] == data.target_tokenizer.end_of_text
    assert (batch["inputs"].shape, batch["targets"].shape) == ((200, 6), (200, 5))
    assert batch["inputs"].dtype == batch["targets"].dtype == np.int32


def test_no_sum_is_in_two_splits():
    data = Addition().load()
    sums = [set(zip(*(n.tolist() for n in split.numbers(np.arange(len(split)))))) for split in data.splits.values()]
    assert sum(map(len, sums)) == len(set.union(*sums)) == number_of_sums(100, 1000)


def test_an_example_is_the_row_of_a_batch_and_the_seed_chooses_it():
    train, again = (Addition(split_seed=1).load().splits["train"] for _ in range(2))
    batch = train.take(np.array([7, 3]))
    for name, value in again[3].items():
        np.testing.assert_array_equal(value, batch[name][1])
    assert (
        Addition(split_seed=2).load().splits["train"].take(np.arange(50))["inputs"]
        != train.take(np.arange(50))["inputs"]
    ).any()
    with pytest.raises(IndexError):
        train[len(train)]


def test_large_numbers_need_no_list_of_all_sums():
    data = Addition(digits=9, smaller_digits=9, train_size=10**6).load()
    example = data.splits["train"][10**6 - 1]
    a, b = map(int, data.tokenizer.decode(example["inputs"][: example["lengths"]]).split("+"))
    assert a + b == int(text_of(data.target_tokenizer, example["targets"]))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"digits": 1, "smaller_digits": 2}, "digits=1 and smaller_digits=2"),
        ({"digits": 10}, "at most 9"),
        ({"digits": 1, "smaller_digits": 1}, "there are 55 sums, too few for 6,000 held out"),
        ({"train_size": 90_000}, "too few for 6,000 held out and 90,000"),
        ({"digits": 9, "smaller_digits": 9}, "train_size=1000000"),
    ],
)
def test_sizes_that_do_not_go_together(flags, message):
    with pytest.raises(InputError, match=message):
        Addition(**flags).load()
