"""jaxdl: a functional deep-learning research framework in JAX."""

__version__ = "0.1.0"
