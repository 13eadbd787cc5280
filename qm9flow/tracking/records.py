"""TensorBoard's record files: length, checksum, content, checksum.

TensorBoard's own writer computes the checksum byte by byte in Python, which took most of the time
of writing a trial; here 64-byte lanes are computed side by side and then joined.

Source: Castagnoli, Braeuer, Herrmann, IEEE Trans. Commun. 41, 883 (1993) for the polynomial; the
format is TensorFlow's TFRecord, the checksum masked as described there.
"""

import struct

import numpy as np
import numpy.typing as npt

_POLYNOMIAL = 0x82F63B78  # reflected
_LANE = 64
_MASK = 0xA282EAD8

Words = npt.NDArray[np.uint32]


def _byte_table() -> Words:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table.astype(np.uint32)


_TABLE = _byte_table()
_BYTES = [int(value) for value in _TABLE]


def _lane_shifts() -> list[list[int]]:
    """What a lane of zeros does to a checksum, by each of its four bytes: it is linear."""
    values = np.arange(256, dtype=np.uint32)[None] << (8 * np.arange(4, dtype=np.uint32)[:, None])
    for _ in range(_LANE):
        values = _TABLE[values & 0xFF] ^ (values >> 8)
    return [[int(value) for value in row] for row in values]


_SHIFTS = _lane_shifts()


def crc32c(content: bytes) -> int:
    """The checksum CRC-32C.

    Args:
        content: Any bytes.

    Returns:
        The checksum, below 2**32.
    """
    n_lanes = len(content) // _LANE
    state = 0xFFFFFFFF
    if n_lanes:
        lanes = np.frombuffer(content, np.uint8, n_lanes * _LANE).reshape(n_lanes, _LANE)
        sums = np.zeros(n_lanes, dtype=np.uint32)
        for column in np.ascontiguousarray(lanes.T):
            sums = _TABLE[(sums ^ column) & 0xFF] ^ (sums >> 8)
        first, second, third, fourth = _SHIFTS
        for lane in sums.tolist():
            state = (
                first[state & 0xFF]
                ^ second[(state >> 8) & 0xFF]
                ^ third[(state >> 16) & 0xFF]
                ^ fourth[state >> 24]
                ^ lane
            )
    for byte in content[n_lanes * _LANE :]:
        state = _BYTES[(state ^ byte) & 0xFF] ^ (state >> 8)
    return state ^ 0xFFFFFFFF


def masked_crc32c(content: bytes) -> int:
    """The checksum as record files store it.

    Args:
        content: Any bytes.

    Returns:
        The masked checksum, below 2**32.
    """
    plain = crc32c(content)
    return (((plain >> 15) | (plain << 17)) + _MASK) & 0xFFFFFFFF


def to_record(content: bytes) -> bytes:
    """One record of a record file.

    Args:
        content: A serialised message.

    Returns:
        The record.
    """
    length = struct.pack("<Q", len(content))
    return b"".join(
        (
            length,
            struct.pack("<I", masked_crc32c(length)),
            content,
            struct.pack("<I", masked_crc32c(content)),
        )
    )
