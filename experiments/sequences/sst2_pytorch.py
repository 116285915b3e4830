"""The recipes of lstm_sst2.flags and gru_sst2.flags in PyTorch, to hold jaxdl's numbers against.

    python experiments/sequences/sst2_pytorch.py --data_dir=DIR --cell=lstm --seed=0

It needs PyTorch and NumPy, and nothing of jaxdl. DIR/sst2 holds train.tsv, dev.tsv and test.tsv, lines of text, tab and
label. The network is a bidirectional layer over packed sequences and the maximum over time. It prints the seconds of
training, and the accuracy on the test sentences after the epoch that is best on dev.tsv.
"""

import argparse
import math
import pathlib
import time
from collections import Counter

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

EPOCHS = 4
BATCH_SIZE = 64
LEARNING_RATE = 0.002
WARMUP_FRACTION = 0.05
CLIP_NORM = 1.0
SIZE = 100  # of the embedding, and of the hidden layer in each direction
DROPOUT = 0.5


class Classifier(nn.Module):
    """Token ids [B, T] and lengths [B] to the log odds of class 1, [B]."""

    def __init__(self, vocab_size: int, cell: str):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, SIZE)
        self.recurrent = {"lstm": nn.LSTM, "gru": nn.GRU}[cell](SIZE, SIZE, batch_first=True, bidirectional=True)
        self.output = nn.Linear(2 * SIZE, 1)
        # As Flax begins: embeddings normal with variance 1 / SIZE; dense layers normal with variance 1 / fan_in, cut at
        # two standard deviations and rescaled, and biases zero.
        nn.init.normal_(self.embedding.weight, std=1 / math.sqrt(SIZE))
        std = 1 / math.sqrt(2 * SIZE) / 0.87962566103423978
        nn.init.trunc_normal_(self.output.weight, std=std, a=-2 * std, b=2 * std)
        nn.init.zeros_(self.output.bias)

    def forward(self, tokens, lengths):
        x = F.dropout(self.embedding(tokens), DROPOUT, self.training)
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        x, _ = pad_packed_sequence(self.recurrent(packed)[0], batch_first=True, padding_value=-math.inf)
        return self.output(F.dropout(x.amax(dim=1), DROPOUT, self.training))[:, 0]


def read(path: pathlib.Path) -> tuple[list[list[str]], torch.Tensor]:
    """The words of each line, and labels float32 [N]."""
    lines = [line.rsplit("\t", 1) for line in path.read_text(encoding="utf-8").splitlines() if line]
    return [text.split() for text, _ in lines], torch.tensor([float(label) for _, label in lines])


def batch(texts: list[torch.Tensor], rows) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded token ids [B, T] and lengths [B]."""
    chosen = [texts[row] for row in rows]
    return pad_sequence(chosen, batch_first=True), torch.tensor([len(text) for text in chosen])


def schedule(step: int, steps: int) -> float:
    """The multiple of the peak learning rate: a linear warm-up, then half a cosine to 0."""
    warmup = WARMUP_FRACTION * steps
    if step < warmup:
        return step / warmup
    return (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


@torch.no_grad()
def evaluate(model: Classifier, texts: list[torch.Tensor], labels: torch.Tensor) -> tuple[float, float]:
    """Accuracy, and minus the cross-entropy, so that of two pairs the greater is the better."""
    model.eval()
    logits = torch.cat([model(*batch(texts, rows)) for rows in torch.arange(len(texts)).split(200)])
    model.train()
    accuracy = ((logits > 0) == (labels > 0.5)).float().mean().item()
    return accuracy, -F.binary_cross_entropy_with_logits(logits, labels).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=pathlib.Path, required=True)
    parser.add_argument("--cell", choices=["lstm", "gru"], default="lstm")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    flags = parser.parse_args()
    torch.manual_seed(flags.seed)

    splits = {name: read(flags.data_dir / "sst2" / f"{name}.tsv") for name in ("train", "dev", "test")}
    counts = Counter(word for text in splits["train"][0] for word in text)
    ids = {word: index + 1 for index, word in enumerate(sorted(counts, key=lambda word: (-counts[word], word)))}
    encoded = {
        name: ([torch.tensor([ids.get(word, 0) for word in text]) for text in texts], labels)
        for name, (texts, labels) in splits.items()
    }
    texts, labels = encoded["train"]

    model = Classifier(1 + len(ids), flags.cell)
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    steps = flags.epochs * len(texts) // BATCH_SIZE
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(step, steps))
    best, test, seconds = (-math.inf, -math.inf), None, 0.0
    order = torch.cat([torch.randperm(len(texts)) for _ in range(flags.epochs)])
    per_epoch = math.ceil(len(texts) / BATCH_SIZE)
    began = time.monotonic()
    for step, rows in enumerate(order.split(BATCH_SIZE)[:steps], start=1):
        loss = F.binary_cross_entropy_with_logits(model(*batch(texts, rows)), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        rate.step()
        if step % per_epoch == 0 or step == steps:
            seconds += time.monotonic() - began
            found = evaluate(model, *encoded["dev"])
            if found > best:
                best, test = found, evaluate(model, *encoded["test"])
            print(f"step {step} of {steps}: loss {loss.item():.3f}, dev accuracy {found[0]:.4f}", flush=True)
            began = time.monotonic()
    print(f"seed {flags.seed}: test accuracy {test[0]:.4f} after {steps} steps in {seconds:.0f} s")


if __name__ == "__main__":
    main()
