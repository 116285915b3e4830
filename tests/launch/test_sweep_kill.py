"""A small sweep under kill -9; `python -m tests.launch.kill_sweep` does the same at length."""

from tests.launch.kill_sweep import run_both


def test_a_sweep_under_kill_9_ends_as_one_that_nobody_disturbed(tmp_path):
    outcome = run_both(tmp_path, trials=4, kills=3, steps=300, seed=14)
    assert not outcome.wrong
    assert outcome.kills["trial"] >= 1 and outcome.kills["sweep"] == 1
