"""The recipe of resnet20_cifar10.flags in PyTorch, to hold jaxdl's numbers against.

    python experiments/vision/resnet20_cifar10_pytorch.py --data_dir=DIR --seed=0

It needs PyTorch and NumPy, and nothing of jaxdl. DIR holds cifar-10-batches-bin/data_batch_1.bin and test_batch.bin.
The network is that of He et al. 2015, arXiv:1512.03385, section 4.2, with identity shortcuts (option A). It prints
the seconds of training and the accuracy on the 10,000 test images.
"""

import argparse
import math
import pathlib
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

EPOCHS = 5
BATCH_SIZE = 100
LEARNING_RATE = 0.1
MOMENTUM = 0.9
WEIGHT_DECAY = 1e-4  # of convolutions and of the last layer's weights alone
WARMUP_FRACTION = 0.2
PADDING = 4


class Block(nn.Module):
    """relu(shortcut(x) + branch(x)); where the shape changes, every second pixel and zeros for the new channels."""

    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        self.conv0 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.norm0 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.stride, self.new_channels = stride, channels - channels_in

    def forward(self, x):
        branch = F.relu(self.norm0(self.conv0(x)))
        branch = self.norm1(self.conv1(branch))
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))
        return F.relu(shortcut + branch)


class ResNet20(nn.Module):
    """Images [B, 3, 32, 32] to logits [B, 10]."""

    def __init__(self):
        super().__init__()
        blocks, channels_in = [], 16
        for channels, stride in ((16, 1), (32, 2), (64, 2)):
            for index in range(3):
                blocks.append(Block(channels_in, channels, stride if index == 0 else 1))
                channels_in = channels
        self.stem, self.stem_norm = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.blocks, self.output = nn.Sequential(*blocks), nn.Linear(64, 10)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        # Flax's dense layer starts from a normal of variance 1 / fan_in cut at two standard deviations, rescaled.
        std = 1 / math.sqrt(64) / 0.87962566103423978
        nn.init.trunc_normal_(self.output.weight, std=std, a=-2 * std, b=2 * std)
        nn.init.zeros_(self.output.bias)

    def forward(self, x):
        x = F.relu(self.stem_norm(self.stem(x)))
        return self.output(self.blocks(x).mean(dim=(2, 3)))


def read(path: pathlib.Path) -> tuple[torch.Tensor, torch.Tensor]:
    """A binary batch: images float32 [N, 3, 32, 32] in [0, 1], labels int64 [N]."""
    records = torch.from_numpy(np.fromfile(path, np.uint8).reshape(-1, 1 + 3 * 32 * 32))
    return records[:, 1:].reshape(-1, 3, 32, 32).float() / 255, records[:, 0].long()


def augment(images: torch.Tensor) -> torch.Tensor:
    """Each image mirrored with probability 1/2, and shifted by up to `PADDING` pixels each way."""
    count, _, size, _ = images.shape
    images = torch.where(torch.rand(count, 1, 1, 1) < 0.5, images.flip(3), images)
    padded = F.pad(images, (PADDING,) * 4)
    rows = torch.randint(2 * PADDING + 1, (count, 1)) + torch.arange(size)
    columns = torch.randint(2 * PADDING + 1, (count, 1)) + torch.arange(size)
    examples = torch.arange(count)[:, None, None]
    return padded[examples, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def schedule(step: int, steps: int) -> float:
    """The multiple of the peak learning rate: a linear warm-up, then half a cosine to 0."""
    warmup = WARMUP_FRACTION * steps
    if step < warmup:
        return step / warmup
    return (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--max_steps", type=int, help="stop early, to measure the speed")
    flags = parser.parse_args()
    torch.manual_seed(flags.seed)

    folder = flags.data_dir / "cifar-10-batches-bin"
    images, labels = read(folder / "data_batch_1.bin")
    test_images, test_labels = read(folder / "test_batch.bin")
    mean, std = images.mean((0, 2, 3), keepdim=True), images.std((0, 2, 3), keepdim=True, correction=0)

    model = ResNet20()
    weights = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    groups = [{"params": weights, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, LEARNING_RATE, MOMENTUM)
    steps = flags.epochs * len(images) // BATCH_SIZE
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(step, steps))

    began = time.monotonic()
    order = torch.cat([torch.randperm(len(images)) for _ in range(flags.epochs)])
    for step, rows in enumerate(order.split(BATCH_SIZE)[: flags.max_steps]):
        loss = F.cross_entropy(model((augment(images[rows]) - mean) / std), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        if (step + 1) % 50 == 0:
            print(f"step {step + 1} of {steps}: loss {loss.item():.3f}", flush=True)
    seconds = time.monotonic() - began

    model.eval()
    with torch.no_grad():
        batches = zip(test_images.split(500), test_labels.split(500), strict=True)
        correct = sum((model((x - mean) / std).argmax(1) == y).sum().item() for x, y in batches)
    print(
        f"seed {flags.seed}: test accuracy {correct / len(test_labels):.4f} after {step + 1} steps in {seconds:.0f} s"
    )


if __name__ == "__main__":
    main()
