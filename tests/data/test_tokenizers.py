"""Tokenizers give the text back, are what their JSON says, and name what they do not know."""

import doctest
import json

import numpy as np
import pytest

from jaxdl.data import tokenizers
from jaxdl.data.tokenizers import (
    ByteTokenizer,
    CharacterTokenizer,
    FileTokenizer,
    WordTokenizer,
    difference,
    from_json,
    read_tokenizer,
)
from jaxdl.errors import InputError

TEXT = "To be, or not to be:\nthat is the question — naïve 🙂, is it not?"


def byte_pairs() -> FileTokenizer:
    """A byte-level byte-pair encoding trained on a line, as the library that will read it writes it."""
    import tokenizers as library

    made = library.Tokenizer(library.models.BPE())
    made.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = library.decoders.ByteLevel()
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    trainer = library.trainers.BpeTrainer(
        vocab_size=280, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator([TEXT] * 3, trainer)
    return FileTokenizer(made.to_str())


MAKERS = {
    "byte": ByteTokenizer,
    "byte with an end": lambda: ByteTokenizer(end_of_text=True),
    "character": lambda: CharacterTokenizer.of(TEXT),
    "character with an end": lambda: CharacterTokenizer.of(TEXT, end_of_text=True),
    "file": byte_pairs,
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_text_comes_back(make):
    tokenizer = make()
    ids = tokenizer.encode(TEXT)
    assert ids.dtype == np.int32 and ids.ndim == 1
    assert ids.min() >= 0 and ids.max() < tokenizer.vocab_size
    assert tokenizer.decode(ids) == TEXT
    again = from_json(tokenizer.to_json())
    np.testing.assert_array_equal(again.encode(TEXT), ids)
    assert again.to_json() == tokenizer.to_json()
    assert (again.vocab_size, again.end_of_text) == (tokenizer.vocab_size, tokenizer.end_of_text)
    assert len(tokenizer.encode("")) == 0 and tokenizer.decode([]) == ""
    if tokenizer.end_of_text is not None:
        assert tokenizer.end_of_text not in ids
        assert tokenizer.decode([*ids, tokenizer.end_of_text]) == TEXT


def test_words_by_frequency():
    text = "b a b c a b\n d\td"
    tokenizer = WordTokenizer.of(text)
    assert tokenizer.words == ("<unk>", "b", "a", "d", "c")
    assert tokenizer.encode("c  b e").tolist() == [4, 1, 0] and tokenizer.decode([4, 1, 0]) == "c b <unk>"
    assert WordTokenizer.of(text, min_count=2).words == ("<unk>", "b", "a", "d")
    assert WordTokenizer.of(text, max_size=3).words == ("<unk>", "b", "a")
    ended = WordTokenizer.of(text + " <unk> <eos>", end_of_text=True, special_tokens=("[MASK]",))
    assert ended.words == ("<unk>", "<eos>", "[MASK]", "b", "a", "d", "c")
    assert ended.end_of_text == 1 and ended.token_id("[MASK]") == 2 and ended.token_id("e") is None
    again = from_json(ended.to_json())
    assert again.words == ended.words and again.end_of_text == 1


def test_bytes_are_those_of_utf8():
    assert ByteTokenizer().encode("aé").tolist() == [97, 0xC3, 0xA9]
    assert ByteTokenizer().decode([0xC3]) == "\ufffd"


def test_an_unknown_character_is_named_with_its_place():
    with pytest.raises(InputError, match=r"character 'é' \(number 3, from 0\) is not in the vocabulary"):
        CharacterTokenizer.of("abc").encode("abcéè")


def from_model(kind, *arguments, **options) -> FileTokenizer:
    """A file of so small a vocabulary that it has no token for what is unknown."""
    import tokenizers as library

    made = library.Tokenizer(getattr(library.models, kind)(*arguments, **options))
    made.pre_tokenizer = library.pre_tokenizers.Whitespace()
    return FileTokenizer(made.to_str())


@pytest.mark.parametrize(
    "tokenizer, message",
    [
        (from_model("BPE", {"a": 0, "b": 1}, []), r"character 'é' \(number 3, from 0\) is not in the vocabulary"),
        (from_model("WordPiece", {"a": 0}, unk_token="[UNK]"), r"no token for a part of the text: .*\[UNK\]"),
        (from_model("Unigram", [("a", -1.0)]), "no token for a part of the text: .*unknown token"),
    ],
    ids=["BPE", "WordPiece", "Unigram"],
)
def test_what_a_file_has_no_token_for_is_refused_and_not_left_out(tokenizer, message):
    assert tokenizer.encode("a a").tolist() == [0, 0]
    with pytest.raises(InputError, match=message):
        tokenizer.encode("a aéb")


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_half_a_surrogate_pair_is_no_text(make):
    with pytest.raises(InputError, match=r"character '\\udcff' \(number 2, from 0\) is"):
        make().encode("no\udcff")


def test_the_end_of_text_of_a_file_is_its_special_token():
    tokenizer = byte_pairs()
    assert tokenizer.end_of_text == tokenizer.token_id("<|endoftext|>") == 0
    assert len(tokenizer.encode("to be")) < 5  # pairs were merged


def test_a_file_is_hugging_faces_or_a_runs(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(json.loads(byte_pairs().to_json())["tokenizer"]))
    assert read_tokenizer(path).to_json() == byte_pairs().to_json()
    path.write_text(CharacterTokenizer("abc").to_json())
    assert read_tokenizer(path).characters == "abc"


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "No such file"),
        (b"\xff\xfe", "is no JSON"),
        (b"{}", "is no tokenizer file of Hugging Face's"),
        (b'{"kind": "rune"}', "its kind is 'rune'"),
        (b'{"kind": "word"}', "no vocabulary of a run"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_tokenizer(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "ours, theirs, told",
    [
        (ByteTokenizer(), ByteTokenizer(), None),
        (ByteTokenizer(), CharacterTokenizer("ab"), "a byte tokenizer here, a character tokenizer there"),
        (ByteTokenizer(True), ByteTokenizer(), "an end-of-text token here, no end-of-text token there"),
        (CharacterTokenizer("abd"), CharacterTokenizer("ab"), "3 characters here, 2 there: 1 here alone, such as 'd'"),
        (WordTokenizer(["<unk>", "a", "b"]), WordTokenizer(["<unk>", "b", "a"]), "another order, first at id 1"),
        (
            WordTokenizer(["<unk>"]),
            WordTokenizer(["<unk>"], lowercase=True),
            "words in lower case there alone",
        ),
    ],
)
def test_how_vocabularies_differ(ours, theirs, told):
    found = difference(ours.to_json(), theirs.to_json())
    assert found is None if told is None else told in found


def test_examples():
    results = doctest.testmod(tokenizers)
    assert results.attempted > 0 and results.failed == 0
