"""Diffusion held against Hugging Face Diffusers: schedulers step for step, and U-Net and DiT with random weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from jaxdl import diffusion  # noqa: E402
from jaxdl.models import create  # noqa: E402
from tests.models.variables import random_variables  # noqa: E402

pytestmark = pytest.mark.reference

T = 1000
SHAPE = (2, 3, 4)
SCHEDULES = {
    "linear": (diffusion.linear_schedule(T), {"beta_schedule": "linear"}),
    "cosine": (diffusion.cosine_schedule(T), {"beta_schedule": "squaredcos_cap_v2"}),
}
PREDICTIONS = {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}
X, OUTPUT, X0, NOISE = (np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32) for seed in range(4))

each_schedule = pytest.mark.parametrize("name", SCHEDULES)
each_prediction = pytest.mark.parametrize("prediction", PREDICTIONS)


def scheduler(cls, name, prediction="epsilon", **options):
    config = {"num_train_timesteps": T, "prediction_type": PREDICTIONS[prediction], **SCHEDULES[name][1], **options}
    return getattr(diffusers, cls)(**config)


@each_schedule
def test_schedules_are_the_same(name):
    ours, theirs = SCHEDULES[name][0], scheduler("DDPMScheduler", name)
    np.testing.assert_allclose(ours.betas, theirs.betas, rtol=2e-5)
    # Theirs is a product of a thousand float32.
    np.testing.assert_allclose(ours.alphas_bar[1:], theirs.alphas_cumprod, rtol=3e-4)


@each_schedule
@pytest.mark.parametrize("time", [0, 5, 500, 998])
def test_marginals_and_v_are_the_same(name, time):
    ours, theirs = SCHEDULES[name][0], scheduler("DDPMScheduler", name)
    times = np.full(2, time)
    parts = tuple(torch.from_numpy(value) for value in (X0, NOISE, times))
    np.testing.assert_allclose(diffusion.add_noise(ours, X0, times, NOISE), theirs.add_noise(*parts), atol=3e-4)
    v = diffusion.target(ours, "v", X0, times, NOISE)
    np.testing.assert_allclose(v, theirs.get_velocity(*parts), atol=3e-4)


def one_step(name, prediction, times, steps, index, clip, draw):
    """Ours from times[index] on, with `draw` in place of random numbers."""
    of_x0, of_x, deviation = (float(part[index]) for part in steps)
    at = jnp.full(len(X), times[index])
    x0, _ = diffusion.estimates(SCHEDULES[name][0], prediction, OUTPUT, X, at)
    x0 = jnp.clip(x0, -1, 1) if clip else x0
    return of_x0 * x0 + of_x * X + deviation * draw, x0


def close(ours, theirs, x0):
    """Estimates of the data at the noisiest times are hundreds, of which float32 keeps seven digits."""
    np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=1e-3 * max(1.0, float(np.abs(x0).max()) / 20))


@each_schedule
@each_prediction
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(
    ("num_steps", "spacing"), [(1000, "leading"), (50, "leading"), (50, "trailing"), (7, "linspace")]
)
@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_ancestral_steps_are_ddpms(name, prediction, clip, num_steps, spacing, variance, monkeypatch):
    theirs = scheduler(
        "DDPMScheduler",
        name,
        prediction,
        clip_sample=clip,
        timestep_spacing=spacing,
        variance_type={"posterior": "fixed_small", "beta": "fixed_large"}[variance],
    )
    theirs.set_timesteps(num_steps)
    times = diffusion.sampling_times(T, num_steps, spacing)
    assert theirs.timesteps.tolist() == times.tolist()
    steps = diffusion.ancestral_steps(SCHEDULES[name][0], times, variance)
    draw = np.random.default_rng(9).normal(size=SHAPE).astype(np.float32)
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: torch.from_numpy(draw))
    for index in {0, 1, num_steps // 2, num_steps - 2, num_steps - 1}:
        last = index == num_steps - 1
        if last and times[-1] != 0:
            continue  # theirs draws in the last step to the data unless it begins at time 0; ours never does
        ours, x0 = one_step(name, prediction, times, steps, index, clip, draw)
        result = theirs.step(torch.from_numpy(OUTPUT), int(times[index]), torch.from_numpy(X))
        close(x0, result.pred_original_sample, x0)
        close(ours, result.prev_sample, x0)


@each_schedule
@each_prediction
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(("num_steps", "spacing"), [(1000, "leading"), (50, "leading"), (50, "trailing")])
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_ddim_steps_are_the_same(name, prediction, clip, num_steps, spacing, eta):
    """Theirs leaves the noise as it was where it clips the data, unless it is told to make it fit, as ours does.

    With `linspace` it goes by T // S from each time and not to the next, so that is not compared.
    """
    theirs = scheduler(
        "DDIMScheduler", name, prediction, clip_sample=clip, timestep_spacing=spacing, set_alpha_to_one=True
    )
    theirs.set_timesteps(num_steps)
    times = diffusion.sampling_times(T, num_steps, spacing)
    assert theirs.timesteps.tolist() == times.tolist()
    steps = diffusion.ddim_steps(SCHEDULES[name][0], times, eta)
    draw = np.random.default_rng(9).normal(size=SHAPE).astype(np.float32)
    for index in {0, 1, num_steps // 2, num_steps - 2, num_steps - 1}:
        ours, x0 = one_step(name, prediction, times, steps, index, clip, draw)
        result = theirs.step(
            torch.from_numpy(OUTPUT),
            int(times[index]),
            torch.from_numpy(X),
            eta=eta,
            use_clipped_model_output=True,
            variance_noise=torch.from_numpy(draw) if eta else None,
        )
        close(x0, result.pred_original_sample, x0)
        close(ours, result.prev_sample, x0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_whole_ways_of_ddim_are_the_same(name):
    """A denoiser that both ask: fifty steps, each from where the one before ended."""
    schedule = SCHEDULES[name][0]
    theirs = scheduler("DDIMScheduler", name, "v", clip_sample=True, timestep_spacing="trailing")
    theirs.set_timesteps(50)
    times = diffusion.sampling_times(T, 50)
    predict = lambda x, at: jnp.tanh(x) * jnp.cos(at / 300)[:, None, None]
    steps = diffusion.ddim_steps(schedule, times)
    ours = diffusion.sample(
        predict, schedule, "v", times, steps, jnp.asarray(X), jax.random.split(jax.random.key(0), 2)
    )
    x = torch.from_numpy(X)
    for time in theirs.timesteps:
        output = torch.tanh(x) * torch.cos(time / 300)
        x = theirs.step(output, time, x, use_clipped_model_output=True).prev_sample
    np.testing.assert_allclose(ours, x, rtol=2e-3, atol=2e-3)


# The networks. Theirs are given our random weights under their names.


def tensor(array):
    return torch.from_numpy(np.array(array))


def dense(params):
    return {"weight": tensor(params["kernel"]).T, "bias": tensor(params["bias"])}


def conv(params):
    return {"weight": tensor(params["kernel"]).permute(3, 2, 0, 1), "bias": tensor(params["bias"])}


def norm(params):
    [params] = params.values()
    return {"weight": tensor(params["scale"]), "bias": tensor(params["bias"])}


def time_hidden(params):
    """Ours takes sine and cosine of each frequency next to each other, theirs all cosines and then all sines."""
    kernel = np.array(params["kernel"])
    return dense({"kernel": np.concatenate([kernel[1::2], kernel[::2]]), "bias": params["bias"]})


def attention(params):
    names = {"query": "to_q", "key": "to_k", "value": "to_v", "output": "to_out.0"}
    return {theirs: dense(params[ours]) for ours, theirs in names.items()}


def state_of(tree, prefix=""):
    """A nested dictionary as one of dotted names."""
    flat = {}
    for name, value in tree.items():
        flat |= state_of(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def residual_block(params):
    names = {"norm1": norm, "conv1": conv, "norm2": norm, "conv2": conv}
    block = {name: function(params[name]) for name, function in names.items()}
    block["time_emb_proj"] = dense(params["condition"])
    return block | ({"conv_shortcut": conv(params["shortcut"])} if "shortcut" in params else {})


def attention_block(params):
    return {"group_norm": norm(params["norm"])} | attention(params["attention"])


def unet_state(model, params):
    state = {
        "conv_in": conv(params["input"]),
        "conv_out": conv(params["output"]),
        "conv_norm_out": norm(params["output_norm"]),
        "time_embedding.linear_1": time_hidden(params["condition"]["time_hidden"]),
        "time_embedding.linear_2": dense(params["condition"]["time"]),
        "class_embedding": {"weight": tensor(params["condition"]["classes"]["embedding"])},
        "mid_block.resnets.0": residual_block(params["middle_block1"]),
        "mid_block.resnets.1": residual_block(params["middle_block2"]),
        "mid_block.attentions.0": attention_block(params["middle_attention"]),
    }
    levels = len(model.multipliers)
    for way, count in (("down", model.blocks_per_level), ("up", model.blocks_per_level + 1)):
        for index in range(levels):
            place = f"{way}_blocks.{index if way == 'down' else levels - 1 - index}"
            for number in range(count):
                name = f"{way}{index}_{number}"
                state[f"{place}.resnets.{number}"] = residual_block(params[f"{name}_block"])
                if index in model.attention_levels:
                    state[f"{place}.attentions.{number}"] = attention_block(params[f"{name}_attention"])
            if f"{way}{index}" in params:
                state[f"{place}.{way}samplers.0.conv"] = conv(params[f"{way}{index}"])
    return state_of(state)


@pytest.mark.parametrize("attention_levels", [(1,), (0, 2)])
def test_unet_is_unet2dmodel(attention_levels):
    fields = {"width": 8, "multipliers": (1, 2, 3), "blocks_per_level": 2, "num_groups": 4, "num_heads": 2}
    model = create("unet", **fields, attention_levels=attention_levels, num_classes=5)
    shape = (8, 16, 3)
    variables = random_variables(model, (shape, (), ()), ("float32", "int32", "int32"))
    kinds = ["Attn" if index in attention_levels else "" for index in range(3)]
    reference = diffusers.UNet2DModel(
        in_channels=3,
        out_channels=3,
        block_out_channels=(8, 16, 24),
        layers_per_block=2,
        down_block_types=[f"{kind}DownBlock2D" for kind in kinds],
        up_block_types=[f"{kind}UpBlock2D" for kind in reversed(kinds)],
        norm_num_groups=4,
        norm_eps=1e-6,
        num_class_embeds=6,
        attention_head_dim=None,
    ).eval()
    for module in reference.modules():
        if type(module).__name__ == "Attention":
            module.heads = 2
            module.scale = (module.to_q.out_features // 2) ** -0.5
    reference.load_state_dict(unet_state(model, variables["params"]))
    images = np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32)
    times, labels = np.array([3, 870]), np.array([4, 5])
    ours = jax.jit(functools.partial(model.apply, train=False))(variables, images, times, labels)
    with torch.no_grad():
        theirs = reference(tensor(images).permute(0, 3, 1, 2), tensor(times), class_labels=tensor(labels)).sample
    # Some thirty layers of float32, with outputs of the order of ten.
    np.testing.assert_allclose(ours, theirs.permute(0, 2, 3, 1), rtol=2e-3, atol=2e-3)


def dit_state(model, params):
    condition = {
        "timestep_embedder.linear_1": time_hidden(params["condition"]["time_hidden"]),
        "timestep_embedder.linear_2": dense(params["condition"]["time"]),
        "class_embedder.embedding_table": {"weight": tensor(params["condition"]["classes"]["embedding"])},
    }
    kernel, size = np.array(params["patches"]["kernel"]), model.patch_size
    window = conv({"kernel": kernel.reshape(size, size, -1, model.width), "bias": params["patches"]["bias"]})
    state = {
        "pos_embed.proj": window,
        "proj_out_1": dense(params["output_modulation"]["dense"]),
        "proj_out_2": dense(params["output"]),
    }
    for index in range(model.num_layers):
        block = params["layers"][f"block{index}"]
        of_attention, of_mlp = (dense(block[f"{name}_modulation"]["dense"]) for name in ("attention", "mlp"))
        place = f"transformer_blocks.{index}"
        state[f"{place}.norm1.linear"] = {
            name: torch.cat([of_attention[name], of_mlp[name]]) for name in ("weight", "bias")
        }
        state[f"{place}.norm1.emb"] = condition  # theirs has one in each block
        state[f"{place}.attn1"] = attention(block["attention"])
        state[f"{place}.ff.net.0.proj"] = dense(block["mlp"]["hidden"])
        state[f"{place}.ff.net.2"] = dense(block["mlp"]["output"])
    return state_of(state)


def test_dit_is_dittransformer2dmodel():
    model = create("dit", patch_size=2, width=16, num_layers=3, num_heads=4, num_classes=5)
    shape = (8, 8, 3)
    variables = random_variables(model, (shape, (), ()), ("float32", "int32", "int32"))
    reference = diffusers.DiTTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=4,
        in_channels=3,
        out_channels=3,
        num_layers=3,
        norm_num_groups=1,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=5,
        norm_eps=1e-6,
    ).eval()
    for block in reference.transformer_blocks:
        # The frequencies of the paper's code; theirs are stretched by 128 / 127.
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    missing, unexpected = reference.load_state_dict(dit_state(model, variables["params"]), strict=False)
    assert not unexpected and all("pos_embed.pos_embed" in name for name in missing)
    images = np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32)
    times, labels = np.array([3, 870]), np.array([4, 5])
    ours = jax.jit(functools.partial(model.apply, train=False))(variables, images, times, labels)
    with torch.no_grad():
        theirs = reference(tensor(images).permute(0, 3, 1, 2), tensor(times), class_labels=tensor(labels)).sample
    np.testing.assert_allclose(ours, theirs.permute(0, 2, 3, 1), rtol=1e-3, atol=1e-3)
