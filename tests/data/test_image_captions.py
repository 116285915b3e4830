"""Images with captions: what an example is, splits, templates, and each fault in a line."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from jaxdl.data.image_captions import IdxCaptions, ImageCaptions, ImageFolderCaptions
from jaxdl.data.pipeline import eval_batches
from jaxdl.data.sources import read
from jaxdl.errors import InputError
from tests.data_paths import data_path

TABLE = "image,caption\na.png,A dog runs\nb.png,a cat\na.png,the dog\nc.png,two dogs\nd.png,a bird sits here\n"


def folder(path, table=TABLE, sizes=((9, 5), (4, 4), (8, 12), (3, 3)), modes=("RGB", "L", "RGBA", "P")):
    (path / "images").mkdir()
    for name, size, mode in zip("abcd", sizes, modes):
        Image.new(mode, size, 7).save(path / "images" / f"{name}.png")
    (path / "captions.csv").write_text(table)
    return path


def dataset(**fields):
    flags = {"image_size": 6, "test_fraction": 0.25, "validation_fraction": 0.0, "split_kind": "ordered"}
    return ImageCaptions(path="captions.csv", **{**flags, **fields})


def test_images_of_mixed_sizes_and_channels_with_all_their_captions(tmp_path):
    data = dataset().load(str(folder(tmp_path)))
    assert {name: len(source) for name, source in data.splits.items()} == {"train": 3, "test": 1}
    batch = read(data.splits["train"], np.arange(3))
    assert (batch["inputs"].shape, batch["inputs"].dtype) == ((3, 6, 6, 3), np.uint8)
    assert batch["captions"].shape == (3, 2, 5)
    np.testing.assert_array_equal(batch["caption_lengths"], [[4, 3], [3, 0], [3, 0]])
    captions = [
        [data.tokenizer.decode(row[: length - 1]) for row, length in zip(rows, lengths) if length]
        for rows, lengths in zip(batch["captions"], batch["caption_lengths"])
    ]
    assert captions == [["a dog runs", "the dog"], ["a cat"], ["two dogs"]]
    ends = batch["captions"][batch["caption_lengths"] > 0][np.arange(4), [3, 2, 2, 2]]
    assert (ends == data.tokenizer.end_of_text).all()
    test = data.splits["test"][0]
    assert data.tokenizer.decode(test["captions"][0][:4]) == "a <unk> <unk> <unk>"  # words of the training split alone


def test_captions_are_cut_with_their_end(tmp_path):
    data = dataset(max_length=3).load(str(folder(tmp_path)))
    first = data.splits["train"][0]
    assert first["caption_lengths"].tolist() == [3, 3]
    assert (
        data.tokenizer.decode(first["captions"][0]) == "a dog" and first["captions"][0, 2] == data.tokenizer.end_of_text
    )


def test_what_is_too_large_for_memory_is_read_when_it_is_asked_for(tmp_path):
    folder(tmp_path)
    held, lazy = (dataset(memory_gib=limit).load(str(tmp_path)).splits["train"] for limit in (1, 0))
    assert hasattr(held, "arrays") and not hasattr(lazy, "arrays")
    for ours, theirs in zip(*(next(iter(eval_batches(source, 2))).items() for source in (held, lazy))):
        np.testing.assert_array_equal(ours[1], theirs[1])


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("image,caption\na.png,\n", r"line 2: the image 'a.png' has no caption; every line must be a pair"),
        ("image,caption\na.png,a dog\nb.png\n", r"line 3: the image 'b.png' has no caption"),
        ("image,caption\n,a dog\n", r"line 2: the caption 'a dog' has no image"),
        ("image,caption\na.png,a dog\ne.png,a cat\n", r"line 3: there is no image .*images/e.png"),
        ("file,caption\na.png,a dog\n", r"no column 'image', but file, caption: --dataset.image_column"),
        ("image,caption\n", "has no lines of image and caption"),
        ("image,caption\na.png,a dog, a cat\n", "line 2 has more values than the header; a caption with commas"),
        ('image,caption\na.png,"a dog\nb.png,a cat\n', "line 2: unexpected end of data; a value with commas"),
        ('image,caption\na.png,"a "big" dog"\n', "line 2: ',' expected after '\"'; a value with commas"),
    ],
)
def test_a_missing_half_is_told_with_its_line(table, told, tmp_path):
    with pytest.raises(InputError, match=told):
        dataset(test_fraction=0.0).load(str(folder(tmp_path, table)))


def test_a_caption_may_have_commas_quotes_and_any_space(tmp_path):
    """Lines end where CSV ends them, and not at the other characters that end a line of Unicode."""
    table = 'image,caption\r\na.png,"a ""big"" dog, running"\r\nb.png,a cat\u2028on a mat\r\n'
    found = dataset()._read(folder(tmp_path, table) / "captions.csv")
    assert [[caption.text for caption in of_image] for of_image in found.values()] == [
        ['a "big" dog, running'],
        ["a cat\u2028on a mat"],
    ]


def test_a_damaged_image_and_a_tokenizer_without_an_end(tmp_path):
    (folder(tmp_path) / "images" / "b.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="b.png cannot be decoded"):
        dataset().load(str(tmp_path))


def labelled(path):
    for name in ("cat", "dog"):
        (path / name).mkdir()
        for number in range(4):
            Image.new("RGB", (8, 8), 20 * number).save(path / name / f"{number}.png")
    return ImageFolderCaptions(path=str(path), templates=("a photo of a {}", "one {}"), split_kind="random")


def test_labelled_images_get_the_sentences_of_their_class(tmp_path):
    data = labelled(tmp_path).load()
    batch = read(data.splits["train"], np.arange(len(data.splits["train"])))
    for label, captions, lengths in zip(batch["labels"], batch["captions"], batch["caption_lengths"]):
        decoded = [data.tokenizer.decode(row[: length - 1]) for row, length in zip(captions, lengths)]
        assert decoded == [f"a photo of a {data.class_names[label]}", f"one {data.class_names[label]}"]
    one, row = data.splits["train"][1], {name: values[1] for name, values in batch.items()}
    for name in row:
        np.testing.assert_array_equal(one[name], row[name])


@pytest.mark.parametrize("templates", [("a photo",), (), ("{} and {}",)])
def test_a_template_has_one_place_for_the_class(templates, tmp_path):
    with pytest.raises(InputError, match="a template has {} once"):
        dataclasses.replace(labelled(tmp_path), templates=templates).load()


def test_mnist_with_sentences():
    names = tuple("zero one two three four five six seven eight nine".split())
    data = IdxCaptions(path="mnist", class_names=names, templates=("the digit {}",)).load(
        str(data_path("mnist").parent)
    )
    example = data.splits["test"][0]
    assert data.tokenizer.decode(example["captions"][0][:-1]) == f"the digit {names[example['labels']]}"
    assert example["inputs"].shape == (28, 28, 1)
