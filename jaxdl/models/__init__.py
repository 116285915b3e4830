"""Architectures by name. Importing this imports no model; `create` imports the one that is asked for."""

import dataclasses
from typing import Any

from jaxdl.catalog import Entry, find, nearest
from jaxdl.errors import InputError

_IMAGENET = (224, 224, 3)
_CIFAR = (32, 32, 3)


def _resnet(stage_sizes: tuple[int, ...], block: str, **fields) -> Entry:
    """A ResNet for ImageNet. He et al. 2015, arXiv:1512.03385, table 1."""
    return Entry("jaxdl.models.resnet", "ResNet", {"stage_sizes": stage_sizes, "block": block, **fields}, _IMAGENET)


def _cifar_resnet(blocks: int, **fields) -> Entry:
    """A ResNet of depth 6 * blocks + 2 for CIFAR-10. The same paper, section 4.2."""
    fields = {
        "num_outputs": 10,
        "stage_sizes": (blocks,) * 3,
        "width": 16,
        "block": "basic",
        "stem": "cifar",
        "shortcut": "pad",
        "num_groups": 8,
        **fields,
    }
    return Entry("jaxdl.models.resnet", "ResNet", fields, _CIFAR)


def _gpt2(num_layers: int, num_heads: int, width: int) -> Entry:
    """A GPT-2. Radford et al. 2019, Language models are unsupervised multitask learners, table 2."""
    fields = {"num_layers": num_layers, "num_heads": num_heads, "width": width, "activation": "gelu_tanh"}
    return Entry("jaxdl.models.gpt", "GPT", fields, (1024,), "int32")


def _llama(num_layers: int, num_heads: int, width: int, mlp_width: int, **fields) -> Entry:
    """A Llama. Touvron et al. 2023, arXiv:2302.13971, section 2.2."""
    fields = {
        "num_layers": num_layers,
        "num_heads": num_heads,
        "width": width,
        "mlp_width": mlp_width,
        "positions": "rotary",
        "normalization": "rms",
        "activation": "swiglu",
        "use_bias": False,
        "tied_head": False,
        **fields,
    }
    return Entry("jaxdl.models.gpt", "GPT", fields, (fields["max_length"],), "int32")


def _vit(patch_size: int, num_layers: int, width: int, num_heads: int) -> Entry:
    """A vision transformer. Dosovitskiy et al. 2020, arXiv:2010.11929, table 1; Ti and S: arXiv:2012.12877, table 1."""
    fields = {"patch_size": patch_size, "num_layers": num_layers, "width": width, "num_heads": num_heads}
    return Entry("jaxdl.models.vit", "ViT", fields, _IMAGENET)


def _dit(patch_size: int, num_layers: int, width: int, num_heads: int) -> Entry:
    """A diffusion transformer for latents of 256x256 images. Peebles and Xie 2023, arXiv:2212.09748, table 1."""
    fields = {"patch_size": patch_size, "num_layers": num_layers, "width": width, "num_heads": num_heads}
    return Entry("jaxdl.models.dit", "DiT", fields, ((32, 32, 4), (), ()), ("float32", "int32", "int32"))


def _clip(patch_size: int, image: tuple[int, int, int], text: tuple[int, int, int], projection_width: int) -> Entry:
    """A CLIP, towers as (layers, width, heads). Radford et al. 2021, arXiv:2103.00020, table 20."""
    fields = dict(zip(("num_layers", "width", "num_heads"), image))
    fields |= dict(zip(("text_num_layers", "text_width", "text_num_heads"), text))
    fields |= {"patch_size": patch_size, "projection_width": projection_width}
    return Entry("jaxdl.models.clip", "CLIP", fields, (_IMAGENET, (77,), ()), ("float32", "int32", "int32"))


def _dcgan32() -> Entry:
    """A DCGAN for colour images of 32x32."""
    widths = (256, 128, 64)
    fields = {"image_shape": _CIFAR, "generator_widths": widths, "discriminator_widths": widths[::-1]}
    return Entry("jaxdl.models.gan", "GAN", fields, (64,))


def _bert(attribute: str, num_layers: int = 12, width: int = 768, num_heads: int = 12) -> Entry:
    """A BERT. Devlin et al. 2018, arXiv:1810.04805, section 3."""
    fields = {"num_layers": num_layers, "width": width, "num_heads": num_heads}
    return Entry("jaxdl.models.bert", attribute, fields, (512,), "int32")


MODELS: dict[str, Entry] = {
    "linear_regression": Entry("jaxdl.models.linear", "LinearRegression", input_shape=(10,)),
    "softmax_regression": Entry("jaxdl.models.linear", "SoftmaxRegression", input_shape=(28, 28, 1)),
    "perceptron": Entry("jaxdl.models.perceptron", "Perceptron", input_shape=(10,)),
    "mlp": Entry("jaxdl.models.mlp", "MLP", input_shape=(28, 28, 1)),
    "cnn": Entry("jaxdl.models.cnn", "CNN", input_shape=(8, 8, 1)),
    "lenet5": Entry("jaxdl.models.lenet", "LeNet5", input_shape=(28, 28, 1)),
    "resnet": Entry("jaxdl.models.resnet", "ResNet", input_shape=_IMAGENET),
    "resnet18": _resnet((2, 2, 2, 2), "basic"),
    "resnet34": _resnet((3, 4, 6, 3), "basic"),
    "resnet50": _resnet((3, 4, 6, 3), "bottleneck"),
    "resnet101": _resnet((3, 4, 23, 3), "bottleneck"),
    "resnet152": _resnet((3, 8, 36, 3), "bottleneck"),
    "resnet18_v2": _resnet((2, 2, 2, 2), "basic", version="v2"),
    "resnet34_v2": _resnet((3, 4, 6, 3), "basic", version="v2"),
    "resnet50_v2": _resnet((3, 4, 6, 3), "bottleneck", version="v2"),
    "resnet101_v2": _resnet((3, 4, 23, 3), "bottleneck", version="v2"),
    "resnet152_v2": _resnet((3, 8, 36, 3), "bottleneck", version="v2"),
    "resnet20": _cifar_resnet(3),
    "resnet32": _cifar_resnet(5),
    "resnet44": _cifar_resnet(7),
    "resnet56": _cifar_resnet(9),
    "resnet110": _cifar_resnet(18),
    "resnet20_v2": _cifar_resnet(3, version="v2"),
    "resnet32_v2": _cifar_resnet(5, version="v2"),
    "resnet44_v2": _cifar_resnet(7, version="v2"),
    "resnet56_v2": _cifar_resnet(9, version="v2"),
    "resnet110_v2": _cifar_resnet(18, version="v2"),
    "gpt": Entry("jaxdl.models.gpt", "GPT", input_shape=(1024,), input_dtype="int32"),
    "gpt2": _gpt2(12, 12, 768),
    "gpt2_medium": _gpt2(24, 16, 1024),
    "gpt2_large": _gpt2(36, 20, 1280),
    "gpt2_xl": _gpt2(48, 25, 1600),
    # Touvron et al. 2023, arXiv:2307.09288, and the published weights.
    "llama2_7b": _llama(32, 32, 4096, 11_008, vocab_size=32_000, max_length=4096),
    "llama2_13b": _llama(40, 40, 5120, 13_824, vocab_size=32_000, max_length=4096),
    # Grattafiori et al. 2024, arXiv:2407.21783, table 3.
    "llama3_8b": _llama(32, 32, 4096, 14_336, num_kv_heads=8, vocab_size=128_256, max_length=8192, rope_theta=5e5),
    "vit": _vit(16, 12, 768, 12),
    "vit_ti16": _vit(16, 12, 192, 3),
    "vit_s16": _vit(16, 12, 384, 6),
    "vit_b16": _vit(16, 12, 768, 12),
    "vit_b32": _vit(32, 12, 768, 12),
    "vit_l16": _vit(16, 24, 1024, 16),
    "vit_l32": _vit(32, 24, 1024, 16),
    "vit_h14": _vit(14, 32, 1280, 16),
    "unet": Entry("jaxdl.models.unet", "UNet", input_shape=(_CIFAR, ()), input_dtype=("float32", "int32")),
    "dit": _dit(2, 28, 1152, 16),
    "dit_s2": _dit(2, 12, 384, 6),
    "dit_b2": _dit(2, 12, 768, 12),
    "dit_l2": _dit(2, 24, 1024, 16),
    "dit_xl2": _dit(2, 28, 1152, 16),
    "clip": _clip(32, (12, 768, 12), (12, 512, 8), 512),
    "clip_vit_b32": _clip(32, (12, 768, 12), (12, 512, 8), 512),
    "clip_vit_b16": _clip(16, (12, 768, 12), (12, 512, 8), 512),
    "clip_vit_l14": _clip(14, (24, 1024, 16), (12, 768, 12), 768),
    "bert": _bert("MaskedBert"),
    "bert_base": _bert("MaskedBert"),
    "bert_large": _bert("MaskedBert", 24, 1024, 16),
    "bert_classifier": _bert("BertClassifier"),
    "bert_base_classifier": _bert("BertClassifier"),
    "bert_large_classifier": _bert("BertClassifier", 24, 1024, 16),
    "rnn": Entry("jaxdl.models.rnn", "RNN", {"cell": "rnn_tanh"}, (28, 28, 1)),
    "lstm": Entry("jaxdl.models.rnn", "RNN", {"cell": "lstm"}, (28, 28, 1)),
    "gru": Entry("jaxdl.models.rnn", "RNN", {"cell": "gru"}, (28, 28, 1)),
    "rnn_lm": Entry("jaxdl.models.rnn", "RNNLanguageModel", {"cell": "rnn_tanh"}, (64,), "int32"),
    "lstm_lm": Entry("jaxdl.models.rnn", "RNNLanguageModel", {"cell": "lstm"}, (64,), "int32"),
    "gru_lm": Entry("jaxdl.models.rnn", "RNNLanguageModel", {"cell": "gru"}, (64,), "int32"),
    # One window of 5 words on each side, and 5 negatives.
    "skip_gram": Entry("jaxdl.models.embeddings", "SkipGram", input_shape=((11,), (1, 6)), input_dtype="int32"),
    "cbow": Entry("jaxdl.models.embeddings", "CBOW", input_shape=((11,), (1, 6), (1, 11)), input_dtype="int32"),
    "glove": Entry("jaxdl.models.embeddings", "GloVe", input_shape=(2,), input_dtype="int32"),
    # 64 numbers of noise to images of 28x28 and 32x32.
    "dcgan": Entry("jaxdl.models.gan", "GAN", input_shape=(64,)),
    "dcgan32": _dcgan32(),
    "autoencoder": Entry("jaxdl.models.autoencoders", "Autoencoder", input_shape=(28, 28, 1)),
    "stacked_autoencoder": Entry("jaxdl.models.autoencoders", "StackedAutoencoder", input_shape=(28, 28, 1)),
    "convolutional_autoencoder": Entry(
        "jaxdl.models.autoencoders", "ConvolutionalAutoencoder", input_shape=(28, 28, 1)
    ),
    "vae": Entry("jaxdl.models.autoencoders", "Autoencoder", {"variational": True}, (28, 28, 1)),
    "convolutional_vae": Entry(
        "jaxdl.models.autoencoders", "ConvolutionalAutoencoder", {"variational": True}, (28, 28, 1)
    ),
    "actor_critic": Entry("jaxdl.models.actor_critic", "ActorCritic", input_shape=(4,)),
    "vec2seq": Entry("jaxdl.models.rnn", "Vec2Seq", input_shape=(10,)),
    # Nodes, edges, features of a node, and of an edge: Cora; the largest graph of MUTAG; of ESOL.
    "gcn": Entry("jaxdl.models.gnn", "GCN", input_shape=(2708, 10_556, 1433), input_dtype="graph"),
    "gat": Entry("jaxdl.models.gnn", "GAT", input_shape=(2708, 10_556, 1433), input_dtype="graph"),
    "graphsage": Entry("jaxdl.models.gnn", "GraphSAGE", input_shape=(2708, 10_556, 1433), input_dtype="graph"),
    "gin": Entry("jaxdl.models.gnn", "GIN", input_shape=(28, 66, 7), input_dtype="graph"),
    "mpnn": Entry("jaxdl.models.gnn", "MPNN", input_shape=(55, 124, 45, 7), input_dtype="graph"),
    "seq2seq": Entry("jaxdl.models.seq2seq", "Seq2Seq", input_shape=((6,), (), (5,)), input_dtype="int32"),
}


def create(name: str, /, **hyperparameters: Any):
    """The model of that name, a Flax module, with these hyperparameters in place of the name's defaults.

    >>> create("mlp", widths=(32,), num_outputs=3).widths
    (32,)

    Raises:
      InputError: no model has this name, or the model no such hyperparameter; the message offers the nearest.
    """
    entry = find(MODELS, name, "model")
    model = entry.load()
    # `parent` and `name` are Flax's own.
    fields = [field.name for field in dataclasses.fields(model) if field.name not in ("parent", "name")]
    for hyperparameter in hyperparameters:
        if hyperparameter not in fields:
            raise InputError(
                f"model '{name}' has no hyperparameter '{hyperparameter}'.{nearest(hyperparameter, fields)} "
                f"It has: {', '.join(fields)}."
            )
    return model(**{**entry.fields, **hyperparameters})
