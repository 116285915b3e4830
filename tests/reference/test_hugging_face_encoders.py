"""ViT and BERT held against Hugging Face Transformers, through files, with random weights."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from jaxdl.errors import InputError  # noqa: E402
from jaxdl.models import create  # noqa: E402
from jaxdl.weights import (  # noqa: E402
    from_hugging_face,
    load_parameters,
    load_safetensors,
    save_safetensors,
    to_hugging_face,
)

pytestmark = pytest.mark.reference

# Float32 sums of up to 200 terms through at most five layers, after each of which numbers are of the order of one.
CLOSE = {"atol": 2e-4, "rtol": 2e-4}

VIT = {
    "tiny, grey": ({"patch_size": 4, "width": 8, "num_layers": 1, "num_heads": 1, "num_outputs": 3}, (8, 8, 1)),
    "deep": ({"patch_size": 3, "width": 32, "num_layers": 5, "num_heads": 4, "num_outputs": 10}, (12, 12, 3)),
    "wide, relu": (
        {
            "patch_size": 7,
            "width": 96,
            "num_layers": 2,
            "num_heads": 12,
            "mlp_width": 200,
            "num_outputs": 5,
            "activation": "relu",
            "norm_epsilon": 1e-3,
        },
        (28, 28, 2),
    ),
}
BERT = {
    "tiny": {"vocab_size": 11, "max_length": 16, "num_layers": 1, "num_heads": 1, "width": 8},
    "deep": {"vocab_size": 61, "max_length": 16, "num_layers": 5, "num_heads": 4, "width": 32, "num_token_types": 3},
    "wide, relu": {
        "vocab_size": 301,
        "max_length": 24,
        "num_layers": 2,
        "num_heads": 12,
        "width": 96,
        "mlp_width": 200,
        "activation": "relu",
        "norm_epsilon": 1e-3,
    },
}
TASKS = {"bert": "BertForMaskedLM", "bert_classifier": "BertForSequenceClassification"}


def hugging_face_vit(case):
    fields, (side, _, channels) = VIT[case]
    model = create("vit", **fields)
    config = transformers.ViTConfig(
        hidden_size=model.width,
        num_hidden_layers=model.num_layers,
        num_attention_heads=model.num_heads,
        intermediate_size=model.mlp_width or 4 * model.width,
        hidden_act=model.activation,
        layer_norm_eps=model.norm_epsilon,
        image_size=side,
        patch_size=model.patch_size,
        num_channels=channels,
        num_labels=model.num_outputs,
    )
    return model, transformers.ViTForImageClassification(config)


def hugging_face_bert(name, case):
    model = create(name, **BERT[case], **({"num_outputs": 3} if name == "bert_classifier" else {}))
    config = transformers.BertConfig(
        vocab_size=model.vocab_size,
        hidden_size=model.width,
        num_hidden_layers=model.num_layers,
        num_attention_heads=model.num_heads,
        intermediate_size=model.mlp_width or 4 * model.width,
        hidden_act=model.activation,
        max_position_embeddings=model.max_length,
        type_vocab_size=model.num_token_types,
        layer_norm_eps=model.norm_epsilon,
        num_labels=3,
    )
    return model, getattr(transformers, TASKS[name])(config)


CASES = {f"vit {case}": functools.partial(hugging_face_vit, case) for case in VIT}
CASES |= {f"{name} {case}": functools.partial(hugging_face_bert, name, case) for name in TASKS for case in BERT}


@pytest.fixture(scope="module", params=itertools.product(CASES, (False, True)), ids=lambda p: f"{p[0]}, scan={p[1]}")
def pair(request, tmp_path_factory):
    """(ours, its variables out of the file, theirs, the folder of theirs, the case)."""
    case, scan_layers = request.param
    torch.manual_seed(0)
    model, theirs = CASES[case]()
    for parameter in theirs.parameters():  # no bias, scale or token is trivially zero or one
        torch.nn.init.normal_(parameter, 0.5 if parameter.ndim == 1 else 0, 0.2)
    theirs.eval()
    folder = tmp_path_factory.mktemp("model")
    theirs.save_pretrained(folder)
    model = model.clone(scan_layers=scan_layers)
    return model, {"params": from_hugging_face(model, load_safetensors(folder))}, theirs, folder, case


def outputs_of(model, variables, theirs, case):
    """Ours and theirs: (logits, outputs of embeddings and layers, one after the other)."""
    random = np.random.default_rng(0)
    with torch.no_grad():
        if case.startswith("vit"):
            shape = VIT[case.removeprefix("vit ")][1]
            images = random.normal(size=(3, *shape)).astype(np.float32)
            inputs = (jnp.asarray(images),)
            there = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), output_hidden_states=True)
        else:
            tokens = random.integers(0, model.vocab_size, (3, 12))
            types = random.integers(0, model.num_token_types, (3, 12))
            lengths = np.array([12, 7, 1])
            inputs = (jnp.asarray(tokens), jnp.asarray(lengths), None, jnp.asarray(types))
            mask = np.arange(12)[None] < lengths[:, None]
            there = theirs(
                torch.from_numpy(tokens),
                attention_mask=torch.from_numpy(mask.astype(np.int64)),
                token_type_ids=torch.from_numpy(types),
                output_hidden_states=True,
            )
    ours, state = jax.jit(
        functools.partial(
            model.apply,
            train=False,
            mutable="intermediates",
            capture_intermediates=lambda module, _: (module.name or "").startswith(
                ("block", "output_norm", "embedding_n")
            ),
        )
    )(variables, *inputs)
    return ours, state["intermediates"], there


def test_logits_and_hidden_states(pair):
    model, variables, theirs, _, case = pair
    logits, hidden, there = outputs_of(model, variables, theirs, case)
    logits, expected = np.asarray(logits), there.logits.numpy()
    states, real = [state.numpy() for state in there.hidden_states], np.s_[:]
    if not case.startswith("vit"):
        hidden, real = hidden["encoder"], np.arange(12)[None] < np.array([12, 7, 1])[:, None]
        np.testing.assert_allclose(hidden["embedding_norm"]["__call__"][0], states[0], **CLOSE)
    if not model.scan_layers:
        for layer in range(model.num_layers):
            [(ours, _)] = hidden["layers"][f"block{layer}"]["__call__"]
            np.testing.assert_allclose(np.asarray(ours)[real], states[layer + 1][real], **CLOSE)
    if case.startswith("bert "):  # what stands in the place of padding says nothing
        logits, expected = logits[real], expected[real]
    np.testing.assert_allclose(logits, expected, **CLOSE)


def test_exported_arrays_are_theirs_and_load_there(pair, tmp_path):
    model, variables, theirs, folder, _ = pair
    exported = to_hugging_face(model, variables["params"])
    original = load_safetensors(folder)
    assert set(exported) == set(original)
    for name, array in original.items():
        np.testing.assert_array_equal(exported[name], array)
    theirs.config.save_pretrained(tmp_path)
    save_safetensors(tmp_path / "model.safetensors", exported)
    again = type(theirs).from_pretrained(tmp_path)
    for ours, other in zip(again.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(ours, other, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["BertModel", "BertForPreTraining", "BertForMaskedLM"])
def test_the_pooled_output_and_the_encoder_of_files_with_other_heads(kind, tmp_path):
    """A classifier begins with what is pretrained; `BertModel` has its pooler, whose output it goes through."""
    model, _ = hugging_face_bert("bert_classifier", "deep")
    config = hugging_face_bert("bert_classifier", "deep")[1].config
    theirs = getattr(transformers, kind)(config).eval()
    theirs.save_pretrained(tmp_path)
    params = load_parameters(tmp_path, model)
    assert set(params) == {"encoder"} | ({"pooler"} if kind != "BertForMaskedLM" else set())
    with pytest.raises(InputError, match=r"classifier.weight is absent there and \[3, 32\] here"):
        from_hugging_face(model, load_safetensors(tmp_path))
    if kind != "BertModel":
        masked = load_parameters(tmp_path, create("bert", **BERT["deep"]))
        assert set(masked) == {"encoder", "transform", "transform_norm", "bias"}
        return
    params["output"] = {"kernel": np.eye(32, 3, dtype=np.float32), "bias": np.zeros(3, np.float32)}
    tokens = np.random.default_rng(0).integers(0, model.vocab_size, (3, 12))
    with torch.no_grad():
        expected = theirs(torch.from_numpy(tokens)).pooler_output.numpy()
    pooled = model.apply({"params": params}, jnp.asarray(tokens), train=False)
    np.testing.assert_allclose(pooled, expected[:, :3], **CLOSE)


def test_weights_of_other_sizes_are_told(tmp_path):
    model, theirs = hugging_face_vit("deep")
    theirs.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="vit.encoder.layer.4.*absent here"):
        load_parameters(tmp_path, model.clone(num_layers=4))
    with pytest.raises(InputError, match="only a ViT of pool=class and positions=learned"):
        load_parameters(tmp_path, model.clone(pool="mean"))
