"""What a device can do at most, for MFU: the share of its peak that the model's arithmetic takes.

Chowdhery et al. 2022, PaLM (arXiv 2204.02311), appendix B.
"""

import time

import jax
import jax.numpy as jnp

PEAK_FLOPS = {
    # Dense bfloat16 or float16 FLOP/s of one device, from the makers' data sheets. A100 and H100 are the SXM parts.
    "NVIDIA V100": 125e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA B200": 2250e12,
    "TPU v2": 22.5e12,
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
}
"""Keyed by the beginning of `jax.Device.device_kind`; the longest that fits counts."""


def peak_flops(device: jax.Device) -> float | None:
    """FLOP/s of one device at most; None for one that is not known.

    For a GPU or TPU it is the data sheet's figure for 16-bit matrix products, whatever precision the run uses. For a
    CPU it is what a float32 matrix product reaches here and now over all its devices, divided among them.
    """
    if device.platform == "cpu":
        return measured_matmul_flops() / len(jax.local_devices(backend="cpu"))
    kind = device.device_kind.replace("Tesla ", "NVIDIA ")
    fitting = [name for name in PEAK_FLOPS if kind.startswith(name)]
    return PEAK_FLOPS[max(fitting, key=len)] if fitting else None


def measured_matmul_flops(size: int = 1024, repeats: int = 5) -> float:
    """FLOP/s of a float32 matrix product [size, size] x [size, size] on the default device, the best of `repeats`."""
    matrix = jnp.ones((size, size), jnp.float32)
    multiply = jax.jit(lambda a: a @ a)
    multiply(matrix).block_until_ready()
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        multiply(matrix).block_until_ready()
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best
