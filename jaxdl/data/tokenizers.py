"""Text to token ids and back: bytes, characters, words, or what a Hugging Face tokenizer file says.

>>> tokenizer = CharacterTokenizer.of("to be or not to be")
>>> tokenizer.encode("bee").tolist(), tokenizer.decode([1, 2])
([1, 2, 2], 'be')

A tokenizer may have an end-of-text token, which stands after each document and is no part of its text.
"""

import json
import pathlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from jaxdl.errors import InputError

UNKNOWN, END = "<unk>", "<eos>"
"""What a `WordTokenizer` calls a word that it does not know, and the end of a text."""

END_NAMES = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[SEP]")
"""What tokenizer files call the end of a text: GPT-2, Llama 3, Llama 2 and T5, Gemma, BERT."""


class Tokenizer(Protocol):
    """What all tokenizers have. Ids are 0 .. vocab_size - 1.

    Attributes:
      vocab_size: how many ids there are.
      end_of_text: the id that ends a document; None: there is none.
    """

    vocab_size: int
    end_of_text: int | None

    def encode(self, text: str) -> np.ndarray:
        """int32 [tokens]. Raises: InputError, when the text has what the vocabulary has not."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of these ids; the inverse of `encode`, but for what the vocabulary does not distinguish."""

    def to_json(self) -> str:
        """What makes this tokenizer again (`from_json`), and is equal for equal vocabularies alone."""


class ByteTokenizer:
    """The 256 bytes of UTF-8; `end_of_text` says whether byte 0, which no text has, ends a document."""

    vocab_size = 256

    def __init__(self, end_of_text: bool = False):
        self.end_of_text = 0 if end_of_text else None

    def encode(self, text: str) -> np.ndarray:
        """int32 [bytes]. Raises: InputError, where UTF-8 cannot hold the text."""
        return np.frombuffer(_utf8(text), np.uint8).astype(np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        """The text; bytes that are no UTF-8 become U+FFFD."""
        return bytes(int(token) for token in ids if token != self.end_of_text).decode(errors="replace")

    def to_json(self) -> str:
        return _json(kind="byte", end_of_text=self.end_of_text is not None)


class CharacterTokenizer:
    """One id a character (Unicode code point), in the order of the code points.

    Args:
      characters: all different, in that order.
      end_of_text: whether one more id, the last, ends a document.
    """

    def __init__(self, characters: str, end_of_text: bool = False):
        self.characters = characters
        self._code_points = _code_points(characters)
        self.end_of_text = len(characters) if end_of_text else None
        self.vocab_size = len(characters) + end_of_text

    @classmethod
    def of(cls, text: str, end_of_text: bool = False) -> "CharacterTokenizer":
        """The characters of the training text."""
        return cls("".join(sorted(set(text))), end_of_text)

    def encode(self, text: str) -> np.ndarray:
        """int32 [characters]. Raises: InputError for a character that is not in the vocabulary, with its place."""
        points = _code_points(text)
        ids = np.searchsorted(self._code_points, points).astype(np.int32)
        ids = np.minimum(ids, len(self._code_points) - 1)
        unknown = self._code_points[ids] != points
        if unknown.any():
            place = int(np.argmax(unknown))
            raise InputError(
                f"character {text[place]!r} (number {place}, from 0) is not in the vocabulary of the "
                f"{len(self.characters)} characters of the training text; a byte tokenizer has no unknown characters."
            )
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self.characters[int(token)] for token in ids if token != self.end_of_text)

    def to_json(self) -> str:
        return _json(kind="character", characters=self.characters, end_of_text=self.end_of_text is not None)


class WordTokenizer:
    """Words, as whitespace divides them; all whitespace is the same. Every other word is `<unk>`.

    Args:
      words: by id: `<unk>`, then `<eos>` where documents end with it, tokens for tasks to use, and then words.
      lowercase: whether a text is read in lower case.
    """

    def __init__(self, words: Iterable[str], lowercase: bool = False):
        self.words, self.lowercase = tuple(words), lowercase
        self._ids = {word: index for index, word in enumerate(self.words)}
        self.vocab_size = len(self.words)
        self.end_of_text = 1 if self.words[1:2] == (END,) else None

    @classmethod
    def of(
        cls,
        text: str,
        min_count: int = 1,
        max_size: int | None = None,
        end_of_text: bool = False,
        special_tokens: Sequence[str] = (),
        lowercase: bool = False,
    ) -> "WordTokenizer":
        """The words of the training text, by frequency; of equally frequent ones the lesser string goes first.

        Args:
          min_count: rarer words are left out.
          max_size: the vocabulary's size at most, everything included; None: any.
          end_of_text: whether there is an `<eos>`.
          special_tokens: tokens that have an id whether the text has them or not, such as [MASK].
          lowercase: whether texts are read in lower case, this one too.
        """
        special = [UNKNOWN, *([END] if end_of_text else []), *special_tokens]
        counts = Counter((text.lower() if lowercase else text).split())
        for word in special:
            counts.pop(word, None)
        words = sorted((word for word in counts if counts[word] >= min_count), key=lambda word: (-counts[word], word))
        return cls((special + words)[:max_size], lowercase)

    def token_id(self, token: str) -> int | None:
        """The id of a word; None where it is not in the vocabulary."""
        return self._ids.get(token)

    def encode(self, text: str) -> np.ndarray:
        """int32 [words]."""
        words = (text.lower() if self.lowercase else text).split()
        return np.fromiter((self._ids.get(word, 0) for word in words), np.int32, len(words))

    def decode(self, ids: Iterable[int]) -> str:
        """The words, with a space between two."""
        return " ".join(self.words[int(token)] for token in ids if token != self.end_of_text)

    def to_json(self) -> str:
        return _json(kind="word", words=self.words, lowercase=self.lowercase)


class FileTokenizer:
    """A tokenizer of Hugging Face's `tokenizers`, from its JSON: byte-pair encoding, WordPiece, Unigram.

    The end of a text is the special token that is called as one of `END_NAMES`.

    Args:
      content: the JSON text of the file.
      name: what to call it in messages.

    Raises:
      InputError: it is no such file.
    """

    def __init__(self, content: str, name: str = "the tokenizer's JSON"):
        from tokenizers import Tokenizer as HuggingFaceTokenizer  # 0.1 s that only its users should wait for

        try:
            self._tokenizer = HuggingFaceTokenizer.from_str(content)
        except Exception as error:  # the library raises plain Exception
            raise InputError(f"{name} is no tokenizer file of Hugging Face's `tokenizers`: {error}.") from None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        self._in_tokens = set().union(*vocabulary)
        self._known: set[str] = set()  # characters that are not lost
        self.vocab_size = 1 + max(vocabulary.values(), default=-1)
        self.end_of_text = next(filter(lambda found: found is not None, map(self.token_id, END_NAMES)), None)

    def token_id(self, token: str) -> int | None:
        """The id of a token by its name, such as "[MASK]"; None where there is none."""
        return self._tokenizer.token_to_id(token)

    def encode(self, text: str) -> np.ndarray:
        """int32 [tokens], without the special tokens that the file would put around a text.

        Raises:
          InputError: what the vocabulary has no token for, where it has none for the unknown either.
        """
        _utf8(text)
        try:
            found = self._tokenizer.encode(text, add_special_tokens=False)
        except Exception as error:  # the library raises plain Exception
            raise InputError(f"the tokenizer file has no token for a part of the text: {error}.") from None
        if getattr(self._tokenizer.model, "unk_token", "none") is None:  # byte-pair encoding leaves such text out
            self._check_nothing_is_lost(text)
        return np.array(found.ids, np.int32)

    def _check_nothing_is_lost(self, text: str) -> None:
        """Raises: InputError for a visible character that is no token by itself nor a part of one."""
        for character in sorted(set(text) - self._known):
            ids = self._tokenizer.encode(character, add_special_tokens=False).ids
            if not ids and character.isprintable() and not character.isspace() and character not in self._in_tokens:
                raise InputError(
                    f"character {character!r} (number {text.index(character)}, from 0) is not in the vocabulary of the "
                    "tokenizer file."
                )
            self._known.add(character)

    def decode(self, ids: Iterable[int]) -> str:
        """The text, without special tokens."""
        return self._tokenizer.decode([int(token) for token in ids])

    def to_json(self) -> str:
        return _json(kind="file", tokenizer=json.loads(self._tokenizer.to_str()))


def read_tokenizer(path: pathlib.Path) -> Tokenizer:
    """The tokenizer in a file: a Hugging Face tokenizer.json, or the vocabulary.json of a run.

    Raises:
      InputError: no such file, or another kind of file.
    """
    try:
        content = path.read_text(encoding="utf-8")
        found = json.loads(content)
    except OSError as error:
        raise InputError(f"tokenizer file {path}: {error.strerror}.") from None
    except ValueError:  # JSON and UTF-8 errors are both
        raise InputError(
            f"{path} is no JSON; a tokenizer file is a tokenizer.json, or a run's vocabulary.json."
        ) from None
    ours = isinstance(found, dict) and "kind" in found
    return from_json(content) if ours else FileTokenizer(content, str(path))


def from_json(text: str) -> Tokenizer:
    """The tokenizer that gave this `to_json`. Raises: InputError, when none did."""
    try:
        found: dict[str, Any] = json.loads(text)
        kind = found["kind"]
        if kind == "byte":
            return ByteTokenizer(found["end_of_text"])
        if kind == "character":
            return CharacterTokenizer(found["characters"], found["end_of_text"])
        if kind == "word":
            return WordTokenizer(found["words"], found["lowercase"])
        if kind == "file":
            return FileTokenizer(json.dumps(found["tokenizer"]))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"this is no vocabulary of a run: {error!r}.") from None
    raise InputError(f"this is no vocabulary of a run: its kind is {kind!r}.")


def difference(ours: str, theirs: str) -> str | None:
    """In a few words how one tokenizer (`to_json`) differs from another; None where they are equal.

    Args:
      ours: what the data has now.
      theirs: what the run was trained with.
    """
    if ours == theirs:
        return None
    mine, other = json.loads(ours), json.loads(theirs)
    if mine["kind"] != other["kind"]:
        return f"a {mine['kind']} tokenizer here, a {other['kind']} tokenizer there"
    for name in ("characters", "words"):
        if mine.get(name) != other.get(name):
            return _sequence_difference(mine[name], other[name], name)
    if mine["kind"] == "word":
        return f"words in lower case {'here' if mine['lowercase'] else 'there'} alone"
    if mine["kind"] == "file":
        sizes = [from_json(text).vocab_size for text in (ours, theirs)]
        return f"tokenizer files that differ, of {sizes[0]} tokens here and {sizes[1]} there"
    return f"{_end(mine)} here, {_end(other)} there"


def _sequence_difference(ours, theirs, name: str) -> str:
    known, wanted = set(ours), set(theirs)
    added = [token for token in ours if token not in wanted]
    missing = [token for token in theirs if token not in known]
    if not added and not missing:
        place = next(index for index, pair in enumerate(zip(ours, theirs)) if pair[0] != pair[1])
        return f"the same {len(ours)} {name} in another order, first at id {place}"
    told = [
        f"{len(found)} {where} alone, such as {found[0]!r}"
        for found, where in ((added, "here"), (missing, "there"))
        if found
    ]
    return f"{len(ours)} {name} here, {len(theirs)} there: {', '.join(told)}"


def _end(found: Mapping[str, Any]) -> str:
    return "an end-of-text token" if found["end_of_text"] else "no end-of-text token"


def _utf8(text: str) -> bytes:
    """Raises: InputError for half a surrogate pair, which a command line of other bytes becomes."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"character {text[error.start]!r} (number {error.start}, from 0) is none that UTF-8 can hold."
        ) from None


def _code_points(text: str) -> np.ndarray:
    """uint32 [characters]."""
    return np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), np.uint32)


def _json(**values) -> str:
    return json.dumps(values, sort_keys=True)
