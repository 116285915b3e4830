"""A WordPiece vocabulary of texts, in lower case, as a tokenizer.json that `--dataset.tokenizer` takes.

    python experiments/language/wordpiece_vocabulary.py --out=/tmp/wordpiece.json \\
        DIR/wikitext-2/train.txt DIR/sst2/train.tsv

So that a text has no unknown words, and the encoder that one text trains reads another. WordPiece is that of Devlin et
al. 2018, arXiv 1810.04805, section 3.2, as Hugging Face's `tokenizers` trains it.
"""

import argparse
import pathlib

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="+", help="UTF-8 texts; of a line with tabs what stands before the first")
    parser.add_argument("--size", type=int, default=10_000, help="tokens at most")
    parser.add_argument("--out", required=True, help="file to write")
    arguments = parser.parse_args()
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece()
    lines = (
        line.partition("\t")[0]
        for path in arguments.texts
        for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    )
    special = ["[UNK]", "[MASK]", "<unk>"]  # the last is a word of WikiText-2 itself
    tokenizer.train_from_iterator(
        lines, trainers.WordPieceTrainer(vocab_size=arguments.size, special_tokens=special, show_progress=False)
    )
    tokenizer.save(arguments.out)
    print(f"{tokenizer.get_vocab_size()} tokens in {arguments.out}")


if __name__ == "__main__":
    main()
