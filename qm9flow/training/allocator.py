"""Keep freed memory in the process, so that large temporaries do not page-fault on every step.

glibc hands every large block back to the system when it is freed and asks for it again a moment
later; each time the kernel has to map and clear its pages. A training step frees and asks for the
same blocks, so this is pure loss.
"""

import ctypes
import logging
import platform

logger = logging.getLogger(__name__)

_TRIM_THRESHOLD = -1
_TOP_PAD = -2
_MMAP_MAX = -4
_NEVER = 2**31 - 1
_STEP_BYTES = 64 * 2**20


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed, for this process and until it ends.

    Large blocks then come from the heap rather than from a mapping of their own, the heap is never
    trimmed, and it grows in steps of 64 MB. The price: memory once used stays with the process.
    Safe to call again.

    Returns:
        Whether it was done; false where the C library is not glibc.

    Source: mallopt(3), Linux man-pages 6.9, parameters M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _STEP_BYTES))
    refused = [parameter for parameter, value in settings if not mallopt(parameter, value)]
    if refused:
        logger.warning("glibc refused to keep freed memory; training may be slower")
    return not refused
