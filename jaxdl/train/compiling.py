"""Compiling, shared with whoever compiles the same programs at the same time.

Trials of a sweep start together, and would each compile what all of them need. Where they have a compilation cache in
common, one compiles a program and the others do the next one meanwhile, or wait for it, and read it from the cache.
"""

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Sequence

import jax
from jax.stages import Compiled, Lowered

MOST_SECONDS = 600
"""How long another process is waited for; after that it is taken to hang, and the program is compiled here as well."""

POLL_SECONDS = 0.01


def compile_all(needed: Sequence[Lowered], meanwhile: Sequence[Callable[[], Lowered]] = ()) -> list[Compiled]:
    """Compiles programs, in their order or, where others compile them already, in another.

    Args:
      needed: what is to be compiled.
      meanwhile: what will be needed later: compiled, for the cache, only while others compile what is left of `needed`.
    """
    with _Claims() as claims:
        compiled: dict[int, Compiled] = {}
        places, later, waited_since = list(map(_place, needed)), list(meanwhile), time.monotonic()
        while len(compiled) < len(needed):
            left = [index for index in range(len(needed)) if index not in compiled]
            free = next((index for index in left if claims.take(places[index])), None)
            if free is None and time.monotonic() - waited_since > MOST_SECONDS:
                free = left[0]
            if free is not None:
                compiled[free] = needed[free].compile()
            elif later:
                program = later.pop(0)()
                if claims.take(_place(program)):
                    program.compile()
            else:
                time.sleep(POLL_SECONDS)
                continue
            claims.release()
            waited_since = time.monotonic()
        return [compiled[index] for index in range(len(needed))]


def _place(program: Lowered) -> int:
    """The byte that stands for a program: 56 bits of the hash of its text."""
    return int.from_bytes(hashlib.sha256(program.as_text().encode()).digest()[:7])


class _Claims:
    """Which programs are being compiled by the processes that share this cache: each locks a byte of one file.

    The kernel lets go of a dead process's. Without a cache on a disk that locks, everybody compiles for himself; so do
    the processes of one run, which compile in step.
    """

    def __enter__(self) -> "_Claims":
        self._file = None
        folder = jax.config.jax_compilation_cache_dir
        if folder and jax.config.jax_enable_compilation_cache and jax.process_count() == 1:
            with contextlib.suppress(OSError):
                os.makedirs(folder, exist_ok=True)
                self._file = os.open(os.path.join(folder, "jaxdl.lock"), os.O_RDWR | os.O_CREAT, 0o644)
        return self

    def take(self, place: int) -> bool:
        """Whether nobody else compiles the program of this place; then nobody else will, until `release`."""
        if self._file is None:
            return True
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except (BlockingIOError, PermissionError):  # POSIX allows both
            return False
        except OSError:  # no locks on this file system
            return True
        return True

    def release(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                fcntl.lockf(self._file, fcntl.LOCK_UN)

    def __exit__(self, *_) -> None:
        if self._file is not None:
            os.close(self._file)
