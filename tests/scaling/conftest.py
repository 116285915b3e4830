"""Figures that are held to their last digit, and counts of XLA, are those of the programs that users run."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="package")
def _optimized():
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
