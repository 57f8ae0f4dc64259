"""Prices as text: written with two decimals, read with or without a sign."""

from __future__ import annotations

import re

_SIGN = "[$€£]?"
_PRICE = re.compile(rf"{_SIGN}\s*([0-9]{{1,6}})(?:[.,]([0-9]{{1,2}}))?\s*{_SIGN}\.?")


def written(cents: int) -> str:
    """A price in cents as an answer writes it: 350 -> "3.50"."""
    return f"{cents // 100}.{cents % 100:02d}"


def cents_of(text: str) -> int | None:
    """A price as it may be written, with a sign or without, in cents: "$3.50", "3,5 €" -> 350. None for other text."""
    match = _PRICE.fullmatch(text.strip())
    return int(match[1]) * 100 + int((match[2] or "").ljust(2, "0")) if match else None
