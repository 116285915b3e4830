"""Texts as examples: every target exactly once, nothing across documents, and bad files in one line."""

import jax
import numpy as np
import pytest

from jaxdl.data.pipeline import Pipeline, eval_batches
from jaxdl.data.sources import materialize, read
from jaxdl.data.text import Document, StandardLibrary, Text, TfdsText, divide, split_documents
from jaxdl.data.windows import ConsecutiveWindows, PackedDocuments, Windows, compact
from jaxdl.errors import InputError
from tests.data_paths import data_path

STREAM = np.arange(23, dtype=np.uint8)


def test_windows_begin_at_every_token():
    windows = Windows(STREAM, 5)
    assert len(windows) == 18
    batch = read(windows, np.array([0, 17, 4]))
    assert {name: value.dtype for name, value in batch.items()} == {
        "inputs": np.int32, "targets": np.int32, "token_weight": np.float32,
    }  # fmt: skip
    np.testing.assert_array_equal(batch["inputs"], [[0, 1, 2, 3, 4], [17, 18, 19, 20, 21], [4, 5, 6, 7, 8]])
    np.testing.assert_array_equal(batch["targets"], batch["inputs"] + 1)
    np.testing.assert_array_equal(windows[4]["targets"], batch["targets"][2])


def test_a_device_makes_the_same_windows():
    windows, indices = Windows(STREAM, 5), np.array([[3, 0], [17, 4]], np.int32)
    on_device = jax.jit(windows.rows)(windows.resident(), indices)
    on_host = read(windows, indices.ravel())
    for name, value in on_host.items():
        np.testing.assert_array_equal(on_device[name], value.reshape(2, 2, 5))
        assert on_device[name].dtype == value.dtype


@pytest.mark.parametrize("number", [2, 5, 6, 7, 11, 23])
def test_evaluation_meets_every_target_once(number):
    source = ConsecutiveWindows(STREAM[:number], 5, bytes_per_token=1.5)
    seen = []
    for batch in eval_batches(source, 2):
        real = (batch["token_weight"] * batch["weight"][:, None]) > 0
        seen += batch["targets"][real].tolist()
        np.testing.assert_array_equal(batch["inputs"][real] + 1, batch["targets"][real])
    assert seen == list(range(1, number))
    assert materialize(source)["num_bytes"].sum() == 1.5 * (number - 1)


def test_packed_rows_hold_whole_documents():
    documents = [np.arange(10, 10 + n) for n in (3, 2, 4, 12, 1, 3)]
    source = PackedDocuments(documents, 5, 1.0)
    rows = materialize(source)
    # Inputs a document: 2, 1, 3, then 11 in pieces of 5, 5 and 1, none of a single token, 2.
    np.testing.assert_array_equal(
        rows["segments"],
        [[1, 1, 2, 0, 0], [1, 1, 1, 0, 0], [1] * 5, [1] * 5, [1, 2, 2, 0, 0]],
    )
    np.testing.assert_array_equal(rows["token_weight"], rows["segments"] > 0)
    np.testing.assert_array_equal(rows["inputs"][0], [10, 11, 10, 0, 0])
    np.testing.assert_array_equal(rows["targets"][0], [11, 12, 11, 0, 0])
    real = rows["token_weight"] > 0
    np.testing.assert_array_equal(rows["inputs"][real] + 1, rows["targets"][real])
    assert sorted(rows["targets"][real]) == sorted(np.concatenate([document[1:] for document in documents]))
    np.testing.assert_array_equal(rows["num_bytes"], real.sum(axis=1))


@pytest.mark.parametrize(
    "vocabulary, dtype", [(256, np.uint8), (257, np.uint16), (65536, np.uint16), (65537, np.int32)]
)
def test_tokens_are_held_in_the_smallest_integers(vocabulary, dtype):
    assert compact(np.arange(3), vocabulary).dtype == dtype


def test_tiny_shakespeare_as_nanogpt_splits_it():
    data = Text(path="tiny_shakespeare/input.txt", length=64).load(str(data_path(".")))
    assert data.tokenizer.vocab_size == 65 and data.tokenizer.end_of_text is None
    train, validation = data.splits["train"], data.splits["validation"]
    assert (len(train.tokens), len(validation.tokens)) == (1_003_854, 111_540)
    assert train.tokens.dtype == np.uint8 and len(train) == 1_003_790
    batch = Pipeline(train, batch_size=12, seed=0).batch(3)
    assert batch["inputs"].shape == (12, 64) and batch["inputs"].dtype == np.int32
    text = data_path("tiny_shakespeare/input.txt").read_text()
    assert data.tokenizer.decode(batch["inputs"][0]) in text
    assert data.tokenizer.decode(validation.tokens) == text[1_003_854:]


def test_tfds_gives_the_same_text():
    data = TfdsText(name="tiny_shakespeare", length=64).load(str(data_path("tfds")))
    text = "".join(data.tokenizer.decode(data.splits[split].tokens) for split in ("train", "validation", "test"))
    assert text == data_path("tiny_shakespeare/input.txt").read_text()


def test_tfds_without_a_text():
    with pytest.raises(InputError, match="--dataset.text_key must name one of kind Text"):
        TfdsText(name="mnist").load(str(data_path("tfds")))


def test_the_standard_library_needs_nothing():
    flags = StandardLibrary(max_bytes=200_000, length=32)
    data, again = flags.load(), flags.load()
    tokens = data.splits["train"].tokens
    np.testing.assert_array_equal(tokens, again.splits["train"].tokens)
    assert 50_000 < len(tokens) < 200_000 and data.tokenizer.vocab_size == 256
    assert data.tokenizer.decode(tokens[:4000]).count("import") > 0
    assert (tokens == data.tokenizer.end_of_text).sum() >= 1  # between files


def test_separate_files_and_documents(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "b.txt").write_text("cd\n\n\nefg\n")
    (tmp_path / "train" / "a.txt").write_text("ab")
    (tmp_path / "held.txt").write_text("abc")
    flags = Text(path="train", validation_path="held.txt", documents="blank_line", packing="documents", length=4)
    data = flags.load(str(tmp_path))
    assert set(data.splits) == {"train", "validation"}
    rows = materialize(data.splits["train"])
    end = data.tokenizer.end_of_text
    decoded = [
        data.tokenizer.decode(row[segments == number])
        for row, segments in zip(rows["inputs"], rows["segments"])
        for number in range(1, segments.max() + 1)
    ]
    assert decoded == ["ab", "cd", "efg\n"]
    assert (rows["targets"] == end).sum() == 3
    assert data.splits["train"].bytes_per_token == 8 / 11  # without the ends, which are no text


@pytest.mark.parametrize(
    "documents, parts",
    [
        ("file", ["a\n\nb<|endoftext|>c\n"]),
        ("line", ["a", "b<|endoftext|>c"]),
        ("blank_line", ["a", "b<|endoftext|>c\n"]),
        ("mark", ["a\n\nb", "c\n"]),
    ],
)
def test_where_documents_end(documents, parts):
    assert [document.text for document in divide("a\n\nb<|endoftext|>c\n", "x", documents)] == parts


def test_documents_are_split_by_characters():
    splits = split_documents([Document("abcdef", "x"), Document("ghij", "y")], 0.3, 0.2)
    texts = {name: [document.text for document in documents] for name, documents in splits.items()}
    assert texts == {"train": ["abcde"], "validation": ["f", "gh"], "test": ["ij"]}
    assert splits["test"][0].where == "y, from character 2 on"


def write(path, content):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


@pytest.mark.parametrize(
    "files, flags, message",
    [
        ({}, dict(path="a.txt"), "does not exist"),
        ({"a.txt": b""}, dict(path="a.txt"), "a.txt is empty"),
        ({"a.txt": b"abc\xffdef"}, dict(path="a.txt"), r"a.txt is not UTF-8: byte 0xff at offset 3"),
        ({"d/a.md": b"abc"}, dict(path="d"), r"has no file \*.txt; --dataset.pattern"),
        ({"a.txt": b"abc" * 9}, dict(path="a.txt", length=64), "split 'train' has 24 tokens, but a window takes 65"),
        (
            {"a.txt": b"a" * 90 + b"b" * 10},
            dict(path="a.txt", length=4),
            r"from character 90 on: character 'b' \(number 0",
        ),
        ({"a.txt": b"a<|endoftext|> <|endoftext|>b"}, dict(path="a.txt", documents="mark"), "document 1 .* is empty"),
        ({"a.txt": b"\n \n"}, dict(path="a.txt", documents="line"), "nothing but blank lines"),
        ({"a.txt": b"ab"}, dict(path="a.txt", validation_path="a.txt", validation_fraction=0.1), "not both"),
        ({"a.txt": b"ab"}, dict(path="a.txt", min_count=2), "are for --dataset.tokenizer=word"),
        ({"a.txt": b"ab"}, dict(path="a.txt", tokenizer="t.json"), "tokenizer file .*t.json: No such file"),
        ({"a.txt": b"a"}, dict(path="a.txt"), "split 'train' is empty"),
        ({"a.txt": b"a"}, dict(path="a.txt", tokenizer="word", validation_fraction=0.0), "has 1 tokens"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(tmp_path, files, flags, message):
    for name, content in files.items():
        write(tmp_path / name, content)
    with pytest.raises(InputError, match=message) as caught:
        Text(**flags).load(str(tmp_path))
    assert "\n" not in str(caught.value)
