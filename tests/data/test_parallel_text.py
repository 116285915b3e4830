"""Parallel text: files of lines, and what can be wrong with them."""

import gzip

import numpy as np
import pytest

from jaxdl.data.parallel_text import ParallelText
from jaxdl.data.sequences import pad, pairs
from jaxdl.errors import InputError
from jaxdl.tasks.sequence_to_sequence import text_of
from tests.data_paths import data_path

EN = ["a dog runs", "a cat sleeps now", "two dogs", "a dog sleeps"]
DE = ["ein hund rennt", "eine katze schläft jetzt", "zwei hunde", "ein hund schläft"]


def write(folder, name, lines, end="\n"):
    content = (end.join(lines) + end).encode() if not isinstance(lines, bytes) else lines
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)


def texts(data, split):
    source = data.splits[split]
    return [
        (data.tokenizer.decode(row["inputs"][: row["lengths"]]), text_of(data.target_tokenizer, row["targets"]))
        for row in map(source.__getitem__, range(len(source)))
    ]


def test_pad_and_pairs():
    rows, lengths = pad([np.array([5, 6]), np.array([], int), np.array([7])], 9, 3)
    np.testing.assert_array_equal(rows, [[5, 6, 9], [9, 9, 9], [7, 9, 9]])
    np.testing.assert_array_equal(lengths, [2, 0, 1])
    batch = pairs([np.array([1, 2])], [np.array([3, 4, 5])], end=8)
    assert {name: value.tolist() for name, value in batch.items()} == {
        "inputs": [[1, 2]],
        "lengths": [2],
        "targets": [[3, 4, 5, 8]],
        "target_lengths": [4],
    }


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_become_pairs(tmp_path, suffix, end):
    write(tmp_path, f"train.en{suffix}", EN, end)
    write(tmp_path, f"train.de{suffix}", DE, end)
    write(tmp_path, f"held.en{suffix}", ["two cat zebras"])
    write(tmp_path, f"held.de{suffix}", ["zwei katze zebras"])
    data = ParallelText(path=str(tmp_path), validation="held", test="held").load()
    assert texts(data, "train") == list(zip(EN, DE))
    assert texts(data, "validation") == texts(data, "test") == [("two cat <unk>", "zwei katze <unk>")]
    other = ParallelText(path=str(tmp_path), source="de", target="en", validation="held").load()
    assert texts(other, "train") == list(zip(DE, EN)) and "test" not in other.splits


def test_validation_from_the_training_pair_and_long_pairs(tmp_path, capsys):
    write(tmp_path, "train.en", EN)
    write(tmp_path, "train.de", DE)
    data = ParallelText(path=str(tmp_path), validation_fraction=0.25, split_seed=2).load()
    assert len(data.splits["train"]) == 3 and len(data.splits["validation"]) == 1
    assert sorted(data.splits["train"].arrays["lengths"])[-1] == data.splits["train"].arrays["inputs"].shape[1]
    short = ParallelText(path=str(tmp_path), validation_fraction=0.0, max_length=3).load()
    assert texts(short, "train") == [pair for pair in zip(EN, DE) if len(pair[0].split()) <= 3]
    assert "1 of 4 training pairs are longer than 3" in capsys.readouterr().out
    with pytest.raises(InputError, match="every training pair is longer than --dataset.max_length=1"):
        ParallelText(path=str(tmp_path), max_length=1, validation_fraction=0.0).load()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (EN[:3], "train.en has 3 lines and train.de has 4"),
        ([*EN[:2], " ", EN[3]], "train.en: line 3 is empty"),
        (b"", "train.en: the file is empty"),
        (b"caf\xe9\n", "train.en is not UTF-8: byte 0xe9 at offset 3"),
    ],
)
def test_bad_files(tmp_path, content, message):
    write(tmp_path, "train.en", content)
    write(tmp_path, "train.de", DE)
    with pytest.raises(InputError, match=message) as error:
        ParallelText(path=str(tmp_path)).load()
    assert "\n" not in str(error.value)


def test_a_character_that_training_has_not_is_told_with_its_line(tmp_path):
    for name, lines in (("train.en", ["a b"]), ("train.de", ["c d"]), ("val.en", ["a", "a z"]), ("val.de", ["c", "d"])):
        write(tmp_path, name, lines)
    with pytest.raises(InputError, match=r"the line 'a z': character 'z' \(number 2, from 0\)"):
        ParallelText(path=str(tmp_path), tokenizer="character", validation="val").load()


def test_missing_and_damaged_files(tmp_path):
    write(tmp_path, "train.en", EN)
    with pytest.raises(InputError, match="neither train.de nor train.de.gz"):
        ParallelText(path=str(tmp_path)).load()
    (tmp_path / "train.de.gz").write_bytes(gzip.compress(b"x" * 100)[:-9])
    with pytest.raises(InputError, match="train.de.gz is damaged"):
        ParallelText(path=str(tmp_path)).load()


def test_multi30k():
    folder = data_path("multi30k")
    data = ParallelText(path=str(folder), validation="val", test="test_2016_flickr").load()
    assert [len(data.splits[name]) for name in ("train", "validation", "test")] == [29_000, 1014, 1000]
    assert texts(data, "train")[0][0] == "Two young, White males are outside near many bushes."
