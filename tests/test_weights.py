"""Files of weights, and their names at Hugging Face. tests/reference holds them against the original."""

import pickle

import jax
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.hugging_face import Rule
from jaxdl.models import create
from jaxdl.weights import from_hugging_face, load_parameters, load_safetensors, save_safetensors, to_hugging_face
from tests.models.variables import random_variables

SMALL = {"vocab_size": 7, "max_length": 5, "num_layers": 3, "num_heads": 2, "width": 8}
LLAMA = {**SMALL, "mlp_width": 12, "num_kv_heads": 1}
MODELS = {
    "gpt2": ("gpt2", SMALL),
    "gpt2 scan": ("gpt2", {**SMALL, "scan_layers": True}),
    "llama": ("llama3_8b", LLAMA),
    "llama scan, tied": ("llama3_8b", {**LLAMA, "scan_layers": True, "tied_head": True}),
}


def built(case):
    name, fields = MODELS[case]
    model = create(name, **fields)
    return model, random_variables(model, (5,), "int32")["params"]


def assert_equal(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize("case", MODELS)
def test_there_and_back(case, tmp_path):
    model, params = built(case)
    theirs = to_hugging_face(model, params)
    assert_equal(from_hugging_face(model, theirs), jax.device_get(params))
    for name, arrays in (("ours", params), ("theirs", theirs)):
        save_safetensors(tmp_path / f"{name}.safetensors", arrays)
        assert_equal(load_parameters(tmp_path / f"{name}.safetensors", model), jax.device_get(params))


def test_names_and_shapes_of_gpt2():
    theirs = to_hugging_face(*built("gpt2"))
    assert len(theirs) == 2 + 3 * 12 + 2
    assert theirs["transformer.h.2.attn.c_attn.weight"].shape == (8, 24)
    assert theirs["transformer.h.0.mlp.c_fc.weight"].shape == (8, 32)


def test_a_folder_of_several_files(tmp_path):
    model, params = built("llama")
    theirs = to_hugging_face(model, params)
    names = sorted(theirs)
    for index, part in enumerate((names[:5], names[5:])):
        save_safetensors(tmp_path / f"model-{index}.safetensors", {name: theirs[name] for name in part})
    assert_equal(load_parameters(tmp_path, model), jax.device_get(params))


def test_names_of_the_hub_without_prefix_and_with_masks():
    """The hub's GPT-2 has neither `transformer.` nor `lm_head`, but the causal masks."""
    model, params = built("gpt2")
    theirs = {name.removeprefix("transformer."): array for name, array in to_hugging_face(model, params).items()}
    theirs["h.0.attn.bias"] = np.ones((1, 1, 5, 5))
    theirs["lm_head.weight"] = theirs["wte.weight"]
    assert_equal(from_hugging_face(model, theirs), jax.device_get(params))


def test_a_rule_that_folds_axes_is_inverted():
    rule = Rule("conv", ("patches/kernel",), axes=(2, 3, 1, 0), folded=(2, 2, -1, 5))
    theirs = np.arange(5 * 3 * 2 * 2.0).reshape(5, 3, 2, 2)
    (ours,) = rule.take(theirs, [(12, 5)])
    np.testing.assert_array_equal(rule.export([ours]), theirs)
    np.testing.assert_array_equal(ours[:, 4].reshape(2, 2, 3), theirs[4].transpose(1, 2, 0))


def test_every_array_that_differs_is_named_with_both_shapes():
    model, params = built("gpt2")
    theirs = to_hugging_face(model, params)
    del theirs["transformer.h.1.ln_1.bias"]
    theirs["transformer.wpe.weight"] = np.zeros((9, 8))
    theirs["transformer.h.3.ln_1.bias"] = np.zeros(8)
    with pytest.raises(InputError) as caught:
        from_hugging_face(model, theirs)
    assert str(caught.value) == (
        "the weights are another architecture's: transformer.wpe.weight is [9, 8] there and [5, 8] here; "
        "transformer.h.1.ln_1.bias is absent there and [8] here; "
        "transformer.h.3.ln_1.bias is [8] there and absent here."
    )


def test_of_many_arrays_that_differ_some_are_named_and_the_others_counted():
    model, _ = built("gpt2")
    theirs = to_hugging_face(*built("llama"))
    with pytest.raises(InputError, match=r"transformer.wte.weight is absent there.*; and \d+ more\.$") as caught:
        from_hugging_face(model, theirs)
    assert len(str(caught.value)) < 1000


def test_an_untied_head_is_not_dropped():
    model, params = built("gpt2")
    with pytest.raises(InputError, match="lm_head.weight is not transformer.wte.weight.*tied_head=False"):
        from_hugging_face(model, {**to_hugging_face(model, params), "lm_head.weight": np.ones((7, 8))})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.bin", pickle.dumps({"a": 1}), "model.bin is a pickle, which may run code"),
        ("model.pt", b"", "model.pt is a pickle"),
        ("model.safetensors", pickle.dumps({"a": 1}), "cannot be read as a safetensors file"),
        ("model.safetensors", b"", "cannot be read as a safetensors file"),
    ],
)
def test_files_that_are_refused(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_safetensors(tmp_path / name)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(InputError, match="absent.safetensors cannot be read"):
        load_safetensors(tmp_path / "absent.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match="has no .safetensors file; pytorch_model.bin may run code"):
        load_safetensors(tmp_path)
    with pytest.raises(InputError, match="must end in .safetensors"):
        save_safetensors(tmp_path / "weights.bin", {"a": np.ones(1)})


def test_models_without_a_counterpart():
    with pytest.raises(InputError, match="MLP has no counterpart at Hugging Face"):
        from_hugging_face(create("mlp"), {})
    with pytest.raises(InputError, match="this GPT is neither GPT-2 .* nor Llama"):
        to_hugging_face(create("gpt", positions="alibi"), {})


def test_half_precision_becomes_float32():
    model, params = built("gpt2")
    half = {name: array.astype(np.float16) for name, array in to_hugging_face(model, params).items()}
    assert {leaf.dtype for leaf in jax.tree.leaves(from_hugging_face(model, half))} == {np.dtype("float32")}
