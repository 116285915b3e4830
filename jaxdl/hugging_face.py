"""How Hugging Face Transformers names and lays out the arrays of models that are here: data for `jaxdl.weights`.

PyTorch's linear layers hold their kernels transposed, [outputs, inputs]; GPT-2's do not.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxdl.errors import InputError


@dataclasses.dataclass(frozen=True)
class Rule:
    """One array of theirs, and the array or arrays here that hold its numbers.

    Attributes:
      theirs: its name; `{layer}` stands for the number of a layer, here and in `ours`.
      ours: paths of parameters, of unscanned layers. Several are parts of theirs, one after the other on the last axis.
      axes: the order of their axes here (`np.transpose`); None is theirs.
      folded: the shape of ours before `axes` are put back, where axes are folded together here; -1 is what is left.
    """

    theirs: str
    ours: tuple[str, ...]
    axes: tuple[int, ...] | None = None
    folded: tuple[int, ...] | None = None

    def at(self, layer: int) -> "Rule":
        """The rule of one layer."""
        named = self.theirs.format(layer=layer), tuple(path.format(layer=layer) for path in self.ours)
        return dataclasses.replace(self, theirs=named[0], ours=named[1])

    def export(self, parts: list[np.ndarray]) -> np.ndarray:
        """Their array of ours."""
        array = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
        if self.folded is not None:
            array = array.reshape(self.folded)
        return array if self.axes is None else array.transpose(np.argsort(self.axes))

    def take(self, array: np.ndarray, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
        """Our arrays, of these shapes, of theirs."""
        if self.axes is not None:
            array = array.transpose(self.axes)
        if len(shapes) == 1:
            return [array.reshape(shapes[0])]
        return np.split(array, np.cumsum([shape[-1] for shape in shapes])[:-1], axis=-1)


@dataclasses.dataclass(frozen=True)
class Family:
    """The arrays of one architecture.

    Attributes:
      rules: of all arrays; those with `{layer}` are of each layer.
      prefix: what names begin with, but for a file that holds the body without its head.
      ignored: ends of names that hold no parameters (masks, frequencies), or those of other heads.
      heads: top-level names of our parameters that a file of the body alone lacks.
      copies: names that may be there as copies of another array.
      example: (model, their arrays) -> shape and dtype of an input, which the arrays' shapes may depend on.
    """

    rules: tuple[Rule, ...]
    prefix: str = ""
    ignored: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    copies: Mapping[str, str] = dataclasses.field(default_factory=dict)
    example: Callable[[Any, Mapping[str, np.ndarray]], tuple] = lambda model, arrays: ((1,), "int32")

    def without_missing_heads(self, arrays) -> "Family":
        """These rules, but for those of heads that no array is there of."""

        def is_missing(rule: Rule) -> bool:
            head = rule.ours[0].partition("/")[0]
            of_head = [other.theirs for other in self.rules if other.ours[0].partition("/")[0] == head]
            named = {*of_head, *(name.removeprefix(self.prefix) for name in of_head)}
            return head in self.heads and named.isdisjoint(arrays)

        return dataclasses.replace(self, rules=tuple(rule for rule in self.rules if not is_missing(rule)))

    def expanded(self, num_layers: int) -> list[Rule]:
        """The rules of all layers."""
        return [
            rule.at(layer) for rule in self.rules for layer in (range(num_layers) if "{layer}" in rule.theirs else (0,))
        ]


def linear(theirs: str, ours: str, use_bias: bool = True) -> tuple[Rule, ...]:
    """A PyTorch linear layer and a dense layer."""
    kernel = Rule(f"{theirs}.weight", (f"{ours}/kernel",), axes=(1, 0))
    return (kernel, Rule(f"{theirs}.bias", (f"{ours}/bias",))) if use_bias else (kernel,)


def conv1d(theirs: str, *ours: str) -> tuple[Rule, ...]:
    """GPT-2's Conv1D, [inputs, outputs], and one dense layer, or several side by side."""
    return tuple(
        Rule(f"{theirs}.{name}", tuple(f"{path}/{own}" for path in ours))
        for name, own in (("weight", "kernel"), ("bias", "bias"))
    )


def layer_norm(theirs: str, ours: str) -> tuple[Rule, ...]:
    """A layer normalisation."""
    return (
        Rule(f"{theirs}.weight", (f"{ours}/layer/scale",)),
        Rule(f"{theirs}.bias", (f"{ours}/layer/bias",)),
    )


_HERE = "layers/block{layer}"


def _gpt2() -> Family:
    """GPT2LMHeadModel."""
    there = "transformer.h.{layer}"
    return Family(
        rules=(
            Rule("transformer.wte.weight", ("token_embedding/embedding",)),
            Rule("transformer.wpe.weight", ("position_embedding/embed/embedding",)),
            *layer_norm(f"{there}.ln_1", f"{_HERE}/attention_norm"),
            *conv1d(f"{there}.attn.c_attn", *(f"{_HERE}/attention/{name}" for name in ("query", "key", "value"))),
            *conv1d(f"{there}.attn.c_proj", f"{_HERE}/attention/output"),
            *layer_norm(f"{there}.ln_2", f"{_HERE}/mlp_norm"),
            *conv1d(f"{there}.mlp.c_fc", f"{_HERE}/mlp/hidden"),
            *conv1d(f"{there}.mlp.c_proj", f"{_HERE}/mlp/output"),
            *layer_norm("transformer.ln_f", "output_norm"),
        ),
        prefix="transformer.",
        ignored=(".attn.bias", ".attn.masked_bias"),
        copies={"lm_head.weight": "transformer.wte.weight"},
    )


def _llama(tied_head: bool) -> Family:
    """LlamaForCausalLM."""
    there = "model.layers.{layer}"
    attention = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "o_proj": "output"}
    mlp = {"gate_proj": "gate", "up_proj": "hidden", "down_proj": "output"}
    norms = {"input_layernorm": "attention_norm", "post_attention_layernorm": "mlp_norm"}
    head = () if tied_head else linear("lm_head", "head", use_bias=False)
    return Family(
        rules=(
            Rule("model.embed_tokens.weight", ("token_embedding/embedding",)),
            *(Rule(f"{there}.{name}.weight", (f"{_HERE}/{ours}/rms/scale",)) for name, ours in norms.items()),
            *(
                rule
                for part, names, ours in (("self_attn", attention, "attention"), ("mlp", mlp, "mlp"))
                for name, own in names.items()
                for rule in linear(f"{there}.{part}.{name}", f"{_HERE}/{ours}/{own}", use_bias=False)
            ),
            Rule("model.norm.weight", ("output_norm/rms/scale",)),
            *head,
        ),
        prefix="model.",
        ignored=(".rotary_emb.inv_freq",),
        copies={"lm_head.weight": "model.embed_tokens.weight"} if tied_head else {},
    )


def _gpt(model) -> Family:
    """GPT-2's or Llama's, as the fields of a GPT say."""
    has_gate = model.activation in ("swiglu", "geglu")
    if (model.positions, model.normalization, model.use_bias, model.tied_head, has_gate) == (
        "learned",
        "layer",
        True,
        True,
        False,
    ):
        return _gpt2()
    if (model.positions, model.normalization, model.use_bias, has_gate) == ("rotary", "rms", False, True):
        return _llama(model.tied_head)
    raise InputError(
        "this GPT is neither GPT-2 (learned positions, layer normalisation, biases, tied head, no gate) nor Llama "
        "(rotary positions, rms, no biases, swiglu), so its arrays have no names at Hugging Face."
    )


def _square_images(model, arrays) -> tuple:
    """Images of as many patches as their positions tell, one of which is the class token's."""

    def shape(end: str, default: tuple[int, ...]) -> tuple[int, ...]:
        return next((array.shape for name, array in arrays.items() if name.endswith(end)), default)

    side = math.isqrt(shape("embeddings.position_embeddings", (1, 2))[1] - 1) * model.patch_size
    return (side, side, shape("patch_embeddings.projection.weight", (1, 3))[1]), "float32"


def _vit(model) -> Family:
    """ViTForImageClassification."""
    if (model.pool, model.positions, model.patch_bias, model.input_norm) != ("class", "learned", True, False):
        raise InputError(
            "only a ViT of pool=class and positions=learned, without input_norm, has names at Hugging Face."
        )
    embeddings, there, patch = "vit.embeddings", "vit.encoder.layer.{layer}", model.patch_size
    return Family(
        rules=(
            Rule(f"{embeddings}.cls_token", ("class",)),
            Rule(f"{embeddings}.position_embeddings", ("positions/embed/embedding",), folded=(1, -1, model.width)),
            Rule(
                f"{embeddings}.patch_embeddings.projection.weight",
                ("patches/kernel",),
                axes=(2, 3, 1, 0),
                folded=(patch, patch, -1, model.width),
            ),
            Rule(f"{embeddings}.patch_embeddings.projection.bias", ("patches/bias",)),
            *layer_norm(f"{there}.layernorm_before", f"{_HERE}/attention_norm"),
            *(
                rule
                for name in ("query", "key", "value")
                for rule in linear(f"{there}.attention.attention.{name}", f"{_HERE}/attention/{name}")
            ),
            *linear(f"{there}.attention.output.dense", f"{_HERE}/attention/output"),
            *layer_norm(f"{there}.layernorm_after", f"{_HERE}/mlp_norm"),
            *linear(f"{there}.intermediate.dense", f"{_HERE}/mlp/hidden"),
            *linear(f"{there}.output.dense", f"{_HERE}/mlp/output"),
            *layer_norm("vit.layernorm", "output_norm"),
            *linear("classifier", "output"),
        ),
        prefix="vit.",
        ignored=("pooler.dense.weight", "pooler.dense.bias"),
        heads=("output",),
        example=_square_images,
    )


def _clip_tower(theirs: str, ours: str) -> tuple[Rule, ...]:
    """The blocks of one of CLIPModel's towers."""
    there, here = f"{theirs}.encoder.layers.{{layer}}", f"{ours}/{_HERE}"
    attention = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "output"}
    return (
        *layer_norm(f"{there}.layer_norm1", f"{here}/attention_norm"),
        *(
            rule
            for name, own in attention.items()
            for rule in linear(f"{there}.self_attn.{name}", f"{here}/attention/{own}")
        ),
        *layer_norm(f"{there}.layer_norm2", f"{here}/mlp_norm"),
        *linear(f"{there}.mlp.fc1", f"{here}/mlp/hidden"),
        *linear(f"{there}.mlp.fc2", f"{here}/mlp/output"),
    )


def _clip_images(model, arrays) -> tuple:
    """Images of as many patches as their positions tell, one of which is the class token's; a text of one token."""

    def shape(name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        return arrays[name].shape if name in arrays else default

    embeddings = "vision_model.embeddings"
    side = math.isqrt(shape(f"{embeddings}.position_embedding.weight", (2,))[0] - 1) * model.patch_size
    channels = shape(f"{embeddings}.patch_embedding.weight", (1, 3))[1]
    return ((side, side, channels), (1,), ()), ("float32", "int32", "int32")


def _clip(model) -> Family:
    """CLIPModel."""
    embeddings, patch = "vision_model.embeddings", model.patch_size
    text_layers = (
        rule.at(layer) for layer in range(model.text_num_layers) for rule in _clip_tower("text_model", "text")
    )
    return Family(
        rules=(
            Rule("logit_scale", ("log_scale",)),
            Rule(f"{embeddings}.class_embedding", ("image/class",), folded=(-1,)),
            Rule(f"{embeddings}.position_embedding.weight", ("image/positions/embed/embedding",)),
            Rule(
                f"{embeddings}.patch_embedding.weight",
                ("image/patches/kernel",),
                axes=(2, 3, 1, 0),
                folded=(patch, patch, -1, model.width),
            ),
            *layer_norm("vision_model.pre_layrnorm", "image/input_norm"),  # their spelling
            *_clip_tower("vision_model", "image"),
            *layer_norm("vision_model.post_layernorm", "image/output_norm"),
            *linear("visual_projection", "image_projection", use_bias=False),
            Rule("text_model.embeddings.token_embedding.weight", ("text/token_embedding/embedding",)),
            Rule("text_model.embeddings.position_embedding.weight", ("text/position_embedding/embed/embedding",)),
            *text_layers,
            *layer_norm("text_model.final_layer_norm", "text/output_norm"),
            *linear("text_projection", "text_projection", use_bias=False),
        ),
        ignored=("embeddings.position_ids",),
        example=_clip_images,
    )


def _bert_encoder(model) -> tuple[Rule, ...]:
    """BertModel, but for its pooler."""
    if model.positions != "learned":
        raise InputError("only a BERT of positions=learned has names at Hugging Face.")
    embeddings, there, here = "bert.embeddings", "bert.encoder.layer.{layer}", f"encoder/{_HERE}"
    return (
        Rule(f"{embeddings}.word_embeddings.weight", ("encoder/token_embedding/embedding",)),
        Rule(f"{embeddings}.position_embeddings.weight", ("encoder/position_embedding/embed/embedding",)),
        Rule(f"{embeddings}.token_type_embeddings.weight", ("encoder/type_embedding/embedding",)),
        *layer_norm(f"{embeddings}.LayerNorm", "encoder/embedding_norm"),
        *(
            rule
            for name in ("query", "key", "value")
            for rule in linear(f"{there}.attention.self.{name}", f"{here}/attention/{name}")
        ),
        *linear(f"{there}.attention.output.dense", f"{here}/attention/output"),
        *layer_norm(f"{there}.attention.output.LayerNorm", f"{here}/attention_norm"),
        *linear(f"{there}.intermediate.dense", f"{here}/mlp/hidden"),
        *linear(f"{there}.output.dense", f"{here}/mlp/output"),
        *layer_norm(f"{there}.output.LayerNorm", f"{here}/mlp_norm"),
    )


_BERT_POOLER = linear("bert.pooler.dense", "pooler")
_BERT_PREDICTIONS = (
    *linear("cls.predictions.transform.dense", "transform"),
    *layer_norm("cls.predictions.transform.LayerNorm", "transform_norm"),
    Rule("cls.predictions.bias", ("bias",)),
)
_BERT_REST = ("embeddings.position_ids", "cls.seq_relationship.weight", "cls.seq_relationship.bias")


def _masked_bert(model) -> Family:
    """BertForMaskedLM, and what it shares with BertForPreTraining and BertModel."""
    return Family(
        rules=(*_bert_encoder(model), *_BERT_PREDICTIONS),
        prefix="bert.",
        ignored=(*_BERT_REST, "pooler.dense.weight", "pooler.dense.bias"),
        heads=("transform", "transform_norm", "bias"),
        copies={
            "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
            "cls.predictions.decoder.bias": "cls.predictions.bias",
        },
    )


def _bert_classifier(model) -> Family:
    """BertForSequenceClassification, and what it shares with the others; it is that function with pool=first alone."""
    predictions = tuple(rule.theirs for rule in _BERT_PREDICTIONS)
    decoder = ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias")
    return Family(
        rules=(*_bert_encoder(model), *_BERT_POOLER, *linear("classifier", "output")),
        prefix="bert.",
        ignored=(*_BERT_REST, *predictions, *decoder),
        heads=("pooler", "output"),
    )


# By the name of the class here, so that no model is imported before it is used.
FAMILIES: dict[str, Callable[[Any], Family]] = {
    "GPT": _gpt,
    "ViT": _vit,
    "CLIP": _clip,
    "MaskedBert": _masked_bert,
    "BertClassifier": _bert_classifier,
}


def family_of(model) -> Family:
    """The names and layouts of a model's arrays. Raises: InputError, where none are known."""
    name = type(model).__name__
    if name not in FAMILIES:
        raise InputError(f"{name} has no counterpart at Hugging Face here; these have: {', '.join(FAMILIES)}.")
    return FAMILIES[name](model)
