"""Giving memory back to the operating system, and keeping what the steps will use again."""

import ctypes
import gc

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # <malloc.h>


def release() -> None:
    """Gives back what tracing and compilation have freed but the allocator keeps, where the C library can (glibc).

    Compiling a step of LeNet-5 leaves some 70 MiB behind that training would otherwise carry to its end.
    """
    gc.collect()
    try:
        library = ctypes.CDLL(None)
        trim, option = library.malloc_trim, library.mallopt
    except (OSError, AttributeError):  # another C library
        return
    trim(0)
    # From here on the steps' own buffers stay, or each step would ask for its pages anew.
    option(M_TRIM_THRESHOLD, 2**30)
    option(M_MMAP_MAX, 0)
