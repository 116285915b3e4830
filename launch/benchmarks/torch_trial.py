"""One trial as one writes it by hand in PyTorch: python torch_trial.py DATA STEPS LEARNING_RATE SEED

Trains an MLP 64-64 by Adam with a cosine schedule, in one thread, and prints loss and accuracy on the test split. DATA
is an .npz of the splits, standardised. The file needs torch and NumPy and nothing else, and is run by itself.
"""

import json
import math
import sys

import numpy as np
import torch
from torch import nn

BATCH_SIZE = 64


def train(path: str, steps: int, learning_rate: float, seed: int) -> dict[str, float]:
    """Trains one trial; gives loss and accuracy on the test split after the last step."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    with np.load(path) as file:
        data = {name: torch.from_numpy(values) for name, values in file.items()}
    images, labels = data["train_inputs"].flatten(1), data["train_labels"].long()

    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for rows in batches(len(labels), seed, steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
        optimizer.step()
        schedule.step()

    with torch.no_grad():
        logits, labels = model(data["test_inputs"].flatten(1)), data["test_labels"].long()
    accuracy = (logits.argmax(1) == labels).float().mean()
    return {"loss": nn.functional.cross_entropy(logits, labels).item(), "accuracy": accuracy.item()}


def batches(examples: int, seed: int, steps: int) -> torch.Tensor:
    """The rows of each step: epochs without a gap, each a new permutation. int [steps, BATCH_SIZE]."""
    epochs = math.ceil(steps * BATCH_SIZE / examples)
    order = np.concatenate([np.random.default_rng((seed, epoch)).permutation(examples) for epoch in range(epochs)])
    return torch.from_numpy(order[: steps * BATCH_SIZE].reshape(steps, BATCH_SIZE))


if __name__ == "__main__":
    print(json.dumps(train(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))))
