"""Memory for large activations without page faults."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Have glibc reuse the memory of large tensors.

    By default it hands every block over 32 MiB back to the system when freed and has it zeroed page by page at the next
    allocation, which costs a convolution on the CPU up to half its time. Other systems' allocators are left alone.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    mallopt(_M_TRIM_THRESHOLD, 1 << 30)
