"""Which evaluation was the best, and for how long there has been no better one."""

import pytest

from jaxdl.train.stopping import best_record, evaluations_since_best


def lines(*values, metric="accuracy", losses=None):
    losses = losses or [1.0] * len(values)
    return [
        {"step": 10 * (i + 1), "split": "validation", metric: value, "loss": loss}
        for i, (value, loss) in enumerate(zip(values, losses))
    ]


@pytest.mark.parametrize(
    "records, mode, step, since",
    [
        (lines(0.1, 0.3, 0.2), "max", 20, 1),
        (lines(0.1, 0.3, 0.2), "min", 10, 2),
        (lines(0.3, 0.3, 0.3), "max", 10, 2),
        (lines(0.3, 0.3, 0.3, losses=[1.0, 0.5, 0.7]), "max", 20, 1),
        (lines(None, float("nan"), 0.2), "max", 30, 0),
        ([{"step": 5, "split": "test", "accuracy": 1.0}, *lines(0.1)], "max", 10, 0),
    ],
)
def test_best(records, mode, step, since):
    assert best_record(records, "accuracy", mode, "validation")["step"] == step
    assert evaluations_since_best(records, "accuracy", mode, "validation") == since


def test_no_evaluation_is_no_best():
    assert best_record([], "accuracy", "max", "validation") is None
    assert evaluations_since_best(lines(None, None), "accuracy", "max", "validation") == 2
