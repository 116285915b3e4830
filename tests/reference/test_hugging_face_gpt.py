"""GPT-2 and Llama held against Hugging Face Transformers, through files, with random weights."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from jaxdl.models import create  # noqa: E402
from jaxdl.weights import (  # noqa: E402
    from_hugging_face,
    load_parameters,
    load_safetensors,
    save_safetensors,
    to_hugging_face,
)

pytestmark = pytest.mark.reference

GPT2 = {
    "tiny": {"vocab_size": 11, "max_length": 16, "num_layers": 1, "num_heads": 1, "width": 8},
    "deep": {"vocab_size": 61, "max_length": 32, "num_layers": 5, "num_heads": 4, "width": 32},
    "wide, relu": {
        "vocab_size": 301,
        "max_length": 24,
        "num_layers": 2,
        "num_heads": 12,
        "width": 96,
        "mlp_width": 200,
    },
}
LLAMA = {
    "multi-head": {"vocab_size": 11, "num_layers": 1, "num_heads": 2, "width": 8, "mlp_width": 12},
    "grouped queries": {
        "vocab_size": 61,
        "num_layers": 4,
        "num_heads": 6,
        "num_kv_heads": 2,
        "width": 48,
        "mlp_width": 80,
    },
    "one key head, tied": {
        "vocab_size": 301,
        "num_layers": 2,
        "num_heads": 4,
        "num_kv_heads": 1,
        "head_dim": 6,
        "width": 64,
        "mlp_width": 100,
        "rope_theta": 500.0,
        "norm_epsilon": 1e-3,
        "tied_head": True,
    },
}


def hugging_face_gpt2(fields):
    model = create("gpt2", **fields, activation="relu" if fields["width"] == 96 else "gelu_tanh")
    config = transformers.GPT2Config(
        vocab_size=model.vocab_size,
        n_positions=model.max_length,
        n_embd=model.width,
        n_layer=model.num_layers,
        n_head=model.num_heads,
        n_inner=model.mlp_width,
        activation_function={"relu": "relu", "gelu_tanh": "gelu_new"}[model.activation],
        layer_norm_epsilon=model.norm_epsilon,
    )
    return model, transformers.GPT2LMHeadModel(config)


def hugging_face_llama(fields):
    model = create("llama2_7b", **fields)
    config = transformers.LlamaConfig(
        vocab_size=model.vocab_size,
        hidden_size=model.width,
        intermediate_size=model.mlp_width,
        num_hidden_layers=model.num_layers,
        num_attention_heads=model.num_heads,
        num_key_value_heads=model.num_kv_heads,
        head_dim=model.head_dim,
        max_position_embeddings=64,
        rms_norm_eps=model.norm_epsilon,
        rope_parameters={"rope_type": "default", "rope_theta": model.rope_theta},
        tie_word_embeddings=model.tied_head,
    )
    return model, transformers.LlamaForCausalLM(config)


CASES = {
    **{f"gpt2 {name}": (hugging_face_gpt2, fields) for name, fields in GPT2.items()},
    **{f"llama {name}": (hugging_face_llama, fields) for name, fields in LLAMA.items()},
}


@pytest.fixture(scope="module", params=itertools.product(CASES, (False, True)), ids=lambda p: f"{p[0]}, scan={p[1]}")
def pair(request, tmp_path_factory):
    """(ours, its variables out of the file, theirs, the folder of theirs)."""
    case, scan_layers = request.param
    build, fields = CASES[case]
    torch.manual_seed(0)
    model, theirs = build(fields)
    for parameter in theirs.parameters():  # no bias, scale or frequency is trivially zero or one
        torch.nn.init.normal_(parameter, 0.5 if parameter.ndim == 1 else 0, 0.2)
    theirs.eval()
    folder = tmp_path_factory.mktemp("model")
    theirs.save_pretrained(folder)
    model = model.clone(scan_layers=scan_layers)
    return model, {"params": from_hugging_face(model, load_safetensors(folder))}, theirs, folder


def tokens_for(model, batch, length):
    return np.random.default_rng(0).integers(0, model.vocab_size, (batch, length))


def test_logits(pair):
    model, variables, theirs, _ = pair
    tokens = tokens_for(model, 3, 14)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(tokens)).logits.numpy()
    logits = jax.jit(functools.partial(model.apply, train=False))(variables, jnp.asarray(tokens, jnp.int32))
    # Five layers of float32 sums of up to 200 terms; logits are of the order of one to ten.
    np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=1e-4)


def test_exported_arrays_are_theirs_and_load_there(pair, tmp_path):
    model, variables, theirs, folder = pair
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


def test_a_file_of_either_names_serves(pair, tmp_path):
    model, variables, _, folder = pair
    save_safetensors(tmp_path / "ours.safetensors", variables["params"])
    for path in (folder, folder / "model.safetensors", tmp_path / "ours.safetensors"):
        jax.tree.map(np.testing.assert_array_equal, load_parameters(path, model), variables["params"])


def test_greedy_generation_with_a_cache(pair):
    model, variables, theirs, _ = pair
    prompts, lengths, length = tokens_for(model, 3, 5), [5, 1, 3], 9
    start = jax.jit(functools.partial(model.apply, method="start"), static_argnums=3)
    step = jax.jit(functools.partial(model.apply, method="step"))
    carry, logits = start(variables, jnp.asarray(prompts, jnp.int32), jnp.asarray(lengths), 5 + length)
    generated = []
    for _ in range(length):
        generated.append(logits.argmax(-1))
        carry, logits = step(variables, carry, generated[-1])
    for row, (prompt, own_length) in enumerate(zip(prompts, lengths)):
        prompt = torch.from_numpy(prompt[None, :own_length])
        expected = theirs.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=length,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        assert [int(token[row]) for token in generated] == expected[0, own_length:].tolist()
