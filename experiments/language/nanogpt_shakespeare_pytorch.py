"""The recipe of nanogpt_shakespeare.flags in PyTorch, to hold jaxdl's numbers against.

    python experiments/language/nanogpt_shakespeare_pytorch.py --data_dir=DIR --seed=0

It needs PyTorch, and nothing of jaxdl. DIR holds tiny_shakespeare/input.txt. Training draws windows at random, as
nanoGPT does; it prints the loss over the whole of the last tenth of the text, in windows one after the other, and the
seconds of training.
"""

import argparse
import math
import pathlib
import time

import torch
import torch.nn.functional as F
from torch import nn

NUM_LAYERS, NUM_HEADS, WIDTH, LENGTH = 4, 4, 128, 64
STEPS, BATCH_SIZE, WARMUP_STEPS = 2000, 12, 100
WEIGHT_DECAY = 0.1  # of matrices and embeddings
CLIP_NORM = 1.0


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self):
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.LayerNorm(WIDTH, bias=False), nn.LayerNorm(WIDTH, bias=False)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.attention_output = nn.Linear(WIDTH, WIDTH, bias=False)
        self.hidden = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.mlp_output = nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x):
        heads = self.qkv(self.attention_norm(x)).unflatten(-1, (3, NUM_HEADS, WIDTH // NUM_HEADS))
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # each [B, heads, T, features]
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.attention_output(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp_output(F.gelu(self.hidden(self.mlp_norm(x))))


class GPT(nn.Module):
    """Tokens [B, T] to logits [B, T, V], whose weights are those of the token embedding."""

    def __init__(self, vocab_size: int):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab_size, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(NUM_LAYERS)))
        self.norm = nn.LayerNorm(WIDTH, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                ends_branch = name.endswith("_output.weight")
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * NUM_LAYERS) if ends_branch else 0.02)

    def forward(self, tokens):
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
        return self.norm(self.blocks(x)) @ self.tokens.weight.T


def rate(step: int, peak: float) -> float:
    """Linear warm-up, then half a cosine to a tenth of the peak."""
    if step < WARMUP_STEPS:
        return peak * step / WARMUP_STEPS
    progress = (step - WARMUP_STEPS) / (STEPS - WARMUP_STEPS)
    return peak * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress)))


@torch.no_grad()
def evaluate(model: GPT, tokens: torch.Tensor) -> float:
    """Nats a token, over every token but the first."""
    total = 0.0
    for start in range(0, len(tokens) - 1, LENGTH):
        window = tokens[start : start + LENGTH + 1]
        total += F.cross_entropy(model(window[None, :-1])[0], window[1:], reduction="sum").item()
    return total / (len(tokens) - 1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    text = (pathlib.Path(arguments.data_dir) / "tiny_shakespeare" / "input.txt").read_text()
    ids = {character: number for number, character in enumerate(sorted(set(text)))}
    tokens = torch.tensor([ids[character] for character in text])
    train, validation = tokens[: int(0.9 * len(tokens))], tokens[int(0.9 * len(tokens)) :]
    model = GPT(len(ids))
    matrices = [parameter for parameter in model.parameters() if parameter.dim() == 2]
    scales = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": scales, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=arguments.learning_rate, betas=(0.9, 0.99))
    began = time.perf_counter()
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, arguments.learning_rate)
        starts = torch.randint(len(train) - LENGTH, (BATCH_SIZE, 1))
        windows = train[starts + torch.arange(LENGTH + 1)]
        loss = F.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
    seconds = time.perf_counter() - began
    loss = evaluate(model, validation)
    print(f"validation loss {loss:.4f}  {seconds:.1f} s  {STEPS / seconds:.2f} steps/s")


if __name__ == "__main__":
    main()
