"""Linear and softmax regression, and the closed form of the first.

>>> import jax, jax.numpy as jnp
>>> kernel, bias = normal_equations(jnp.array([[0.0], [1.0], [2.0]]), jnp.array([[1.0], [3.0], [5.0]]))
>>> kernel.shape, bias.round(4).tolist()
((1, 1), [1.0])
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdl.types import PositiveInt


class LinearRegression(nn.Module):
    """Least squares by gradient descent: one affine map that starts at zero.

    Attributes:
      num_outputs: number of regression targets.
    """

    num_outputs: PositiveInt = 1

    @nn.compact
    def __call__(self, inputs, *, train: bool):
        """Inputs [B, ...], flattened, to predictions [B, num_outputs]."""
        x = inputs.reshape(inputs.shape[0], -1)
        return nn.Dense(self.num_outputs, kernel_init=nn.initializers.zeros, name="output")(x)


class SoftmaxRegression(nn.Module):
    """Multinomial logistic regression: one affine map to logits. Its loss is convex, so it starts at zero.

    Attributes:
      num_outputs: number of classes.
    """

    num_outputs: PositiveInt = 10

    @nn.compact
    def __call__(self, inputs, *, train: bool):
        """Inputs [B, ...], flattened, to logits [B, num_outputs]."""
        x = inputs.reshape(inputs.shape[0], -1)
        return nn.Dense(self.num_outputs, kernel_init=nn.initializers.zeros, name="output")(x)


def normal_equations(inputs, targets, l2=0.0):
    """The affine map that minimises sum((inputs @ kernel + bias - targets)^2) + l2 * sum(kernel^2).

    Solves (X'X + l2 I) kernel = X'y for centred X = U S V' as V diag(s / (s^2 + l2)) U'y, without forming X'X, whose
    condition number is the square of that of X. Centring takes the bias, which is not penalised, out of the problem.
    Singular values below the rounding error are dropped, so that dependent columns give the solution of least norm.
    Golub and Van Loan, Matrix Computations, sections 5.5 and 6.1.

    Computes in the precision of its arguments. The relative error is about the condition number of the centred inputs
    times the rounding unit: below 1e-6 in float32 for well-scaled columns (standardise them first). For more, give
    float64 arrays within `jax.enable_x64(True)`.

    Args:
      inputs: [N, D].
      targets: [N, T].
      l2: the weight of the ridge penalty; number or tracer.

    Returns:
      kernel [D, T] and bias [T], as `LinearRegression` has them.
    """
    with jax.default_matmul_precision("highest"):
        input_mean = jnp.mean(inputs, axis=0, keepdims=True)
        target_mean = jnp.mean(targets, axis=0, keepdims=True)
        u, s, vt = jnp.linalg.svd(inputs - input_mean, full_matrices=False)
        cutoff = s[0] * jnp.finfo(s.dtype).eps * max(inputs.shape)
        # The inner `where` keeps the dropped directions' gradient finite.
        kept = s > cutoff
        inverse = jnp.where(kept, s / (jnp.where(kept, s, 1) ** 2 + l2), 0)
        kernel = vt.T @ (inverse[:, None] * (u.T @ (targets - target_mean)))
        bias = target_mean - input_mean @ kernel
    return kernel, bias[0]
