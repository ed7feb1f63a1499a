"""Checksums of what is sent to S3, as parameters of a request. S3 refuses bytes that do not match theirs."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Mapping
from typing import Any


def checksum(data: bytes, *, crc: bool) -> dict[str, str]:
    """Return the checksum of a body: its CRC-32, which S3 keeps and returns with the bytes, or else its MD5."""
    if crc:
        return {"ChecksumCRC32": crc_text(zlib.crc32(data))}
    return {"ContentMD5": base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()}


def crc_text(crc: int) -> str:
    """Return a CRC-32 as S3 writes it: four bytes, the highest first, in base64."""
    return base64.b64encode(crc.to_bytes(4, "big")).decode()


def whole_crc(answer: Mapping[str, Any]) -> str | None:
    """Return the CRC-32 of a whole object that an answer names; None where it names that of its parts, or none."""
    text = answer.get("ChecksumCRC32")
    return None if text is None or "-" in text or answer.get("ChecksumType") == "COMPOSITE" else str(text)
