"""CLIP held against Hugging Face's CLIPModel, through files, with random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from jaxdl import losses  # noqa: E402
from jaxdl.errors import InputError  # noqa: E402
from jaxdl.models import MODELS, create  # noqa: E402
from jaxdl.scaling.flops import model_shapes, parameter_count  # noqa: E402
from jaxdl.weights import load_parameters, load_safetensors, save_safetensors, to_hugging_face  # noqa: E402

pytestmark = pytest.mark.reference

# Float32 sums of up to 200 terms through at most four layers; logits are cosines times up to 100.
CLOSE = {"atol": 2e-3, "rtol": 2e-4}

SIZES = {
    "tiny": ((1, 8, 1), (1, 8, 1), {"patch_size": 4, "projection_width": 5}, (8, 3)),
    "deep": ((4, 32, 4), (2, 16, 2), {"patch_size": 3, "projection_width": 12, "activation": "gelu"}, (12, 3)),
    "wide": ((2, 48, 6), (3, 24, 3), {"patch_size": 7, "projection_width": 16, "norm_epsilon": 1e-3}, (28, 1)),
}


def hugging_face_clip(case, scan_layers=False):
    (layers, width, heads), (text_layers, text_width, text_heads), fields, (side, channels) = SIZES[case]
    model = create(
        "clip",
        num_layers=layers,
        width=width,
        num_heads=heads,
        text_num_layers=text_layers,
        text_width=text_width,
        text_num_heads=text_heads,
        vocab_size=61,
        max_length=10,
        scan_layers=scan_layers,
        **fields,
    )
    common = {"hidden_act": model.activation, "layer_norm_eps": model.norm_epsilon}
    text = {"num_hidden_layers": text_layers, "hidden_size": text_width, "intermediate_size": 4 * text_width}
    image = {"num_hidden_layers": layers, "hidden_size": width, "intermediate_size": 4 * width}
    text |= {"num_attention_heads": text_heads, "vocab_size": 61, "max_position_embeddings": 10, "eos_token_id": 60}
    image |= {"num_attention_heads": heads, "image_size": side, "patch_size": model.patch_size}
    config = transformers.CLIPConfig(
        text_config={**text, **common, "bos_token_id": 0, "pad_token_id": 1},
        vision_config={**image, **common, "num_channels": channels},
        projection_dim=model.projection_width,
    )
    return model, transformers.CLIPModel(config), (side, side, channels)


@pytest.fixture(scope="module", params=[(case, scan) for case in SIZES for scan in (False, True)], ids=str)
def pair(request, tmp_path_factory):
    """(ours, its variables out of the file, theirs, the folder of theirs, the shape of an image)."""
    torch.manual_seed(0)
    model, theirs, shape = hugging_face_clip(*request.param)
    for parameter in theirs.parameters():  # no bias, scale or token is trivially zero or one
        torch.nn.init.normal_(parameter, 0.5 if parameter.ndim == 1 else 0, 0.2)
    theirs.logit_scale.data.fill_(2.5)
    folder = tmp_path_factory.mktemp("clip")
    theirs.eval().save_pretrained(folder)
    return model, {"params": load_parameters(folder, model)}, theirs, folder, shape


def inputs_of(shape):
    random = np.random.default_rng(0)
    images = random.normal(size=(3, *shape)).astype(np.float32)
    lengths = np.array([10, 4, 1])
    tokens = random.integers(0, 60, (3, 10))
    tokens[np.arange(3), lengths - 1] = 60  # the end-of-text token; what stands behind it counts nowhere
    return images, tokens.astype(np.int32), lengths.astype(np.int32)


def test_logits_embeddings_and_loss(pair):
    model, variables, theirs, _, shape = pair
    images, tokens, lengths = inputs_of(shape)
    with torch.no_grad():
        there = theirs(
            input_ids=torch.from_numpy(tokens).long(),
            pixel_values=torch.from_numpy(images.transpose(0, 3, 1, 2)),
            return_loss=True,
        )
    pairs = jax.jit(lambda *inputs: model.apply(variables, *inputs, train=False))(images, tokens, lengths)
    np.testing.assert_allclose(pairs[:, 0] @ pairs[:, 1].T, there.logits_per_image.numpy(), **CLOSE)
    np.testing.assert_allclose(pairs[:, 1] @ pairs[:, 0].T, there.logits_per_text.numpy(), **CLOSE)
    np.testing.assert_allclose(pairs[:, 1], there.text_embeds.numpy(), atol=1e-4)
    image = model.apply(variables, images, train=False, method="encode_image")
    np.testing.assert_allclose(image, there.image_embeds.numpy(), atol=1e-4)
    halves = [losses.batch_logits(pairs[:, half], pairs[:, 1 - half]) for half in (0, 1)]
    loss = sum(losses.softmax_cross_entropy(*half).mean() for half in halves) / 2
    assert float(loss) == pytest.approx(float(there.loss), rel=1e-3)


def test_exported_arrays_are_theirs_and_load_there(pair, tmp_path):
    model, variables, theirs, folder, _ = pair
    exported = to_hugging_face(model, variables["params"])
    original = load_safetensors(folder)
    assert set(exported) == {name for name in original if not name.endswith("position_ids")}
    for name, array in exported.items():
        np.testing.assert_array_equal(array, original[name])
    theirs.config.save_pretrained(tmp_path)
    save_safetensors(tmp_path / "model.safetensors", exported)
    again = type(theirs).from_pretrained(tmp_path)
    for ours, other in zip(again.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(ours, other, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["clip_vit_b32", "clip_vit_b16", "clip_vit_l14"])
def test_named_sizes_have_as_many_parameters(name):
    model = create(name)
    vision = {"hidden_size": model.width, "num_hidden_layers": model.num_layers, "patch_size": model.patch_size}
    vision |= {"num_attention_heads": model.num_heads, "intermediate_size": 4 * model.width}
    text = {"hidden_size": model.text_width, "num_hidden_layers": model.text_num_layers}
    text |= {"num_attention_heads": model.text_num_heads, "intermediate_size": 4 * model.text_width}
    with torch.device("meta"):
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=model.projection_width)
        theirs = transformers.CLIPModel(config)
    ours = parameter_count(model_shapes(model, MODELS[name].input_shape, MODELS[name].input_dtype))
    assert ours == sum(parameter.numel() for parameter in theirs.parameters())


def test_weights_of_other_sizes_are_told(tmp_path):
    model, theirs, _ = hugging_face_clip("tiny")
    theirs.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"text_model.encoder.layers.1.*absent there"):
        load_parameters(tmp_path, model.clone(text_num_layers=2))


def test_scale_stops_at_100_there_and_here():
    """Their training clamps the parameter; ours stops the value, and lets the gradient through."""
    model, _, _ = hugging_face_clip("tiny")
    inputs = jnp.zeros((1, 8, 8, 3)), jnp.zeros((1, 10), jnp.int32), jnp.ones(1, jnp.int32)
    variables = model.init(jax.random.key(0), *inputs, train=False)

    def scale(log_scale):
        return model.apply({"params": {**variables["params"], "log_scale": log_scale}}, method="scale")

    for log_scale, expected in ((2.0, np.exp(2.0)), (np.log(100.0), 100.0), (7.0, 100.0)):
        value, slope = jax.value_and_grad(scale)(jnp.float32(log_scale))
        assert float(value) == pytest.approx(expected, rel=1e-5) and float(slope) == pytest.approx(expected, rel=1e-5)
