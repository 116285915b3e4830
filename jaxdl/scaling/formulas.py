"""Parameters and FLOPs in closed form, from a model's fields alone: what the literature writes down for it.

They are what `jaxdl.scaling.flops`, which counts any program, is held against; nothing here is needed to train or fit.
A multiply and an add are two operations, and only matrix products and convolutions count. Causal attention counts as
the full square (see `jaxdl.scaling.flops`) unless `causal` is asked for.

Letters: L layers, C width, V vocabulary, T tokens, H hidden units.

>>> from jaxdl.models import create
>>> gpt_parameters(create("gpt2")), gpt_flops(create("gpt2"), 1024)
(124439808, 291648307200)
"""

import math

from jaxdl.layers.transformer import GATED

TRAINING = 3
"""Training costs so many times the forward pass: the gradients of inputs and of weights take as much as it each."""


def gpt_parameters(model) -> int:
    """Parameters of a `jaxdl.models.gpt.GPT`, embeddings included.

    With the fields' defaults it is V C + T C + L (12 C^2 + 13 C) + 2 C (Kaplan et al. 2020, arXiv 2001.08361, table 1,
    and the biases, the normalisation and the embeddings besides).
    """
    width, bias = model.width, int(model.use_bias)
    queries, keys = _heads(model)
    hidden, kernels = _mlp(model)
    norm = width * (1 + bias if model.normalization == "layer" else 1)
    attention = width * (queries + 2 * keys) + queries * width + bias * (queries + 2 * keys + width)
    mlp = kernels * width * hidden + bias * ((kernels - 1) * hidden + width)
    head = 0 if model.tied_head else model.vocab_size * width
    return gpt_embeddings(model) + model.num_layers * (attention + mlp + 2 * norm) + norm + head


def gpt_embeddings(model) -> int:
    """Those parameters of a GPT that are embeddings, of tokens and of positions; a tied head counts as these."""
    return (model.vocab_size + model.max_length * (model.positions == "learned")) * model.width


def gpt_flops(model, length: int, causal: bool = False) -> int:
    """FLOPs of a GPT's forward pass over one sequence of T tokens; training takes `TRAINING` times as many.

    With the fields' defaults it is 2 T (12 L C^2 + V C) + 4 L C T^2: Hoffmann et al. 2022 (arXiv 2203.15556), appendix
    F, without the softmax and with embeddings that are looked up.

    Args:
      causal: count half of the products of attention, those of a query with itself and what came before (T (T + 1) / 2
        of T^2), which is all that a kernel that leaves the future out computes.
    """
    width = model.width
    queries, keys = _heads(model)
    hidden, kernels = _mlp(model)
    pairs = length * (length + 1) // 2 if causal else length**2
    projections = width * (queries + 2 * keys) + queries * width
    block = 2 * length * (projections + kernels * width * hidden) + 4 * pairs * queries
    return model.num_layers * block + 2 * length * width * model.vocab_size


def _heads(model) -> tuple[int, int]:
    """Features of all queries, and of all keys."""
    head_dim = model.head_dim or model.width // model.num_heads
    return model.num_heads * head_dim, (model.num_kv_heads or model.num_heads) * head_dim


def _mlp(model) -> tuple[int, int]:
    """Hidden units, and the kernels of one MLP."""
    return model.mlp_width or 4 * model.width, 3 if model.activation in GATED else 2


def vit_flops(model, height: int, width: int, channels: int = 3) -> int:
    """FLOPs of a `jaxdl.models.vit.ViT`'s forward pass over one image of so many pixels. Letters: P patches."""
    size = model.width
    patches = height // model.patch_size * (width // model.patch_size)
    tokens = patches + (model.pool == "class")
    into = 2 * patches * model.patch_size**2 * channels * size
    return into + _encoder_flops(model, tokens) + 2 * size * model.num_outputs


def bert_flops(model, length: int) -> int:
    """FLOPs of the forward pass of a `jaxdl.models.bert.MaskedBert` that predicts every token of a text of T."""
    head = 2 * length * model.width * (model.width + model.vocab_size)  # a dense layer, and the embeddings once more
    return _encoder_flops(model, length) + head


def _encoder_flops(model, tokens: int) -> int:
    """Blocks of attention in both directions: L (2 T (4 C^2 + 2 C H) + 4 C T^2)."""
    width, hidden = model.width, model.mlp_width or 4 * model.width
    return model.num_layers * (2 * tokens * (4 * width**2 + 2 * width * hidden) + 4 * width * tokens**2)


def mlp_flops(widths) -> int:
    """FLOPs of dense layers for one example; `widths` are those of the inputs, of every layer, and of the outputs."""
    return 2 * sum(into * out for into, out in zip(widths, widths[1:]))


GATES = {"rnn_tanh": 1, "rnn_relu": 1, "gru": 3, "lstm": 4}
"""Matrices of each kind in a recurrent cell."""


def rnn_flops(cell: str, inputs: int, hidden: int, steps: int, layers: int = 1) -> int:
    """FLOPs of a stack of recurrent layers of one direction over so many steps: 2 T g H (inputs + H) of each layer."""
    sizes = [inputs] + [hidden] * (layers - 1)
    return sum(2 * steps * GATES[cell] * hidden * (size + hidden) for size in sizes)


def convolution_flops(inside: int, kernel: int, channels_in: int, channels_out: int, stride: int = 1) -> int:
    """FLOPs of a square convolution of an image of `inside` x `inside` pixels, padded so that each `stride`-th stays.

    Products with padding do not count: along a side, tap k of K meets those of the places p stride + k - pad that lie
    in the image.
    """
    outside = math.ceil(inside / stride)
    padding = max((outside - 1) * stride + kernel - inside, 0) // 2
    pairs = sum(0 <= place * stride + tap - padding < inside for place in range(outside) for tap in range(kernel))
    return 2 * pairs**2 * channels_in * channels_out
