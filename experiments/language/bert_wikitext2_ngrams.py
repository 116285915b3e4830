"""What unigrams and bigrams know of the very tokens that the evaluation of a masked language model hides.

    python experiments/language/bert_wikitext2_ngrams.py --workdir=/tmp/bert

prints the mean loss, in nats, of each held-out split. Bigrams see the true neighbours; the model sees some of them
hidden, and all of the window besides.
"""

import argparse
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import experiment
from jaxdl.analysis.ngrams import bigram_losses, two_sided_bigram_losses, unigram_losses
from jaxdl.data.pipeline import eval_batches


def hidden_places(task, source) -> np.ndarray:
    """The places in the stream of tokens that an evaluation asks for: int64 [P]."""
    places = []
    for batch in eval_batches(source, 256):
        masked = jax.device_get(task.hide_for_evaluation({name: jnp.asarray(value) for name, value in batch.items()}))
        counted = (masked.weight > 0) & (batch["weight"][:, None] > 0)
        places.append((batch["index"][:, None] * source.length + masked.positions)[counted])
    return np.concatenate(places)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="run directory of a masked language model of windows of text")
    workdir = parser.parse_args().workdir
    settings = experiment.parse([f"--flagfile={pathlib.Path(workdir) / 'flags.txt'}"])
    program = experiment.build(settings, check=False)
    size = program.data.tokenizer.vocab_size
    train = program.data.splits["train"].tokens
    for split in ("validation", "test"):
        source = program.data.splits[split]
        places = hidden_places(program.task, source)
        inner = places[(places > 0) & (places < len(source.tokens) - 1)]
        means = {
            "unigram": unigram_losses(train, source.tokens, size)[places].mean(),
            "bigram": bigram_losses(train, source.tokens, size)[places].mean(),
            "bigrams from both sides": two_sided_bigram_losses(train, source.tokens, size, inner).mean(),
        }
        told = ", ".join(f"{name} {mean:.3f}" for name, mean in means.items())
        print(f"{split}, {len(places)} hidden tokens: {told}")


if __name__ == "__main__":
    main()
