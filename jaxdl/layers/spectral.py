"""Spectral normalisation: a layer whose kernel has the largest singular value 1.

Miyato et al. 2018, Spectral normalization for generative adversarial networks (arXiv:1802.05957), algorithm 1.

>>> import jax, jax.numpy as jnp
>>> layer = SpectralNorm(nn.Dense(8))
>>> variables = layer.init(jax.random.key(0), jnp.ones((2, 4)), train=False)
>>> outputs, state = layer.apply(variables, jnp.ones((2, 4)), train=True, mutable=["batch_stats"])
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdl.types import PositiveInt

_TINY = 1e-12


class SpectralNorm(nn.Module):
    """Divides the kernel of the layer it wraps by its largest singular value, as power iteration estimates it.

    A convolution's kernel counts as the matrix [window and inputs, outputs]. The estimate of the singular vector is
    kept in the collection `batch_stats`. Each training pass improves it, where the model's state may change; evaluation
    takes it as it is. The parameters are those of the layer, unnormalised and under the layer's own name.

    Attributes:
      layer: the wrapped layer, such as `nn.Dense(8)`, whose parameters are a kernel and maybe a bias.
      steps: power iterations of a training pass.
    """

    layer: nn.Module
    steps: PositiveInt = 1

    @nn.compact
    def __call__(self, x, *, train: bool):
        """What the layer makes of `x` with its kernel divided."""

        def divide(variables):
            params = variables["params"]
            sigma = self._largest_singular_value(params["kernel"], train)
            return {"params": {**params, "kernel": (params["kernel"] / sigma).astype(params["kernel"].dtype)}}

        call = nn.map_variables(
            lambda layer: layer(x), "params", trans_in_fn=divide, init=self.is_initializing(), mutable=True
        )
        return call(self.layer)

    def _largest_singular_value(self, kernel, train: bool):
        matrix = kernel.reshape(-1, kernel.shape[-1]).astype(jnp.float32)
        estimate = self.variable(
            "batch_stats",
            "singular_vector",
            lambda: _unit(jax.random.normal(self.make_rng("params"), kernel.shape[-1:])),
        )
        vector = estimate.value
        if train and self.is_mutable_collection("batch_stats") and not self.is_initializing():
            for _ in range(self.steps):
                vector = _unit(matrix.T @ _unit(matrix @ vector))
            vector = estimate.value = jax.lax.stop_gradient(vector)
        # |W v| = u' W v for the u that fits v, and so is its gradient with v held.
        return jnp.maximum(jnp.linalg.norm(matrix @ vector), _TINY)


def _unit(vector):
    return vector / jnp.maximum(jnp.linalg.norm(vector), _TINY)
