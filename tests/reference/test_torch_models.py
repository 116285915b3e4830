"""Models and activations held against PyTorch and Hugging Face Transformers: same weights in, same outputs out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from jaxdl.layers.activations import ACTIVATIONS, Activation  # noqa: E402
from jaxdl.models import create  # noqa: E402
from jaxdl.scaling.flops import model_shapes  # noqa: E402

pytestmark = pytest.mark.reference


def array(tensor):
    return jnp.asarray(tensor.detach().numpy())


def dense(layer, inputs_as_maps=None):
    """A torch Linear. `inputs_as_maps` (C, H, W): its inputs were flattened in this order, ours as (H, W, C)."""
    kernel = layer.weight.detach()
    if inputs_as_maps:
        kernel = kernel.reshape(-1, *inputs_as_maps).permute(0, 2, 3, 1).flatten(1)
    return {"kernel": array(kernel.T), "bias": array(layer.bias)}


def conv(layer):
    """A torch Conv2d: [out, in, H, W] to [H, W, in, out]."""
    params = {"kernel": array(layer.weight.permute(2, 3, 1, 0))}
    return params if layer.bias is None else {**params, "bias": array(layer.bias)}


def norm(layer):
    """A torch BatchNorm: its parameters, and its running averages."""
    params = {"batch": {"scale": array(layer.weight), "bias": array(layer.bias)}}
    return params, {"batch": {"mean": array(layer.running_mean), "var": array(layer.running_var)}}


def resnet(model):
    """A ResNetForImageClassification's weights as this project's variables."""
    params, statistics = {}, {}

    def add(path, conv_name, norm_name, layer):
        here_params, here_statistics = params, statistics
        if path:
            here_params, here_statistics = params.setdefault(path, {}), statistics.setdefault(path, {})
        here_params[conv_name] = conv(layer.convolution)
        here_params[norm_name], here_statistics[norm_name] = norm(layer.normalization)

    add(None, "stem_conv", "stem_norm", model.resnet.embedder.embedder)
    for stage_index, stage in enumerate(model.resnet.encoder.stages):
        for block_index, block in enumerate(stage.layers):
            path = f"stage{stage_index}_block{block_index}"
            for index, layer in enumerate(block.layer):
                add(path, f"conv{index}", f"norm{index}", layer)
            if not isinstance(block.shortcut, torch.nn.Identity):
                add(path, "shortcut_conv", "shortcut_norm", block.shortcut)
    params["output"] = dense(model.classifier[1])
    return {"params": params, "batch_stats": statistics}


def randomize(model):
    """Random scales, biases and running averages, so that none of them is trivially zero or one."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                torch.nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                torch.nn.init.normal_(tensor, std=0.2)
    return model


# (hyperparameters here, configuration there); widths of stages there are those of the blocks' outputs.
RESNETS = {
    "basic": (
        {"name": "resnet18", "width": 8},
        {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [8, 16, 32, 64]},
    ),
    "bottleneck": (
        {"name": "resnet50", "width": 8, "stage_sizes": (2, 3, 2)},
        {"layer_type": "bottleneck", "depths": [2, 3, 2], "hidden_sizes": [32, 64, 128]},
    ),
    "bottleneck with the stride of the paper": (
        {"name": "resnet50", "width": 8, "stage_sizes": (2, 2), "bottleneck_stride": "1x1"},
        {
            "layer_type": "bottleneck",
            "depths": [2, 2],
            "hidden_sizes": [32, 64],
            "downsample_in_bottleneck": True,
        },
    ),
}


def resnet_pair(case):
    hyperparameters, config = RESNETS[case]
    name, hyperparameters = hyperparameters["name"], {k: v for k, v in hyperparameters.items() if k != "name"}
    theirs = transformers.ResNetForImageClassification(
        transformers.ResNetConfig(embedding_size=8, num_labels=5, **config)
    )
    return create(name, num_outputs=5, **hyperparameters), randomize(theirs)


# An even and an odd size: where paddings differ, one of them tells.
@pytest.mark.parametrize("side", [64, 65])
@pytest.mark.parametrize("case", RESNETS)
def test_resnet_evaluation(case, side):
    ours, theirs = resnet_pair(case)
    images = np.random.default_rng(0).normal(size=(3, side, side, 3)).astype(np.float32)
    variables = resnet(theirs)
    shapes = jax.tree.map(jnp.shape, variables)
    assert shapes == jax.tree.map(jnp.shape, model_shapes(ours, images.shape[1:]))
    with torch.no_grad():
        expected = theirs.eval()(torch.from_numpy(images).permute(0, 3, 1, 2)).logits.numpy()
    logits = jax.jit(lambda x: ours.apply(variables, x, train=False))(images)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", ["basic", "bottleneck"])
def test_resnet_training(case):
    """Logits with the batch's statistics, the running averages after it, and the gradient of the loss."""
    ours, theirs = resnet_pair(case)
    random = np.random.default_rng(1)
    images = random.normal(size=(6, 64, 64, 3)).astype(np.float32)
    labels = random.integers(0, 5, size=6)
    variables = resnet(theirs)
    outputs = theirs.train()(torch.from_numpy(images).permute(0, 3, 1, 2), labels=torch.from_numpy(labels))
    outputs.loss.backward()

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        logits, _ = ours.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(6), labels])

    logits, state = jax.jit(lambda v: ours.apply(v, images, train=True, mutable=["batch_stats"]))(variables)
    np.testing.assert_allclose(logits, outputs.logits.detach().numpy(), rtol=1e-4, atol=1e-4)
    value, gradient = loss(variables["params"])
    assert value == pytest.approx(outputs.loss.item(), rel=1e-5)
    for ours_, theirs_ in (
        (gradient["stem_conv"]["kernel"], theirs.resnet.embedder.embedder.convolution.weight.grad.permute(2, 3, 1, 0)),
        (gradient["output"]["kernel"], theirs.classifier[1].weight.grad.T),
    ):
        theirs_ = theirs_.numpy()
        np.testing.assert_allclose(ours_, theirs_, rtol=0, atol=1e-3 * np.abs(theirs_).max())

    means = state["batch_stats"]
    expected = resnet(theirs)["batch_stats"]
    # Running means agree. PyTorch's running variances are those of n / (n - 1), Flax's of n: compare the first, of
    # 6 * 32 * 32 numbers a channel, where they differ by 2e-4.
    mean_pairs = jax.tree.leaves(
        jax.tree_util.tree_map_with_path(
            lambda path, a, b: np.abs(a - b).max() if path[-1].key == "mean" else 0.0, means, expected
        )
    )
    assert max(mean_pairs) < 1e-4
    np.testing.assert_allclose(means["stem_norm"]["batch"]["var"], expected["stem_norm"]["batch"]["var"], rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("resnet18", {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]}),
        ("resnet50", {}),
    ],
)
def test_resnet_has_the_shapes_of_the_published_weights(name, config):
    with torch.device("meta"):
        theirs = transformers.ResNetForImageClassification(transformers.ResNetConfig(num_labels=1000, **config))
    ours = model_shapes(create(name), (224, 224, 3))["params"]
    # Convolutions and dense kernels have their axes in another order.
    assert sorted(tuple(sorted(leaf.shape)) for leaf in jax.tree.leaves(ours)) == sorted(
        tuple(sorted(parameter.shape)) for parameter in theirs.parameters()
    )
    count = sum(parameter.numel() for parameter in theirs.parameters())
    assert count == {"resnet18": 11_689_512, "resnet50": 25_557_032}[name]


@pytest.mark.parametrize("train", [False, True])
def test_mlp(train):
    theirs = torch.nn.Sequential(
        torch.nn.Linear(20, 16, bias=False),
        torch.nn.BatchNorm1d(16),
        torch.nn.ELU(),
        torch.nn.Linear(16, 12, bias=False),
        torch.nn.BatchNorm1d(12),
        torch.nn.ELU(),
        torch.nn.Linear(12, 3),
    )
    torch.manual_seed(0)
    params, statistics = {"output": dense(theirs[6])}, {}
    for index in range(2):
        torch.nn.init.uniform_(theirs[3 * index + 1].running_var, 0.5, 1.5)
        params[f"hidden{index}"] = {"kernel": array(theirs[3 * index].weight.T)}
        params[f"norm{index}"], statistics[f"norm{index}"] = norm(theirs[3 * index + 1])
    ours = create("mlp", widths=(16, 12), num_outputs=3, activation="elu", normalization="batch")
    x = np.random.default_rng(0).normal(size=(8, 20)).astype(np.float32)
    logits, _ = ours.apply({"params": params, "batch_stats": statistics}, x, train=train, mutable=["batch_stats"])
    expected = theirs.train(train)(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", ["tanh and average", "relu and max"])
def test_lenet(variant):
    activation, pool = {
        "tanh and average": (torch.nn.Tanh, torch.nn.AvgPool2d),
        "relu and max": (torch.nn.ReLU, torch.nn.MaxPool2d),
    }[variant]
    theirs = torch.nn.Sequential(
        *(torch.nn.Conv2d(1, 6, 5, padding=2), activation(), pool(2)),
        *(torch.nn.Conv2d(6, 16, 5), activation(), pool(2)),
        torch.nn.Flatten(),
        *(torch.nn.Linear(400, 120), activation(), torch.nn.Linear(120, 84), activation(), torch.nn.Linear(84, 10)),
    )
    params = {
        "conv0": conv(theirs[0]),
        "conv1": conv(theirs[3]),
        "dense0": dense(theirs[7], inputs_as_maps=(16, 5, 5)),
        "dense1": dense(theirs[9]),
        "output": dense(theirs[11]),
    }
    activation, _, pooling = variant.partition(" and ")
    ours = create("lenet5", activation=activation, pooling=pooling)
    images = np.random.default_rng(0).normal(size=(4, 28, 28, 1)).astype(np.float32)
    expected = theirs(torch.from_numpy(images).permute(0, 3, 1, 2)).detach().numpy()
    np.testing.assert_allclose(ours.apply({"params": params}, images, train=False), expected, rtol=1e-4, atol=1e-5)


TORCH_ACTIVATIONS = {
    "identity": torch.nn.Identity(),
    "sigmoid": torch.nn.Sigmoid(),
    "tanh": torch.nn.Tanh(),
    "softsign": torch.nn.Softsign(),
    "relu": torch.nn.ReLU(),
    "relu6": torch.nn.ReLU6(),
    "leaky_relu": torch.nn.LeakyReLU(),
    "prelu": torch.nn.PReLU(),
    "rrelu": torch.nn.RReLU().eval(),
    "elu": torch.nn.ELU(),
    "celu": torch.nn.CELU(),
    "selu": torch.nn.SELU(),
    "silu": torch.nn.SiLU(),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "swish": torch.nn.SiLU(),  # with beta at its start
    "gelu": torch.nn.GELU(),
    "gelu_tanh": torch.nn.GELU(approximate="tanh"),
    "mish": torch.nn.Mish(),
    "softplus": torch.nn.Softplus(),
    "hard_sigmoid": torch.nn.Hardsigmoid(),
    "hard_silu": torch.nn.Hardswish(),
    "hard_tanh": torch.nn.Hardtanh(),
    "softmax": torch.nn.Softmax(dim=-1),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_and_its_gradient(name):
    # Off the kinks at -3, -1, 0, 1, 3, 6, where one-sided derivatives are a matter of taste.
    x = np.linspace(-8.03, 8.03, 60, dtype=np.float32)[None]
    model = Activation(name)
    variables = model.init(jax.random.key(0), x, train=False)
    weights = np.random.default_rng(0).normal(size=x.shape).astype(np.float32)
    there = torch.from_numpy(x).requires_grad_()
    expected = TORCH_ACTIVATIONS[name](there)
    (expected * torch.from_numpy(weights)).sum().backward()

    def weighted(x):
        return (model.apply(variables, x, train=False) * weights).sum()

    np.testing.assert_allclose(model.apply(variables, x, train=False), expected.detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.grad(weighted)(x), there.grad.numpy(), rtol=1e-4, atol=1e-5)
