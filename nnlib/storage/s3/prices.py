"""What requests to S3 cost.

The prices are those of S3 Standard in US East (N. Virginia), from https://aws.amazon.com/s3/pricing/, as published in
2025; other regions and storage classes have others, and so may an account. ``NNJOBS_S3_PRICES`` replaces them:
``0.0054,0.00043``, dollars for 1,000 requests that write or list, and for 1,000 that read. What is stored and what
leaves the region costs, too, and is not counted here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from nnlib.core.errors import UsageError
from nnlib.storage.traffic import Price

VARIABLE = "NNJOBS_S3_PRICES"
WRITE_DOLLARS, READ_DOLLARS = 0.005, 0.0004
"""For 1,000 requests."""


def describe(requests: Mapping[Price, int]) -> str:
    """Return a line about requests by price, and what they cost where the service is AWS, or the prices are set.

    Raises `UsageError` for prices that are no numbers.
    """
    writes, reads, free = (requests.get("write", 0), requests.get("read", 0), requests.get("free", 0))
    text = f"requests to S3: {writes:,} that write or list, {reads:,} that read, {free:,} free"
    prices = _prices()
    if prices is None:
        return f"{text} ({VARIABLE} says what they cost at this service)"
    dollars = (writes * prices[0] + reads * prices[1]) / 1000
    shown = f"${dollars:.2f}" if dollars >= 1 else f"${dollars:.4f}"
    return f"{text}: about {shown} at ${prices[0]:g} and ${prices[1]:g} a thousand"


def _prices() -> tuple[float, float] | None:
    text = os.environ.get(VARIABLE)
    if text:
        try:
            write, read = (float(part) for part in text.split(","))
        except ValueError:
            raise UsageError(f"got {text!r}, expected two numbers such as 0.005,0.0004", variable=VARIABLE) from None
        return write, read
    if os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        return None
    return WRITE_DOLLARS, READ_DOLLARS
