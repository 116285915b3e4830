"""Computing in half precision with float32 parameters (Micikevicius et al. 2018, arXiv 1710.03740).

Parameters, optimizer state, statistics and losses stay float32; what the model computes with is cast on the way
in. float16 has too few exponent bits for small gradients, so its loss is scaled by a factor that halves when
gradients overflow and doubles after a long quiet time (section 3.2); bfloat16 needs none.
"""

import flax.struct
import jax
import jax.numpy as jnp

GROWTH_INTERVAL = 2000
MAXIMUM_SCALE = 2.0**24


class LossScale(flax.struct.PyTreeNode):
    """The factor on the loss, and how many finite steps it has seen since it last changed."""

    scale: jax.Array
    finite_steps: jax.Array

    @classmethod
    def create(cls) -> "LossScale":
        return cls(scale=jnp.float32(2.0**15), finite_steps=jnp.int32(0))

    def adjust(self, finite: jax.Array) -> "LossScale":
        """Doubled after `GROWTH_INTERVAL` finite steps in a row, halved (not below one) after one that was not."""
        grow = finite & (self.finite_steps + 1 >= GROWTH_INTERVAL)
        grown = jnp.where(grow, jnp.minimum(self.scale * 2, MAXIMUM_SCALE), self.scale)
        return LossScale(
            scale=jnp.where(finite, grown, jnp.maximum(self.scale / 2, 1.0)),
            finite_steps=jnp.where(finite & ~grow, self.finite_steps + 1, 0),
        )


def cast_floats(tree, dtype):
    """Every floating-point array of a tree as `dtype`; the others as they are."""
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)
