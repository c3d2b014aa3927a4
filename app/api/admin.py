"""Lets only an operator in: whoever shows the key that the settings name."""

from __future__ import annotations

import hmac

from fastapi import FastAPI, Request

from app.core.errors import Forbidden, Unauthorized

KEY_SETTING = "SELFSPEC_ADMIN_KEY"


def install(app: FastAPI, key: str | None) -> None:
    """The key of ``app``; None: nobody is let in."""
    app.state.admin_key = key


def check_admin(request: Request) -> None:
    """A dependency. Raises Forbidden while no key is set, Unauthorized for a missing or wrong one."""
    key: str | None = request.app.state.admin_key
    if key is None:
        raise Forbidden(f"loading adapters by name is switched off; {KEY_SETTING} turns it on")
    scheme, _, shown = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(shown.strip().encode(), key.encode()):
        raise Unauthorized(f"send the key of {KEY_SETTING} as `Authorization: Bearer …`")
