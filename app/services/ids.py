"""Names for new rows: sortable by time, not guessable."""

from __future__ import annotations

import secrets
from datetime import datetime


def new_id(kind: str, now: datetime) -> str:
    """``job-1a2b3c4d5e6f-…``: milliseconds since 1970 in hexadecimal, then 40 random bits."""
    return f"{kind}-{int(now.timestamp() * 1000):012x}{secrets.token_hex(5)}"
