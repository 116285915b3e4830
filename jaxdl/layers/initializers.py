"""Weight initialisers by name.

Fans are those of the kernel: `fan_in` inputs and `fan_out` outputs of a unit, a convolution's times its window.
"""

import flax.linen as nn
from jax.nn.initializers import Initializer

from jaxdl.catalog import nearest
from jaxdl.errors import InputError

INITIALIZERS: dict[str, Initializer] = {
    "zeros": nn.initializers.zeros,
    "ones": nn.initializers.ones,
    # Standard deviation 0.02, as ViT, BERT and GPT-2 use them; the first is cut at two standard deviations.
    "truncated_normal": nn.initializers.truncated_normal(0.02),
    "normal": nn.initializers.normal(0.02),
    # Variance 1 / fan_in. LeCun et al. 1998, Efficient BackProp, section 4.6.
    "lecun_uniform": nn.initializers.lecun_uniform(),
    "lecun_normal": nn.initializers.lecun_normal(),
    # Variance 2 / (fan_in + fan_out). Glorot and Bengio 2010, eq. 16.
    "xavier_uniform": nn.initializers.xavier_uniform(),
    "xavier_normal": nn.initializers.xavier_normal(),
    # Variance 2 / fan_in. He et al. 2015, arXiv:1502.01852, eq. 10.
    "he_uniform": nn.initializers.he_uniform(),
    "he_normal": nn.initializers.he_normal(),
    # Variance 2 / fan_out, the same paper's eq. 14 and the choice of torchvision's ResNet.
    "he_normal_fan_out": nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
    # Saxe et al. 2013, arXiv:1312.6120.
    "orthogonal": nn.initializers.orthogonal(),
}


def initializer(name: str) -> Initializer:
    """The initialiser of that name, `(key, shape, dtype) -> array`.

    Raises:
      InputError: there is none.
    """
    if name not in INITIALIZERS:
        raise InputError(
            f"no initializer is called '{name}'.{nearest(name, INITIALIZERS)} There are: {', '.join(INITIALIZERS)}."
        )
    return INITIALIZERS[name]
