"""The run directory: whole files, one holder, and metrics that never tear or repeat."""

import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from jaxdl.errors import InputError, RunError
from jaxdl.train.record import STATUS_SECONDS, RunDirectory, read_metrics


@pytest.fixture
def record(tmp_path):
    record = RunDirectory(tmp_path / "run")
    record.open()
    record.rewind(0)
    yield record
    record.close()


def test_metrics_are_strict_json_lines(record):
    record.metrics(1, "train", {"loss": 0.5, "bad": float("nan"), "array": np.arange(2)})
    line = (record.path / "metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=lambda name: pytest.fail(name)) == {
        "step": 1,
        "split": "train",
        "loss": 0.5,
        "bad": None,
        "array": [0, 1],
    }


def test_rewind_cuts_later_and_torn_lines(record):
    for step in (1, 2, 3):
        record.metrics(step, "train", {"loss": step})
    with open(record.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "spl')
    assert [entry["step"] for entry in read_metrics(record.path)] == [1, 2, 3]
    record.rewind(2)
    record.metrics(3, "train", {"loss": 30})
    assert [entry["loss"] for entry in read_metrics(record.path)] == [1, 2, 30]


def test_progress_is_written_now_and_then_and_with_everything_else(record, monkeypatch):
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    written = lambda: json.loads((record.path / "status.json").read_text())["step"]
    record.status(state="running", step=0)
    record.progress(step=1)
    assert written() == 1  # the first at once: whether a run has got further is judged by it
    record.progress(step=2)
    assert written() == 1 and record.read_status()["step"] == 2
    record.heartbeat()
    assert written() == 2
    record.progress(step=3)
    record.status(state="done")
    assert written() == 3
    record.progress(step=4)
    now += STATUS_SECONDS
    record.progress(step=5)
    assert written() == 5


def test_one_holder_at_a_time(tmp_path):
    path = tmp_path / "run"
    script = (
        "import sys, time\nfrom jaxdl.train.record import RunDirectory\n"
        "RunDirectory(sys.argv[1]).open()\nprint('held', flush=True)\ntime.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"held by process {holder.pid} on "):
            RunDirectory(path).open()
    finally:
        holder.kill()
        holder.wait()
    mine = RunDirectory(path)
    mine.open()  # a dead holder's lock is free
    assert f"process {os.getpid()} on" in (path / ".lock").read_text()
    mine.close()


def test_a_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="is no run directory"):
        RunDirectory(tmp_path).open()


def test_a_path_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        RunDirectory(tmp_path / "file" / "run").open()


def test_full_disk_is_one_line(record):
    (record.path / "metrics.jsonl").unlink(missing_ok=True)
    (record.path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(RunError, match="No space left on device"):
        record.metrics(1, "train", {"loss": 1.0})


def test_closing_on_a_full_disk_hides_no_error_before(record, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(record._tensorboard, "close", full)
    record.close()
    RunDirectory(record.path).open()  # the lock is free


def test_flags_that_differ(record):
    record.write_flags({"model": "mlp", "steps": "10", "seed": "0"}, "comment")
    assert record.check_flags({"model": "mlp", "steps": "10", "seed": "0"}, {"steps"}) == []
    assert record.check_flags({"model": "mlp", "steps": "20", "seed": "0"}, {"steps"}) == ["--steps=10 -> 20"]
    with pytest.raises(InputError, match="--seed=0 -> 1"):
        record.check_flags({"model": "mlp", "steps": "20", "seed": "1"}, {"steps"})
    # A flag that a later version has may be added at its default alone, and one that it has no more is told.
    newer, defaults = {"model": "mlp", "steps": "10", "seed": "0", "new": "1"}, {"new": "1", "model": "cnn"}
    assert record.check_flags(newer, {"steps"}, defaults) == ["--new=(not there) -> 1"]
    with pytest.raises(InputError, match="--new=\\(not there\\) -> 2"):
        record.check_flags({**newer, "new": "2"}, {"steps"}, defaults)
    with pytest.raises(InputError, match="--seed=0 -> \\(not there\\)"):
        record.check_flags({"model": "mlp", "steps": "10"}, {"steps"}, {"seed": "0"})


def test_other_processes_write_nothing(tmp_path):
    record = RunDirectory(tmp_path / "run", writer=False)
    record.open()
    record.rewind(0)
    record.status(state="running")
    record.metrics(1, "train", {"loss": 1.0})
    assert not record.path.exists()


def test_events_do_not_import_pytorch(tmp_path):
    """Where it is installed tensorboardX would, in every run, for seconds."""
    (tmp_path / "torch.py").write_text("raise AssertionError('imported')")
    script = (
        "import sys; from jaxdl.train.record import import_summary_writer\n"
        f"writer = import_summary_writer()({str(tmp_path / 'events')!r})\n"
        "writer.add_scalar('loss', 1.0, 1); writer.close(); assert 'torch' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
