"""The transformer's block, with normalisation before or after each branch, and a stack of blocks.

Vaswani et al. 2017, arXiv:1706.03762, section 3; normalisation before the branches: Xiong et al. 2020,
arXiv:2002.04745, fig. 1(b); normalisation that a condition modulates (adaLN-Zero): Peebles and Xie 2023,
arXiv:2212.09748, section 3.2.

Shapes: B examples, T tokens, C channels.
"""

from collections.abc import Callable
from typing import Literal

import flax.linen as nn

from jaxdl.errors import InputError
from jaxdl.layers.activations import Activation
from jaxdl.layers.attention import Implementation, KVCache, MultiHeadAttention
from jaxdl.layers.conditioning import Modulation
from jaxdl.layers.normalization import Norm
from jaxdl.layers.regularization import Dropout
from jaxdl.types import PositiveFloat, PositiveInt, Rate

# act(x W) * (x V) in place of act(x W). Shazeer 2020, arXiv:2002.05202, eq. 6.
GATED = {"swiglu": "silu", "geglu": "gelu"}


class MLP(nn.Module):
    """Two dense layers with an activation between them, or three with a gate.

    Attributes:
      hidden_width: units of the hidden layer.
      activation: activation by name (jaxdl.layers.activations), or swiglu or geglu.
      use_bias: whether the layers have biases.
      kernel_init: initialiser of the kernels into the hidden layer.
      output_init: initialiser of the kernel out of it.
    """

    hidden_width: PositiveInt
    activation: str = "gelu"
    use_bias: bool = True
    kernel_init: Callable = nn.initializers.normal(0.02)
    output_init: Callable = nn.initializers.normal(0.02)

    @nn.compact
    def __call__(self, x, *, train: bool):
        """[B, T, C] to [B, T, C]."""

        def into(name):
            return nn.Dense(self.hidden_width, self.use_bias, kernel_init=self.kernel_init, name=name)(x)

        function = GATED.get(self.activation, self.activation)
        activation = Activation(function, name="activation")
        if self.activation in GATED:
            hidden = activation(into("gate"), train=train) * into("hidden")
        else:
            hidden = activation(into("hidden"), train=train)
        return nn.Dense(x.shape[-1], self.use_bias, kernel_init=self.output_init, name="output")(hidden)


class TransformerBlock(nn.Module):
    """Attention and MLP, each a residual branch with dropout at its end.

    Attributes:
      num_heads: heads of the attention.
      num_kv_heads: key and value heads; unset is `num_heads`.
      head_dim: features of a head; unset is C / num_heads.
      mlp_width: hidden units of the MLP; unset is 4 C.
      norm_position: pre, x + branch(norm(x)); or post, norm(x + branch(x)).
      normalization: layer or rms.
      norm_epsilon: what normalisation adds to the variance.
      activation: activation of the MLP by name, or swiglu or geglu.
      use_bias: whether dense layers and layer normalisation have biases.
      adaptive: whether a condition shifts and scales what a branch sees, in place of the normalisation's own numbers,
        and gates its end; the gates begin at zero, and the block as the identity. With pre alone.
      dropout_rate: probability of dropping an element at a branch's end.
      rope_theta: base of the rotary positions; unset is none.
      kernel_init: initialiser of the kernels.
      residual_init: initialiser of the kernels at the branches' ends.
      implementation: auto or xla; see `MultiHeadAttention`.
    """

    num_heads: PositiveInt
    num_kv_heads: PositiveInt | None = None
    head_dim: PositiveInt | None = None
    mlp_width: PositiveInt | None = None
    norm_position: Literal["pre", "post"] = "pre"
    normalization: Literal["layer", "rms"] = "layer"
    norm_epsilon: PositiveFloat = 1e-5
    activation: str = "gelu"
    use_bias: bool = True
    adaptive: bool = False
    dropout_rate: Rate = 0.0
    rope_theta: PositiveFloat | None = None
    kernel_init: Callable = nn.initializers.normal(0.02)
    residual_init: Callable = nn.initializers.normal(0.02)
    implementation: Implementation = "auto"

    @nn.compact
    def __call__(self, x, cache: KVCache | None = None, *, train: bool, condition=None, **attention_inputs):
        """[B, T, C] to [B, T, C] and the cache.

        `condition` [B, E] is what an adaptive block depends on; `attention_inputs` are those of `MultiHeadAttention`.
        """
        if self.norm_position not in ("pre", "post"):
            raise InputError(f"norm_position is pre or post, not '{self.norm_position}'.")
        if self.adaptive and self.norm_position == "post":
            raise InputError("an adaptive block normalises before its branches: norm_position is pre.")

        def attention(x):
            layer = MultiHeadAttention(
                self.num_heads,
                self.num_kv_heads,
                self.head_dim,
                self.use_bias,
                self.rope_theta,
                self.kernel_init,
                self.residual_init,
                self.implementation,
                name="attention",
            )
            return layer(x, cache, **attention_inputs)

        def mlp(x):
            width = self.mlp_width or 4 * x.shape[-1]
            layer = MLP(width, self.activation, self.use_bias, self.kernel_init, self.residual_init, name="mlp")
            return layer(x, train=train), None

        def residual(x, branch, name):
            norm = Norm(
                self.normalization,
                epsilon=self.norm_epsilon,
                use_bias=self.use_bias and not self.adaptive,
                use_scale=not self.adaptive,
                name=f"{name}_norm",
            )
            dropout = Dropout(self.dropout_rate, name=f"{name}_dropout")
            if self.norm_position == "post":
                added, extra = branch(x)
                return norm(x + dropout(added, train=train), train=train), extra
            normed = norm(x, train=train)
            if not self.adaptive:
                added, extra = branch(normed)
                return x + dropout(added, train=train), extra
            shift, scale, gate = Modulation(3, x.shape[-1], name=f"{name}_modulation")(condition)
            added, extra = branch(normed * (1 + scale) + shift)
            return x + gate * dropout(added, train=train), extra

        x, cache = residual(x, attention, "attention")
        x, _ = residual(x, mlp, "mlp")
        return x, cache


class TransformerStack(nn.Module):
    """Blocks one after the other: `TransformerStack(functools.partial(TransformerBlock, num_heads=8), num_layers=6)`.

    Without `scan` the parameters are `block0`, `block1`, ..., and with it `block`, whose arrays have a leading axis of
    layers. A scanned stack compiles one block, whatever its depth.

    Attributes:
      block: makes a block; takes `name`.
      num_layers: number of blocks.
      scan: whether the blocks are one `jax.lax.scan`.
      remat: whether the backward pass computes each block's activations again rather than keep them (Chen et al. 2016,
        arXiv:1604.06174).
    """

    block: Callable[..., nn.Module]
    num_layers: PositiveInt
    scan: bool = False
    remat: bool = False

    @nn.compact
    def __call__(self, x, caches=None, *, train: bool, **block_inputs):
        """[B, T, C] to [B, T, C] and the caches, as `stack_caches` makes them; None without them.

        All blocks get the same `block_inputs`: a condition, and those of `MultiHeadAttention`.
        """

        def layer(block, x, cache):
            return block(x, cache, train=train, **block_inputs)

        if self.remat:
            layer = nn.remat(layer, prevent_cse=not self.scan)
        if self.scan:
            layer = nn.scan(
                layer,
                variable_axes={"params": 0},
                split_rngs={"params": True, "dropout": True},
                in_axes=1,
                out_axes=1,
                length=self.num_layers,
            )
            return layer(self.block(name="block"), x, caches)
        written = []
        for index in range(self.num_layers):
            x, cache = layer(self.block(name=f"block{index}"), x, None if caches is None else caches[index])
            written.append(cache)
        return x, None if caches is None else tuple(written)
