import struct

from hypothesis import given
from hypothesis import strategies as st
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow

from qm9flow.tracking.records import crc32c, masked_crc32c, to_record


def test_published_checksums() -> None:
    """RFC 3720, appendix B.4."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"") == 0


@given(st.binary(max_size=1000))
def test_same_checksum_as_tensorboards_own(content: bytes) -> None:
    assert masked_crc32c(content) == pywrap_tensorflow.masked_crc32c(content)


def test_record_has_its_length_first() -> None:
    record = to_record(b"abc" * 100)
    assert struct.unpack("<Q", record[:8]) == (300,)
    assert record[12:312] == b"abc" * 100
    assert len(record) == 316
