"""Tables of text and label: padded tokens with their lengths, and wrong lines by their numbers."""

import numpy as np
import pytest

from jaxdl.data.labelled_text import LabelledText
from jaxdl.errors import InputError
from tests.data_paths import data_path

TRAIN = 'good film\tpos\nbad "film\tneg\n\ngood good good\tpos\n'


def write(folder, train=TRAIN, held="good bad new\tneg\n"):
    (folder / "train.tsv").write_text(train)
    (folder / "held.tsv").write_text(held)
    return dict(path="train.tsv", validation_path="held.tsv", test_path="held.tsv")


def test_padded_tokens_and_lengths(tmp_path):
    data = LabelledText(**write(tmp_path)).load(str(tmp_path))
    assert data.class_names == ("neg", "pos") and data.num_classes == 2
    assert data.tokenizer.words == ("<unk>", "good", '"film', "bad", "film")
    arrays = data.splits["train"].arrays
    np.testing.assert_array_equal(arrays["inputs"], [[1, 4, 0], [3, 2, 0], [1, 1, 1]])
    assert arrays["lengths"].tolist() == [2, 2, 3] and arrays["labels"].tolist() == [1, 0, 1]
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.int32)}
    np.testing.assert_array_equal(data.splits["test"].arrays["inputs"], [[1, 3, 0]])  # "new" is unknown


def test_texts_are_cut_and_tokenizers_chosen(tmp_path):
    flags = write(tmp_path)
    arrays = LabelledText(**flags, max_length=2).load(str(tmp_path)).splits["train"].arrays
    assert arrays["inputs"].shape == (3, 2) and arrays["lengths"].max() == 2
    data = LabelledText(**flags, tokenizer="byte").load(str(tmp_path))
    assert data.splits["train"].arrays["lengths"].tolist() == [9, 9, 14]
    assert data.tokenizer.vocab_size == 256 and data.tokenizer.end_of_text is None


def test_csv_with_a_header_and_one_file(tmp_path):
    (tmp_path / "all.csv").write_text("label,text\n" + "".join(f'{n % 2},"a, {n}"\n' for n in range(20)))
    flags = dict(path="all.csv", delimiter=",", header=True, text_column=1, label_column=0)
    data = LabelledText(**flags).load(str(tmp_path))
    assert {name: len(source) for name, source in data.splits.items()} == {"train": 14, "validation": 2, "test": 4}
    assert data.tokenizer.words[1] == "a,"


def test_label_noise_changes_training_labels_alone(tmp_path):
    (tmp_path / "all.tsv").write_text("".join(f"a {n}\t{n % 2}\n" for n in range(100)))
    clean, noisy = (LabelledText(path="all.tsv", label_noise=rate).load(str(tmp_path)) for rate in (0.0, 0.2))
    for name, source in noisy.splits.items():
        one, other = source.arrays, clean.splits[name].arrays
        np.testing.assert_array_equal(one["inputs"], other["inputs"])
        wrong = (one["labels"] != other["labels"]).sum()
        assert 8 <= wrong <= 20 if name == "train" else wrong == 0


def test_sst2():
    files = dict(path="train.tsv", validation_path="dev.tsv", test_path="test.tsv")
    data = LabelledText(**files).load(str(data_path("sst2")))
    assert [len(source) for source in data.splits.values()] == [6920, 872, 1821]
    assert data.class_names == ("0", "1") and data.splits["test"].arrays["labels"].sum() == 909


@pytest.mark.parametrize(
    "content, message",
    [
        (dict(train="good\tpos\n \tneg\n"), r"train.tsv, line 2: the text has no token"),
        (dict(train="good\tpos\nbad\n"), r"train.tsv, line 2: 1 values, but column 1"),
        (
            dict(held="good\tmaybe\n"),
            r"held.tsv, line 1: label 'maybe' is none of the training file's \['neg', 'pos'\]",
        ),
        (dict(train="\n\n"), "no lines of text and label"),
    ],
)
def test_wrong_lines_are_named(tmp_path, content, message):
    with pytest.raises(InputError, match=message) as caught:
        LabelledText(**write(tmp_path, **content)).load(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_unknown_characters_and_delimiters(tmp_path):
    flags = write(tmp_path, held="x\tpos\n")
    with pytest.raises(InputError, match="held.tsv, line 1: character 'x'"):
        LabelledText(**flags, tokenizer="character").load(str(tmp_path))
    with pytest.raises(InputError, match="no table with the delimiter ';;'"):
        LabelledText(**flags, delimiter=";;").load(str(tmp_path))
