"""Autoencoders, adversarial networks and what judges them, held against PyTorch: same weights in, same numbers out."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from jaxdl import losses  # noqa: E402
from jaxdl.analysis import judging  # noqa: E402
from jaxdl.layers.spectral import SpectralNorm  # noqa: E402
from jaxdl.models import create  # noqa: E402
from jaxdl.tasks.adversarial import discriminator_losses, generator_losses  # noqa: E402

pytestmark = pytest.mark.reference

F = torch.nn.functional


def array(tensor):
    return jnp.asarray(tensor.detach().numpy())


def dense(layer, maps=None, side="in"):
    """A Linear; `maps` (C, H, W): what it reads, or writes, is flattened in this order there, as (H, W, C) here."""
    weight, bias = layer.weight.detach(), layer.bias
    if maps and side == "in":
        weight = weight.reshape(-1, *maps).permute(0, 2, 3, 1).flatten(1)
    if maps and side == "out":
        weight = weight.reshape(*maps, -1).permute(1, 2, 0, 3).flatten(0, 2)
    params = {"kernel": array(weight.T)}
    return params if bias is None else {**params, "bias": array(bias)}


def conv(layer, transposed=False):
    """[out, in, H, W] to [H, W, in, out]; a transposed one, [in, out, H, W], is turned round, too."""
    weight = layer.weight.detach()
    weight = weight.flip(2, 3).permute(2, 3, 0, 1) if transposed else weight.permute(2, 3, 1, 0)
    params = {"kernel": array(weight)}
    return params if layer.bias is None else {**params, "bias": array(layer.bias)}


def norm(layer):
    with torch.no_grad():
        for tensor in (layer.weight, layer.running_var):
            tensor.uniform_(0.5, 1.5)
        for tensor in (layer.bias, layer.running_mean):
            tensor.normal_(std=0.2)
    return (
        {"batch": {"scale": array(layer.weight), "bias": array(layer.bias)}},
        {"batch": {"mean": array(layer.running_mean), "var": array(layer.running_var)}},
    )


def images_to_nhwc(tensor):
    return array(tensor.permute(0, 2, 3, 1))


def test_vae_outputs_loss_and_gradients():
    """PyTorch's own VAE example (pytorch/examples, vae/main.py), with 500 hidden units."""
    torch.manual_seed(0)
    layers = {
        name: torch.nn.Linear(*sizes)
        for name, sizes in {
            "hidden0": (784, 500),
            "code": (500, 40),
            "decoder0": (20, 500),
            "output": (500, 784),
        }.items()
    }
    x, noise = torch.rand(3, 1, 28, 28), torch.randn(3, 20)
    mean, log_variance = layers["code"](F.relu(layers["hidden0"](x.flatten(1)))).chunk(2, dim=1)
    logits = layers["output"](F.relu(layers["decoder0"](mean + noise * torch.exp(log_variance / 2))))
    bce = F.binary_cross_entropy_with_logits(logits, x.flatten(1), reduction="sum")
    loss = bce - 0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
    loss.backward()

    model = create("vae")
    params = {name: dense(layer) for name, layer in layers.items()}

    def ours(params):
        variables, inputs = {"params": params}, images_to_nhwc(x)
        codes = model.apply(variables, inputs, train=True, method="encode")
        latents = codes.mean + jnp.exp(codes.log_std) * array(noise)
        outputs = model.apply(variables, latents, train=True, method="decode")
        divergence = losses.normal_divergence(codes.mean, codes.log_std).sum()
        return losses.sigmoid_cross_entropy(outputs, inputs).sum() + divergence, outputs

    (value, outputs), gradient = jax.value_and_grad(ours, has_aux=True)(params)
    np.testing.assert_allclose(outputs.reshape(3, -1), array(logits), rtol=1e-4, atol=1e-5)
    assert float(value) == pytest.approx(float(loss), rel=1e-5)
    for name, layer in layers.items():
        np.testing.assert_allclose(gradient[name]["kernel"], array(layer.weight.grad.T), rtol=1e-3, atol=1e-4)


def test_dcgan_with_batch_statistics_in_training_and_evaluation():
    torch.manual_seed(1)
    nn_ = torch.nn
    generator = nn_.ModuleDict({
        "dense": nn_.Linear(16, 12 * 49, bias=False), "norm0": nn_.BatchNorm2d(12),
        "conv0": nn_.ConvTranspose2d(12, 6, 4, 2, 1, bias=False), "norm1": nn_.BatchNorm2d(6),
        "conv1": nn_.ConvTranspose2d(6, 1, 4, 2, 1),
    })  # fmt: skip
    discriminator = nn_.ModuleDict({
        "conv0": nn_.Conv2d(1, 6, 4, 2, 1), "conv1": nn_.Conv2d(6, 12, 4, 2, 1, bias=False),
        "norm1": nn_.BatchNorm2d(12), "output": nn_.Linear(12 * 49, 1),
    })  # fmt: skip
    up, up_stats, down, down_stats = {}, {}, {}, {}
    up["dense"] = dense(generator["dense"], (12, 7, 7), "out")
    for name in ("norm0", "norm1"):
        up[name], up_stats[name] = norm(generator[name])
    for name in ("conv0", "conv1"):
        up[name] = conv(generator[name], transposed=True)
    down["conv0"], down["conv1"] = conv(discriminator["conv0"]), conv(discriminator["conv1"])
    down["norm1"], down_stats["norm1"] = norm(discriminator["norm1"])
    variables = {
        "params": {
            "generator": {"upsampling": up},
            "discriminator": {"downsampling": down, "output": dense(discriminator["output"], (12, 7, 7))},
        },
        "batch_stats": {"generator": {"upsampling": up_stats}, "discriminator": {"downsampling": down_stats}},
    }
    model = create("dcgan", generator_widths=(12, 6), discriminator_widths=(6, 12))
    latents = torch.randn(5, 16)

    def theirs():
        x = F.relu(generator["norm0"](generator["dense"](latents).reshape(-1, 12, 7, 7)))
        x = torch.tanh(generator["conv1"](F.relu(generator["norm1"](generator["conv0"](x)))))
        y = F.leaky_relu(discriminator["conv0"](x), 0.2)
        y = F.leaky_relu(discriminator["norm1"](discriminator["conv1"](y)), 0.2)
        return x, discriminator["output"](y.flatten(1))

    for train in (False, True):  # training changes their running averages, so it is second
        generator.train(train), discriminator.train(train)
        images, logits = theirs()
        mutable = ["batch_stats"] if train else False
        ours = model.apply(variables, array(latents), train=train, method="generate", mutable=mutable)
        judged = model.apply(variables, array(latents), train=train, mutable=mutable)
        if train:
            (ours, _), (judged, _) = ours, judged
        np.testing.assert_allclose(ours, images_to_nhwc(images), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(judged, array(logits), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["dense", "convolution"])
def test_spectral_norm(kind):
    torch.manual_seed(2)
    if kind == "dense":
        theirs, layer, x = torch.nn.Linear(7, 5), nn.Dense(5, name="layer"), torch.randn(3, 7)
    else:
        theirs, layer = torch.nn.Conv2d(3, 5, 3, padding=1), nn.Conv(5, (3, 3), name="layer")
        x = torch.randn(2, 3, 6, 6)
    params = dense(theirs) if kind == "dense" else conv(theirs)
    theirs = torch.nn.utils.parametrizations.spectral_norm(theirs, n_power_iterations=100)
    theirs.train()
    ours = SpectralNorm(layer, steps=100)
    inputs, expected = (
        (array(x), array(theirs(x))) if kind == "dense" else (images_to_nhwc(x), images_to_nhwc(theirs(x)))
    )
    state = ours.init(jax.random.key(0), inputs, train=False)["batch_stats"]
    variables = {"params": {"layer": params}, "batch_stats": state}
    outputs, _ = ours.apply(variables, inputs, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)


def test_losses_of_both_players():
    r, f = torch.randn(9), torch.randn(9)
    bce = lambda logits, target: F.binary_cross_entropy_with_logits(
        logits, torch.full_like(logits, target), reduction="none"
    )
    half = lambda logits, target: F.mse_loss(logits, torch.full_like(logits, target), reduction="none") / 2
    expected = {
        "minimax": (bce(r, 0.9), bce(f, 0.0), -bce(f, 0.0)),
        "non_saturating": (bce(r, 0.9), bce(f, 0.0), bce(f, 1.0)),
        "least_squares": (half(r, 0.9), half(f, 0.0), half(f, 1.0)),
    }
    for kind, (real, fake, generator) in expected.items():
        ours = (*discriminator_losses(kind, array(r), array(f), 0.1), generator_losses(kind, array(f)))
        for a, b in zip(ours, (real, fake, generator), strict=True):
            np.testing.assert_allclose(a, array(b), rtol=1e-5, atol=1e-6)


def test_frechet_distance_is_that_of_torchmetrics():
    image = pytest.importorskip("torchmetrics.image.fid")

    class Features(torch.nn.Module):
        num_features = 12

        def forward(self, images):
            return images.flatten(1)

    random = np.random.default_rng(0)
    real = random.normal(size=(200, 3, 2, 2))
    fake = (random.normal(size=(150, 12)) @ random.normal(size=(12, 12)) + 0.3).reshape(-1, 3, 2, 2)
    theirs = image.FrechetInceptionDistance(feature=Features(), input_img_size=(3, 2, 2), normalize=True)
    theirs.set_dtype(torch.float64)
    theirs.update(torch.tensor(real), real=True)
    theirs.update(torch.tensor(fake), real=False)
    ours = judging.frechet_distance(
        *judging.feature_moments(fake.reshape(150, -1)), *judging.feature_moments(real.reshape(200, -1))
    )
    assert ours == pytest.approx(float(theirs.compute()), rel=1e-4)
