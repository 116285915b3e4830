"""gensim's skip-gram and CBOW with the settings of skip_gram_wikitext2.flags and cbow_wikitext2.flags: the yardstick.

    pip install gensim==4.4.0
    python experiments/embeddings/wikitext2_gensim.py --data_dir=DIR --sg=1 --seed=0

DIR holds wikitext-2/train.txt and word_similarity/. `<unk>`, which stands for no word, is left out of the text, as
jaxdl's reader does. One worker thread, because the runs that this is compared with have one core.
"""

import argparse
import pathlib
import time

from gensim.models import Word2Vec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=pathlib.Path, required=True)
    parser.add_argument("--sg", type=int, choices=(0, 1), default=1, help="1 is skip-gram, 0 is CBOW")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=5)
    flags = parser.parse_args()

    text = (flags.data_dir / "wikitext-2" / "train.txt").read_text(encoding="utf-8")
    lines = [[word for word in line.split() if word != "<unk>"] for line in text.split("\n")]
    model = Word2Vec(
        vector_size=100, window=5, negative=5, min_count=5, sample=1e-3, sg=flags.sg, seed=flags.seed + 1, workers=1
    )
    model.build_vocab(lines)
    began, cpu_began = time.monotonic(), time.process_time()
    words, _ = model.train(lines, total_examples=len(lines), epochs=flags.epochs)
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu_began

    folder = flags.data_dir / "word_similarity"
    scores = [
        model.wv.evaluate_word_pairs(str(folder / name))[1].statistic for name in ("wordsim353.tsv", "simlex999.txt")
    ]
    accuracy, _ = model.wv.evaluate_word_analogies(str(folder / "questions-words.txt"))
    total = sum(map(len, lines)) * flags.epochs
    print(
        f"{'skip-gram' if flags.sg else 'CBOW'}, seed {flags.seed}, {len(model.wv)} words: "
        f"WordSim-353 {scores[0]:.4f}, SimLex-999 {scores[1]:.4f}, analogies {accuracy:.4f}; "
        f"{total:,} words of text, {words:,} of them trained on, in {seconds:.1f} s, {cpu:.1f} s of processor time: "
        f"{total / cpu:,.0f} a second of it",
        flush=True,
    )


if __name__ == "__main__":
    main()
