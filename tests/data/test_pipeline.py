"""batch(t) is a function of (seed, t), and of nothing else."""

import itertools

import numpy as np
import pytest

from jaxdl.data import order
from jaxdl.data.pipeline import Pipeline, eval_batches
from jaxdl.data.sources import ArraySource, Subset, materialize
from jaxdl.errors import InputError, RunError

NUMBER = 23


def _source(number=NUMBER):
    return ArraySource({"inputs": np.arange(number * 3, dtype=np.float32).reshape(number, 3), "row": np.arange(number)})


class _Lazy:
    """The same rows without `take`."""

    def __init__(self, fails_at=None):
        self.fails_at = fails_at

    def __len__(self):
        return NUMBER

    def __getitem__(self, index):
        if index == self.fails_at:
            raise RunError(f"record {index}")
        return _source()[index]


def _equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


@pytest.fixture(params=["held", "computed"])
def both_orders(request, monkeypatch):
    """Small sources hold a permutation, large ones compute it: both must have every property."""
    if request.param == "computed":
        monkeypatch.setattr(order, "_HELD_RECORDS", 0)


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1, 2**40, np.int64(5)])
def test_every_epoch_is_a_permutation_and_epochs_and_seeds_differ(both_orders, seed):
    epochs = order.Order(NUMBER, seed)(np.arange(5 * NUMBER)).reshape(5, NUMBER)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(NUMBER), (5, 1)))
    assert len({tuple(epoch) for epoch in epochs}) == 5
    assert tuple(order.Order(NUMBER, seed + 1)(np.arange(NUMBER))) != tuple(epochs[0])


def test_batches_follow_each_other_without_a_gap(both_orders):
    pipeline = Pipeline(_source(), batch_size=5, seed=3)
    joined = np.concatenate([pipeline.block(step, 1)[0] for step in range(NUMBER)])
    np.testing.assert_array_equal(joined, order.Order(NUMBER, 3)(np.arange(5 * NUMBER)))
    assert joined.dtype == np.int64


def test_any_step_in_any_order(both_orders):
    forward = [Pipeline(_source(), batch_size=4, seed=1).batch(step) for step in range(12)]
    again = Pipeline(_source(), batch_size=4, seed=1)
    for step in reversed(range(12)):
        _equal(again.batch(step), forward[step])
    np.testing.assert_array_equal(forward[9]["row"], again.block(9, 1)[0])
    assert again.block(10**9, 1)[0].shape == (4,)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_read_contiguous_rows_of_the_same_batch(processes):
    whole = Pipeline(_source(), batch_size=8, seed=1).batch(6)
    share = 8 // processes
    parts = [
        Pipeline(_source(), batch_size=8, seed=1, rows=slice(share * p, share * (p + 1))).batch(6)
        for p in range(processes)
    ]
    _equal({name: np.concatenate([part[name] for part in parts]) for name in whole}, whole)


@pytest.mark.parametrize("num_threads", [0, 1, 3])
@pytest.mark.parametrize("source", [_source(), _Lazy(), Subset(_source(40), np.arange(NUMBER))])
def test_iterate_gives_the_same_batches_from_any_step(source, num_threads):
    pipeline = Pipeline(source, batch_size=4, seed=2)
    batches = list(pipeline.iterate(5, 14, prefetch=2, num_threads=num_threads))
    assert len(batches) == 9
    for step, batch in zip(range(5, 14), batches):
        _equal(batch, pipeline.batch(step))
    endless = pipeline.iterate(3)
    _equal(list(itertools.islice(endless, 2))[1], pipeline.batch(4))
    endless.close()


def test_worker_processes_change_nothing():
    pipeline = Pipeline(_source(), batch_size=4, seed=2)
    batches = [
        {name: np.array(values) for name, values in batch.items()} for batch in pipeline.iterate(2, 7, num_workers=2)
    ]
    assert len(batches) == 5
    for step, batch in zip(range(2, 7), batches):
        _equal(batch, pipeline.batch(step))


def test_unshuffled_order_is_the_sources():
    pipeline = Pipeline(_source(), batch_size=10, seed=2, shuffle=False)
    np.testing.assert_array_equal(pipeline.block(2, 1)[0], [*range(20, 23), *range(7)])


def test_collate_replaces_stacking():
    def collate(examples):
        return {"total": np.sum([example["row"] for example in examples])}

    pipeline = Pipeline(_source(), batch_size=4, seed=2, collate=collate)
    assert pipeline.batch(3)["total"] == pipeline.block(3, 1)[0].sum()


def test_reading_errors_arrive_unchanged():
    with pytest.raises(RunError, match="record 11"):
        list(Pipeline(_Lazy(fails_at=11), batch_size=4, seed=0).iterate(0, 12))


@pytest.mark.parametrize("number, message", [(0, "empty"), (3, "a batch of 4 is larger than .* 3 examples")])
def test_impossible_batches_are_refused(number, message):
    with pytest.raises(InputError, match=message):
        Pipeline(_source(number), batch_size=4, seed=0)


@pytest.mark.parametrize("batch_size", [1, 5, NUMBER, 40])
@pytest.mark.parametrize("source", [_source(), _Lazy()])
def test_evaluation_reads_every_example_once(source, batch_size):
    batches = list(eval_batches(source, batch_size))
    assert {len(batch["row"]) for batch in batches} == {batch_size}
    weight = np.concatenate([batch["weight"] for batch in batches])
    rows = np.concatenate([batch["row"] for batch in batches])
    assert weight.dtype == np.float32
    np.testing.assert_array_equal(rows[weight == 1], np.arange(NUMBER))


def test_evaluation_rows_of_processes_make_the_batch():
    whole = list(eval_batches(_source(), 8))
    parts = [list(eval_batches(_source(), 8, slice(first, first + 4))) for first in (0, 4)]
    for step, batch in enumerate(whole):
        _equal({name: np.concatenate([part[step][name] for part in parts]) for name in batch}, batch)


@pytest.mark.parametrize("source", [_source(), _Lazy(), Subset(_source(), np.array([4, 2, 7]))])
def test_materialize_is_all_examples_stacked(source):
    whole = materialize(source)
    for index in range(len(source)):
        _equal({name: values[index] for name, values in whole.items()}, source[index])
    assert len(whole["row"]) == len(source)
