"""Sends the webhooks that are due, signed, again and again until they are taken or it has been tried for a day.

What is sent and how it is signed is what OpenAI's webhooks and the Standard Webhooks specification say. Every try has
the same ``webhook-id``. A receiver may get one twice (it answered too late, or this process was killed), and in any
order.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import random
import ssl
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

import httpx
from anyio import to_thread

from app.models import EventLevel, WebhookDelivery
from app.services.webhook_options import NotAllowed, WebhookOptions, parse_url
from app.storage.database import Database

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10.0  # of one try: to look the host up, connect, send and be answered
RETRY_SECONDS = tuple(min(10.0 * 5**number, 12 * 3600.0) for number in range(7))  # after each try; a day in all
JITTER = 0.2  # largest share that a wait is longer, so that what failed together does not come back together
_LOOK_SECONDS = 1.0
_CLAIM_SECONDS = 60.0  # a try is nobody else's for so long
_AT_ONCE = 20
_GONE = 410  # nobody there wants to be told any more


def signature(keys: Iterable[bytes], *, id: str, timestamp: int, body: bytes) -> str:
    """The header ``webhook-signature``: HMAC-SHA256 of ``id.timestamp.body``, with each key."""
    signed = f"{id}.{timestamp}.".encode() + body
    digests = (hmac.new(key, signed, hashlib.sha256).digest() for key in keys)
    return " ".join(f"v1,{base64.b64encode(digest).decode('ascii')}" for digest in digests)


class WebhookSender:
    """One a process; of several, the database decides who sends what."""

    def __init__(
        self,
        database: Database,
        options: WebhookOptions,
        *,
        clock: Callable[[], datetime],
        draw: Callable[[], float] = random.random,
        tls: ssl.SSLContext | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        """``draw``: a number from 0 to 1 for each wait; ``tls``: whose certificates are believed, if not the usual."""
        self._database, self._options, self._clock, self._draw = database, options, clock, draw
        self._tls, self._timeout_seconds = tls, timeout_seconds

    async def run(self) -> None:
        """Send whatever becomes due, for ever; returns at once where no webhook is sent."""
        while self._options.keys:
            try:
                if await self.send_due():
                    continue
            except Exception:
                log.exception("webhooks cannot be sent")
            await asyncio.sleep(_LOOK_SECONDS)

    async def send_due(self) -> int:
        """One try of each that is due, side by side; returns how many were tried."""
        due = await to_thread.run_sync(self._claim) if self._options.keys else []
        if not due:
            return 0
        if self._tls is None:
            self._tls = await to_thread.run_sync(httpx.create_ssl_context)
        none = httpx.Limits(max_keepalive_connections=0)  # what is kept was proved for a host, and found by its address
        async with httpx.AsyncClient(verify=self._tls, trust_env=False, timeout=None, limits=none) as http:
            await asyncio.gather(*(self._try(http, delivery) for delivery in due))
        return len(due)

    def _claim(self) -> Sequence[WebhookDelivery]:
        now = self._clock()
        with self._database.session(read_only=True) as uow:
            if not uow.webhooks.is_any_due(now=now):
                return []
        with self._database.session() as uow:
            claimed = uow.webhooks.claim(now=now, until=now + timedelta(seconds=_CLAIM_SECONDS), limit=_AT_ONCE)
            uow.commit()
        return claimed

    async def _try(self, http: httpx.AsyncClient, delivery: WebhookDelivery) -> None:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                status = await self._post(http, delivery)
            error = None if 200 <= status < 300 else f"answered {status}"
        except TimeoutError:
            status, error = 0, f"no answer in {self._timeout_seconds:g} s"
        except (NotAllowed, httpx.HTTPError, OSError) as fault:
            status, error = 0, f"{type(fault).__name__}: {fault}"
        await to_thread.run_sync(self._end, delivery, error, status == _GONE)

    async def _post(self, http: httpx.AsyncClient, delivery: WebhookDelivery) -> int:
        """The answer's status. Connects to the very addresses that were checked, and follows no redirect."""
        url = parse_url(delivery.url)
        addresses = await to_thread.run_sync(self._options.addresses, url, abandon_on_cancel=True)
        request = self._request(delivery, url)
        while True:
            request.url = url.copy_with(host=addresses.pop(0))
            try:
                answer = await http.send(request, stream=True)
            except httpx.ConnectError:
                if not addresses:
                    raise
                continue
            await answer.aclose()  # what it says beside the status is of no interest
            return answer.status_code

    def _request(self, delivery: WebhookDelivery, url: httpx.URL) -> httpx.Request:
        body = json.dumps(delivery.payload).encode("ascii")
        timestamp = int(self._clock().timestamp())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "selfspec",
            "webhook-id": delivery.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(self._options.keys, id=delivery.id, timestamp=timestamp, body=body),
        }
        tls = {"sni_hostname": url.raw_host.decode("ascii")}  # the certificate is checked for it, too
        return httpx.Request("POST", url, headers=headers, content=body, extensions=tls)

    def _end(self, delivery: WebhookDelivery, error: str | None, is_final: bool) -> None:
        now = self._clock()
        due_at = None if error is None or is_final else self._next_try(delivery.tries, now)
        with self._database.session() as uow:
            delivered_at = now if error is None else None
            was_ours = uow.webhooks.end(delivery, delivered_at=delivered_at, error=error, due_at=due_at)
            if was_ours and error is not None and due_at is None:
                told = f"the webhook {delivery.type} was given up after {delivery.tries} tries: {error}"
                data = {"webhook": delivery.id, "type": delivery.type, "tries": delivery.tries, "error": error}
                job_id, level = delivery.job_id, EventLevel.WARNING
                uow.events.add(job_id, "webhook_given_up", told, now=now, level=level, data=data)
            uow.commit()
        if error is not None:
            log.warning("webhook %s of job %s, try %d: %s", delivery.id, delivery.job_id, delivery.tries, error)

    def _next_try(self, num_tries: int, now: datetime) -> datetime | None:
        if num_tries > len(RETRY_SECONDS):
            return None
        return now + timedelta(seconds=RETRY_SECONDS[num_tries - 1] * (1 + JITTER * self._draw()))
