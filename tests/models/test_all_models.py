"""What every model has in common, in tables over the catalog."""

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.models import MODELS, create
from jaxdl.scaling.flops import example_inputs, model_shapes, parameter_count
from jaxdl.train.precision import cast_floats
from tests.models.variables import random_inputs, random_variables, take_rows

# v1: torchvision's counts for ImageNet; He et al. 2015, table 6 (0.27M, 0.46M, 0.66M, 0.85M, 1.7M) for CIFAR-10.
# v2 for ImageNet: that of ResNet-50 is timm's resnetv2_50.
PARAMETERS = {
    "linear_regression": 10 + 1,
    "softmax_regression": 784 * 10 + 10,
    "perceptron": 10 + 1,
    "mlp": 784 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10,
    "cnn": 9 * 32 + 2 * 32 + 9 * 32 * 64 + 2 * 64 + 2 * 2 * 64 * 10 + 10,
    "lenet5": 61_706,
    "resnet": 25_557_032,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnet18_v2": 11_687_720,
    "resnet34_v2": 21_795_880,
    "resnet50_v2": 25_549_352,
    "resnet101_v2": 44_541_480,
    "resnet152_v2": 60_185_128,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
    "resnet20_v2": 269_722,
    "resnet32_v2": 464_154,
    "resnet44_v2": 658_586,
    "resnet56_v2": 853_018,
    "resnet110_v2": 1_727_962,
    # The counts of the published weights on the Hugging Face hub.
    "gpt": 124_439_808,
    "gpt2": 124_439_808,
    "gpt2_medium": 354_823_168,
    "gpt2_large": 774_030_080,
    "gpt2_xl": 1_557_611_200,
    "llama2_7b": 6_738_415_616,
    "llama2_13b": 13_015_864_320,
    "llama3_8b": 8_030_261_248,
    # Of timm's and Hugging Face's weights.
    "vit": 86_567_656,
    "vit_ti16": 5_717_416,
    "vit_s16": 22_050_664,
    "vit_b16": 86_567_656,
    "vit_b32": 88_224_232,
    "vit_l16": 304_326_632,
    "vit_l32": 306_535_400,
    "vit_h14": 632_045_800,
    # Of Hugging Face's CLIPModel.
    "clip": 151_277_313,
    "clip_vit_b32": 151_277_313,
    "clip_vit_b16": 149_620_737,
    "clip_vit_l14": 427_616_513,
    # Of the CIFAR-10 network of Ho et al. 2020, whose table 10 says 35.7M: google/ddpm-cifar10-32 on the hub.
    # Layers before a batch normalisation have no bias. The VAE's is that of Flax's example.
    "dcgan": 64 * 49 * 128
    + 2 * 128
    + 16 * 128 * 64
    + 2 * 64
    + 16 * 64
    + 1
    + 17 * 64
    + 16 * 64 * 128
    + 2 * 128
    + 49 * 128
    + 1,
    "dcgan32": 64 * 16 * 256
    + 512
    + 16 * 256 * 128
    + 256
    + 16 * 128 * 64
    + 128
    + 16 * 64 * 3
    + 3
    + 49 * 64
    + 16 * 64 * 128
    + 256
    + 16 * 128 * 256
    + 512
    + 16 * 256
    + 1,
    "autoencoder": 785 * 500 + 501 * 20 + 21 * 500 + 501 * 784,
    "vae": 785 * 500 + 2 * 501 * 20 + 21 * 500 + 501 * 784,
    "convolutional_autoencoder": 17 * 32 + 513 * 64 + 3137 * 20 + 21 * 3136 + 577 * 128 + 289 * 4,
    "convolutional_vae": 17 * 32 + 513 * 64 + 2 * 3137 * 20 + 21 * 3136 + 577 * 128 + 289 * 4,
    "stacked_autoencoder": 785 * 500 + 501 * 250 + 251 * 32 + 33 * 250 + 251 * 500 + 501 * 784,
    "unet": 35_746_307,
    # The paper's code has 675,129,632: the positions, which are not trained, and the outputs of variances, less.
    "dit": 675_129_632 - 256 * 1152 - 16 * (1152 + 1),
    "dit_s2": 32_858_896,
    "dit_b2": 130_303_504,
    "dit_l2": 457_824_272,
    "dit_xl2": 675_129_632 - 256 * 1152 - 16 * (1152 + 1),
    # BertForMaskedLM's; encoder and pooler, 109,482,240 and 335,141,888, and 2 classes.
    "bert": 109_514_298,
    "bert_base": 109_514_298,
    "bert_large": 335_174_458,
    "bert_classifier": 109_482_240 + 2 * 769,
    "bert_base_classifier": 109_482_240 + 2 * 769,
    "bert_large_classifier": 335_141_888 + 2 * 1025,
    # Those of torch.nn.RNN, LSTM and GRU with 28 inputs and 128 units, and a linear layer; of a language model with an
    # embedding. tests/reference counts them there.
    "rnn": 20_224 + 1_290,
    "lstm": 80_896 + 1_290,
    "gru": 60_672 + 1_290,
    "rnn_lm": 256 * 128 + 33_024 + 128 * 256 + 256,
    "lstm_lm": 256 * 128 + 132_096 + 128 * 256 + 256,
    "gru_lm": 256 * 128 + 99_072 + 128 * 256 + 256,
    # Two networks of two layers of 64, for a policy of two choices and a value.
    "actor_critic": 2 * (4 * 64 + 64 + 64 * 64 + 64) + 64 * 2 + 2 + 64 + 1,
    "vec2seq": 3 * 128 * (10 + 1 + 128 + 2) + 129,
    # Two embeddings, the encoder's LSTM, the decoder's with the last attentional state, additive scores, two layers.
    "seq2seq": 2 * 256 * 128 + 1024 * (386 + 642) + (2 * 256**2 + 256) + 512 * 256 + 257 * 256,
    # Two tables of 10,000 words; GloVe has biases.
    "skip_gram": 2 * 10_000 * 100,
    "cbow": 2 * 10_000 * 100,
    "glove": 2 * 10_000 * (100 + 1),
}

# Those of PyTorch Geometric's layers for Cora; GIN of 7 tags, with five linear outputs; MPNN of 45 and 7 features.
PARAMETERS |= {
    "gcn": 23_063,
    "gat": 92_373,
    "graphsage": 2 * (1433 * 16 + 16 * 7) + 16 + 7,
    "gin": (7 + 7 * 32) * 32 + 4 * (64 + 64) + 7 * 2 + 2 + 4 * (32 * 2 + 2),
    "mpnn": 46 * 64 + 8 * 64 * 64 + 2 * 65 * 192 + 64 + 65 * 64 + 65,
}

# Outputs that are no vectors of num_outputs or vocab_size: of two windows, and of two pairs of words.
OUTPUT_SHAPES = {"actor_critic": (2, 2 + 1), "skip_gram": (2, 1, 6, 11), "cbow": (2, 1, 6), "glove": (2,)}
# Of pairs of an image and a text.
OUTPUT_SHAPES |= {"clip": (2, 2, 512), "clip_vit_b32": (2, 2, 512), "clip_vit_b16": (2, 2, 512)}
OUTPUT_SHAPES |= {"clip_vit_l14": (2, 2, 768)}

# Logits of generated images, and reconstructions.
OUTPUT_SHAPES |= {"dcgan": (2, 1), "dcgan32": (2, 1), "vae": (2, 28, 28, 1), "convolutional_vae": (2, 28, 28, 1)}
OUTPUT_SHAPES |= {name: (2, 28, 28, 1) for name in MODELS if name.endswith("autoencoder")}

# Of noised images.
OUTPUT_SHAPES |= {"unet": (2, 32, 32, 3)} | {name: (2, 32, 32, 4) for name in MODELS if name.startswith("dit")}

# Of the nodes of two graphs.
OUTPUT_SHAPES |= {name: (2 * 2708, 7) for name in ("gcn", "gat", "graphsage")}

_TINY_GPT = {"vocab_size": 5, "max_length": 6, "num_layers": 2, "num_heads": 2, "width": 8}
_TINY_BERT = {"vocab_size": 5, "max_length": 6, "num_layers": 2, "num_heads": 2, "width": 8}
_TINY_VIT = {"num_outputs": 3, "patch_size": 2, "num_layers": 2, "num_heads": 2, "width": 8}
_TINY_CLIP = {"patch_size": 2, "width": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 5, "max_length": 6}
_TINY_CLIP |= {"text_width": 6, "text_num_layers": 2, "text_num_heads": 2, "projection_width": 4}
_TINY_CODER = {"input_shape": (4, 4, 1), "widths": (6,), "code_size": 3}
_TINY_GAN = {"image_shape": (4, 4, 2), "generator_widths": (4,), "discriminator_widths": (4, 6)}
_TINY_GAN |= {"generator_normalization": "layer", "discriminator_normalization": "none"}
_TINY_DIT = {"patch_size": 2, "width": 8, "num_layers": 2, "num_heads": 2, "num_classes": 3}
_TINY_UNET = {"width": 4, "multipliers": (1, 2), "blocks_per_level": 1, "num_groups": 2}
_TINY_SEQ2SEQ = {"vocab_size": 5, "hidden_size": 4, "embedding_size": 3, "bidirectional": True}
_TINY_RESNET = {"num_outputs": 3, "stage_sizes": (1, 1), "width": 4}

_TINY_GNN = {"num_outputs": 3, "level": "graph", "width": 6}
_TINY_MPNN = {**_TINY_GNN, "message": "pair", "update": "linear", "shared": False, "normalization": "layer"}

# Each architecture, as small as it goes: (name, hyperparameters, shape of an example, rates at which it drops).
# The dtype of its inputs is that of the catalog.
TINY = {
    "linear_regression": ("linear_regression", {"num_outputs": 3}, (5,), ()),
    "softmax_regression": ("softmax_regression", {"num_outputs": 3}, (4, 4, 1), ()),
    "perceptron": ("perceptron", {"num_outputs": 3}, (5,), ()),
    "mlp": ("mlp", {"num_outputs": 3, "widths": (8, 6)}, (4, 4, 1), ("dropout_rate", "drop_connect_rate")),
    "mlp rrelu": ("mlp", {"num_outputs": 3, "widths": (8,), "activation": "rrelu"}, (5,), ("dropout_rate",)),
    "mlp batch": ("mlp", {"num_outputs": 3, "widths": (8,), "normalization": "batch"}, (5,), ("dropout_rate",)),
    "cnn": ("cnn", {"num_outputs": 3, "widths": (4, 6)}, (8, 8, 1), ("dropout_rate",)),
    "lenet5": ("lenet5", {}, (28, 28, 1), ("dropout_rate",)),
    "resnet18": ("resnet18", _TINY_RESNET, (17, 17, 3), ("stochastic_depth_rate", "dropout_rate")),
    "resnet50": ("resnet50", _TINY_RESNET, (16, 16, 3), ("stochastic_depth_rate", "dropout_rate")),
    "resnet50_v2": ("resnet50_v2", _TINY_RESNET, (16, 16, 3), ("stochastic_depth_rate",)),
    "resnet20": ("resnet20", _TINY_RESNET, (9, 9, 3), ("stochastic_depth_rate",)),
    "resnet20_v2": ("resnet20_v2", {**_TINY_RESNET, "normalization": "layer"}, (9, 9, 3), ("dropout_rate",)),
    "rnn": ("rnn", {"num_outputs": 3, "hidden_size": 4, "num_layers": 2}, (5, 3), ("dropout_rate",)),
    "lstm": ("lstm", {"num_outputs": 3, "hidden_size": 4, "pooling": "none"}, (5, 3), ("dropout_rate",)),
    "gru": ("gru", {"num_outputs": 3, "hidden_size": 4, "bidirectional": True}, (4, 4, 1), ("dropout_rate",)),
    "gru_lm": ("gru_lm", {"vocab_size": 5, "hidden_size": 4, "num_layers": 2}, (6,), ("dropout_rate",)),
    "actor_critic": ("actor_critic", {"widths": (8, 6)}, (5,), ()),
    "actor_critic gaussian": ("actor_critic", {"widths": (8,), "policy": "gaussian", "shared": True}, (5,), ()),
    "vec2seq": ("vec2seq", {"num_outputs": 6, "step_size": 2, "hidden_size": 4}, (5,), ("dropout_rate",)),
    "seq2seq": ("seq2seq", _TINY_SEQ2SEQ, ((4,), (), (3,)), ("dropout_rate", "sampling_rate")),
    "seq2seq dot": ("seq2seq", {**_TINY_SEQ2SEQ, "cell": "gru", "attention": "dot"}, ((4,), (), (3,)), ()),
    "seq2seq none": ("seq2seq", {**_TINY_SEQ2SEQ, "attention": "none"}, ((4,), (), (3,)), ("sampling_rate",)),
    "skip_gram": ("skip_gram", {"vocab_size": 5, "features": 3}, ((8,), (2, 4)), ()),
    "cbow": ("cbow", {"vocab_size": 5, "features": 3}, ((8,), (2, 4), (2, 8)), ()),
    "glove": ("glove", {"vocab_size": 5, "features": 3}, (2,), ()),
    "gcn": ("gcn", {**_TINY_GNN, "normalization": "batch"}, (5, 8, 4), ("dropout_rate",)),
    "gat": ("gat", {**_TINY_GNN, "num_heads": 2}, (5, 8, 4), ("dropout_rate", "attention_dropout_rate")),
    "graphsage": ("graphsage", {**_TINY_GNN, "aggregation": "max", "readout": "max"}, (5, 8, 4), ("dropout_rate",)),
    "gin": ("gin", {**_TINY_GNN, "num_layers": 2}, (5, 8, 4), ("dropout_rate",)),
    "gin eps": ("gin", {**_TINY_GNN, "num_layers": 2, "learn_epsilon": True, "normalization": "none"}, (5, 8, 4), ()),
    "mpnn": ("mpnn", _TINY_GNN, (5, 8, 4, 2), ("dropout_rate",)),
    "mpnn pair": ("mpnn", _TINY_MPNN, (5, 8, 4, 2), ("dropout_rate",)),
    "gpt2": ("gpt2", _TINY_GPT, (6,), ("dropout_rate",)),
    "gpt alibi": ("gpt", {**_TINY_GPT, "positions": "alibi", "num_heads": 4, "head_dim": 3}, (6,), ("dropout_rate",)),
    "gpt sinusoidal": ("gpt", {**_TINY_GPT, "positions": "sinusoidal", "remat": True}, (6,), ("dropout_rate",)),
    "llama": ("llama3_8b", {**_TINY_GPT, "mlp_width": 12, "num_kv_heads": 1}, (6,), ("dropout_rate",)),
    "llama scan": ("llama3_8b", {**_TINY_GPT, "mlp_width": 12, "num_kv_heads": 1, "scan_layers": True}, (6,), ()),
    "vit": ("vit", _TINY_VIT, (4, 6, 3), ("dropout_rate",)),
    "vit mean": ("vit", {**_TINY_VIT, "pool": "mean", "positions": "sinusoidal"}, (4, 6, 3), ("dropout_rate",)),
    "vit scan": ("vit", {**_TINY_VIT, "scan_layers": True}, (4, 6, 3), ()),
    "clip": ("clip", _TINY_CLIP, ((4, 6, 3), (5,), ()), ("dropout_rate",)),
    "clip scan": ("clip", {**_TINY_CLIP, "scan_layers": True}, ((4, 6, 3), (5,), ()), ()),
    "dcgan": ("dcgan", {**_TINY_GAN, "upsampling": "subpixel"}, (5,), ()),
    "dcgan group": ("dcgan", {**_TINY_GAN, "generator_normalization": "group", "num_groups": 2}, (5,), ()),
    "autoencoder": ("autoencoder", _TINY_CODER, (4, 4, 1), ()),
    "vae": ("vae", {**_TINY_CODER, "activation": "tanh"}, (4, 4, 1), ()),
    "convolutional_vae": ("convolutional_vae", {**_TINY_CODER, "normalization": "layer"}, (4, 4, 1), ()),
    "stacked_autoencoder": ("stacked_autoencoder", {"input_shape": (4, 4, 1), "widths": (6, 3)}, (4, 4, 1), ()),
    "dit": ("dit", _TINY_DIT, ((4, 6, 3), (), ()), ("dropout_rate",)),
    "dit scan": ("dit", {**_TINY_DIT, "scan_layers": True}, ((4, 6, 3), (), ()), ()),
    "unet": ("unet", _TINY_UNET, ((4, 6, 3), ()), ("dropout_rate",)),
    "bert": ("bert", _TINY_BERT, (6,), ("dropout_rate",)),
    "bert scan": ("bert", {**_TINY_BERT, "scan_layers": True}, (6,), ()),
    "bert first": ("bert_classifier", {**_TINY_BERT, "num_outputs": 3}, (6,), ("dropout_rate",)),
    "bert mean": ("bert_classifier", {**_TINY_BERT, "num_outputs": 3, "pool": "mean"}, (6,), ()),
}

RNGS = {"dropout": jax.random.key(3)}


@functools.cache
def built(case):
    """(model, variables, a tuple of inputs of 4 examples, the names of its rates)."""
    name, hyperparameters, shape, rates = TINY[case]
    model = create(name, **hyperparameters)
    dtype = MODELS[name].input_dtype
    return model, random_variables(model, shape, dtype), random_inputs(shape, dtype), rates


def differs_between_training_and_evaluation(model):
    return getattr(model, "normalization", "none") == "batch" or getattr(model, "activation", "") == "rrelu"


def output_size(model):
    return model.num_outputs if hasattr(model, "num_outputs") else model.vocab_size


def one_array(outputs):
    """A model's outputs; of a policy and a value, their numbers side by side: [B, ...]."""
    leaves = jax.tree.leaves(outputs)
    return leaves[0] if len(leaves) == 1 else jnp.concatenate([x.reshape(len(x), -1) for x in leaves], axis=-1)


@functools.cache
def evaluated(case):
    model, variables, inputs, _ = built(case)
    return one_array(jax.jit(functools.partial(model.apply, train=False))(variables, *inputs))


@pytest.mark.parametrize("name", MODELS)
def test_parameter_count_is_the_papers_and_outputs_are_vectors_for_each_example(name):
    model = create(name)
    inputs = example_inputs(MODELS[name].input_shape, MODELS[name].input_dtype, batch_size=2)
    init = functools.partial(model.init_with_output, train=False)
    outputs, variables = jax.eval_shape(init, jax.random.key(0), *inputs)
    outputs = jax.eval_shape(one_array, outputs)
    assert parameter_count(variables) == PARAMETERS[name]
    shape = OUTPUT_SHAPES.get(name) or (2, *outputs.shape[1:-1], output_size(model))
    assert (outputs.shape, outputs.dtype) == (shape, jnp.float32)


@pytest.mark.parametrize("name", MODELS)
def test_every_hyperparameter_has_a_default_and_a_line_of_help(name):
    model = MODELS[name].load()
    for field in dataclasses.fields(model):
        if field.name not in ("parent", "name"):
            assert field.default is not dataclasses.MISSING
            assert any(f"\n  {field.name}: " in (inspect.getdoc(base) or "") for base in model.__mro__)


def test_every_architecture_is_in_the_table():
    assert {MODELS[name].load() for name, *_ in TINY.values()} == {entry.load() for entry in MODELS.values()}


@pytest.mark.parametrize("case", TINY)
def test_jit_equals_no_jit(case):
    model, variables, inputs, _ = built(case)
    # Fused and unfused sums differ by rounding: some ten layers of sums of up to some hundred terms near one.
    outputs = one_array(model.apply(variables, *inputs, train=False))
    np.testing.assert_allclose(evaluated(case), outputs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", TINY)
def test_evaluation_treats_each_row_alone(case):
    model, variables, inputs, _ = built(case)
    order = jnp.array([2, 0, 3])
    rows = take_rows(inputs, order)
    outputs = one_array(jax.jit(functools.partial(model.apply, train=False))(variables, *rows))
    np.testing.assert_allclose(outputs, evaluated(case)[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", TINY)
def test_without_dropping_or_batch_statistics_training_is_evaluation(case):
    model, variables, inputs, _ = built(case)
    train = jax.jit(functools.partial(model.apply, train=True, rngs=RNGS, mutable=["batch_stats"]))
    outputs, state = train(variables, *inputs)
    # Which of the two it is depends on normalisation and activation alone.
    same = np.allclose(one_array(outputs), evaluated(case), rtol=1e-4, atol=1e-5)
    assert same != differs_between_training_and_evaluation(model)
    assert bool(state) == ("batch_stats" in variables)


@pytest.mark.parametrize(("case", "rate"), [(case, rate) for case, (*_, rates) in TINY.items() for rate in rates])
def test_a_rate_acts_in_training_only_and_may_be_traced(case, rate):
    model, variables, inputs, _ = built(case)

    def apply(rate_value, train):
        changed = model.clone(**{rate: rate_value})
        return changed.apply(variables, *inputs, train=train, rngs=RNGS, mutable=["batch_stats"])[0]

    evaluation = jax.jit(lambda: apply(0.5, False))()
    np.testing.assert_allclose(evaluation, evaluated(case), rtol=1e-4, atol=1e-5)
    traced = jax.jit(jax.vmap(lambda rate_value: apply(rate_value, True)))(jnp.array([0.0, 0.5]))
    assert not np.allclose(traced[0], traced[1], atol=1e-3)
    for number, outputs in zip((0.0, 0.5), traced):
        np.testing.assert_allclose(outputs, jax.jit(lambda: apply(number, True))(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("case", "rate"), [(case, rate) for case, (*_, rates) in TINY.items() for rate in rates])
def test_a_rate_leaves_the_parameters_as_they_are(case, rate):
    model, variables, *_ = built(case)
    name, _, shape, _ = TINY[case]
    changed = model_shapes(model.clone(**{rate: 0.5}), shape, MODELS[name].input_dtype)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, changed)


@pytest.mark.parametrize("case", TINY)
def test_every_parameter_gets_a_gradient(case):
    model, variables, inputs, _ = built(case)
    weights = jax.random.normal(jax.random.key(5), evaluated(case).shape)

    @jax.jit
    @jax.grad
    def gradient(params):
        state = {**variables, "params": params}
        outputs, _ = model.apply(state, *inputs, train=True, rngs=RNGS, mutable=["batch_stats"])
        return (one_array(outputs) * weights).sum()

    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(variables["params"])):
        name = jax.tree_util.keystr(path)
        assert jnp.isfinite(leaf).all(), name
        if name.endswith("['key']['bias']"):  # moves all scores of a query alike, which softmax does not see
            assert jnp.abs(leaf).max() < 1e-4, name
        else:
            assert (leaf != 0).any(), name


@pytest.mark.parametrize("case", TINY)
def test_bfloat16_in_is_bfloat16_out(case):
    model, variables, inputs, _ = built(case)
    half, inputs = cast_floats((variables["params"], inputs), jnp.bfloat16)
    outputs = jax.eval_shape(functools.partial(model.apply, train=False), {**variables, "params": half}, *inputs)
    assert {x.dtype for x in jax.tree.leaves(outputs)} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize(
    ("name", "hyperparameters", "message"),
    [
        ("resnet5", {}, "no model is called 'resnet5'. Did you mean 'resnet"),
        ("mlp", {"width": (3,)}, "model 'mlp' has no hyperparameter 'width'. Did you mean 'widths'"),
        ("resnet50", {"parent": "x"}, "no hyperparameter 'parent'"),
    ],
)
def test_bad_names(name, hyperparameters, message):
    with pytest.raises(InputError, match=message):
        create(name, **hyperparameters)


def test_hyperparameters_override_those_of_the_name():
    assert create("resnet18").stage_sizes == (2, 2, 2, 2)
    assert create("resnet18", stage_sizes=(1,), num_outputs=7).stage_sizes == (1,)
