"""Every flag file of experiments/ runs, and begins with what a reader needs to judge and to repeat it."""

import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from jaxdl import config, experiment
from launch import sweep
from tests.data import graph_files
from tests.data_paths import data_path

ROOT = pathlib.Path(__file__).parents[2]
EVERY = sorted(path.relative_to(ROOT) for path in (ROOT / "experiments").rglob("*.flags"))
SWEEPS = [path for path in EVERY if path.name.endswith(".sweep.flags")]
RUNS = [path for path in EVERY if path not in SWEEPS]
# What makes a smoke test of a real run: three steps on small batches, one evaluation, nothing drawn.
SMALL = ["--steps=3", "--eval_every=3", "--log_every=3", "--plots=false", "--tensorboard=false", "--progress=off"]
SMALL += ["--mesh=data:1", "--batch_size=8", "--eval_batch_size=100", "--steps_per_dispatch=1"]


def each(paths):
    return pytest.mark.parametrize("path", paths, ids=[str(path.relative_to("experiments")) for path in paths])


def where_data_is(path: pathlib.Path, folder: pathlib.Path) -> list[str]:
    """The flags that lead a flag file to a little data: a slice of the real, or noise in the real files' layout.

    Skips where only the real would do, and there is none.
    """
    text = "\n".join(config.expand_flagfiles([f"--flagfile={ROOT / path}"]))  # those that it takes in, too
    noise = np.random.default_rng(0)
    labels = np.arange(20, dtype=np.uint8) % 10
    if "--dataset=tfds" in text:
        return [
            f"--data_dir={data_path('tfds')}",
            "--dataset.train_split=train[:200]",
            "--dataset.test_split=test[:20]",
        ]
    if "--dataset=idx" in text:
        images = noise.integers(0, 256, (20, 28, 28), dtype=np.uint8)
        files = folder / "".join(re.findall(r"^--dataset\.path=(.+)$", text, re.MULTILINE))
        files.mkdir(exist_ok=True)
        for prefix in ("train", "t10k"):
            for name, array in (("images-idx3", images), ("labels-idx1", labels)):
                header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
                (files / f"{prefix}-{name}-ubyte").write_bytes(header + array.tobytes())
        return [f"--data_dir={folder}", "--dataset.split_kind=random"]
    if "--dataset=cifar10_binary" in text:
        records = noise.integers(0, 256, (20, 1 + 3 * 32 * 32), dtype=np.uint8)
        records[:, 0] = labels
        for name in ("data_batch_1.bin", "test_batch.bin"):
            records.tofile(folder / name)
        return [f"--data_dir={folder}"]
    if "--dataset=image_captions" in text:
        [table] = re.findall(r"^--dataset\.path=(.+)$", text, re.MULTILINE)
        images = folder / table
        (images.parent / "images").mkdir(parents=True)
        for number in range(40):
            pixels = noise.integers(0, 256, (40, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(images.parent / "images" / f"{number}.png")
        lines = [f"{line % 40}.png,{' '.join(noise.choice(['a', 'dog', 'runs', 'sits'], 5))}" for line in range(80)]
        images.write_text("image,caption\n" + "\n".join(lines))
        return [f"--data_dir={folder}"]
    if re.search(r"^--dataset=(planetoid|mutag|molecules)$", text, re.MULTILINE):
        return [f"--data_dir={folder}", *_write_graphs(text, folder)]
    if re.search(r"^--dataset=(labelled_)?text$", text, re.MULTILINE):
        # Lines of words, a tab and a label serve for both.
        lines = [" ".join(noise.choice(["to", "be", "or", "not"], 9)) + f"\t{line % 2}\n" for line in range(400)]
        for name in re.findall(r"^--dataset\.(?:\w+_)?path=(.+)$", text, re.MULTILINE):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("".join(lines))
        found = [f"--data_dir={folder}"]
        if "--dataset.tokenizer=/tmp/wordpiece.json" in text:
            arguments = ["--size=60", f"--out={folder / 'wordpiece.json'}", *map(str, folder.rglob("*.*"))]
            subprocess.run(
                [sys.executable, ROOT / "experiments/language/wordpiece_vocabulary.py", *arguments], check=True
            )
            found.append(f"--dataset.tokenizer={folder / 'wordpiece.json'}")
        return found
    if re.search(r"^--dataset=(word_pairs|cooccurrence)$", text, re.MULTILINE):
        lines = [" ".join(f"w{word}" for word in line) for line in noise.integers(0, 50, (40, 30))]
        [name] = re.findall(r"^--dataset\.path=(.+)$", text, re.MULTILINE)
        file = folder / (name if name.endswith(".txt") else f"{name}/train.txt")
        file.parent.mkdir(parents=True)
        file.write_text("\n".join(lines))
        return [f"--data_dir={folder}"]
    return []


def _write_graphs(text: str, folder: pathlib.Path) -> list[str]:
    """Graphs where the flags say, and the flags that so few of them need."""
    flag = lambda name, default="": "".join(re.findall(rf"^--dataset\.{name}=(.+)$", text, re.MULTILINE)) or default
    if "--dataset=planetoid" in text:
        graph_files.write_planetoid(folder / flag("path"))
        return ["--batch_size=1", "--eval_batch_size=1"]
    if "--dataset=mutag" in text:
        graph_files.write_mutag(folder / flag("path", "mutag/MUTAG.txt"), folds=10)
        return []
    pytest.importorskip("rdkit")
    graph_files.write_molecules(folder / flag("path"), flag("targets").split(","), flag("kind") == "labels")
    return []


@each(EVERY)
def test_header(path):
    """The comment on top says what is reproduced, what to expect at what cost, and the command."""
    lines = (ROOT / path).read_text().splitlines()
    header = []
    for line in lines:
        if not line.startswith("#"):
            break
        header.append(line)
    text = "\n".join(header)
    assert len(header) >= 3, "the header is what it reproduces, what to expect, and the command"
    assert re.search(r"^# .*Expected", text, re.MULTILINE)
    assert re.search(r"\d+ seeds?\b", text) and re.search(r"CPU cores?: ", text)
    command = "sweep" if path in SWEEPS else "train"
    assert re.search(rf"python -m launch.{command} --flagfile={re.escape(str(path))}( |$)", text, re.MULTILINE)
    assert all(len(line) <= 120 or line.startswith("--sweep=") for line in lines), "an axis is one line, of any length"


@each(RUNS)
def test_runs(path, tmp_path):
    """Three steps and an evaluation, by the file's own model, data and optimizer."""
    flags = [f"--flagfile={ROOT / path}", *SMALL, *where_data_is(path, tmp_path), f"--workdir={tmp_path / 'run'}"]
    settings = experiment.parse(flags)
    result = experiment.run(settings)
    assert (result.status, result.step) == (0, 3)
    selects = settings.classes["task"].selection[0]
    for values in result.metrics.values():
        assert np.isfinite(values[selects]) and np.isfinite(values.get("loss", 0.0))


@each(SWEEPS)
def test_sweeps(path, tmp_path, capsys):
    """Every trial's flags are right, and what the command would do is shown; nothing is trained."""
    flags = [f"--flagfile={ROOT / path}", *SMALL, *where_data_is(path, tmp_path)]
    assert sweep.main([*flags, f"--workdir={tmp_path / 'sweep'}", "--dry_run"]) == 0
    assert "trials" in capsys.readouterr().out
    assert not (tmp_path / "sweep").exists()
