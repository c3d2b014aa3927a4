"""Whether webhooks are sent from here, and where to: the keys that sign them and the addresses they may reach.

A URL is checked when a job names it and again before every try, each time with the addresses its host has then.
"""

from __future__ import annotations

import base64
import ipaddress
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

import httpx

from app.services.seeds import unusable_text

MAX_URL_CHARS = 2000
SECRET_PREFIX = "whsec_"  # before a key in base64, as the Standard Webhooks specification writes it
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Resolve = Callable[[str, int], Sequence[str]]


class NotAllowed(Exception):
    """A URL that no webhook is sent to; says why in words."""


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, in the order to try them. Raises OSError; may take seconds."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def key_of(secret: str) -> bytes:
    """The bytes to sign with: of ``whsec_…`` what stands there in base64, of any other secret its own."""
    if secret.startswith(SECRET_PREFIX):
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    return secret.encode()


@dataclass(frozen=True, slots=True)
class WebhookOptions:
    """``keys`` that sign, each by itself; none: no webhook is taken or sent.

    ``allow_private``: also to this machine and its network.
    """

    keys: tuple[bytes, ...] = field(default=(), repr=False)
    allow_private: bool = False
    resolve: Resolve = resolve

    def problem(self, url: object) -> str | None:
        """Why a job cannot have this webhook; may take seconds, because the host is looked up."""
        if not self.keys:
            return "cannot be used here: SELFSPEC_WEBHOOK_SECRET is not set, and no webhook is sent unsigned"
        if not isinstance(url, str):
            return "must be a text"
        if fault := unusable_text(url):
            return fault
        try:
            self.addresses(parse_url(url))
        except NotAllowed as refusal:
            return str(refusal)
        return None

    def addresses(self, url: httpx.URL) -> list[str]:
        """Where to connect for this URL. Raises NotAllowed if any of its host's addresses is not to be reached."""
        try:
            found = list(self.resolve(url.host, port_of(url)))
        except (OSError, UnicodeError) as error:
            raise NotAllowed(f"its host {url.host} cannot be found") from error
        if not self.allow_private and (closed := [address for address in found if not _is_public(address)]):
            raise NotAllowed(
                f"its host {url.host} is at {closed[0]}, which is not on the public internet "
                "(SELFSPEC_WEBHOOK_ALLOW_PRIVATE=true allows that)"
            )
        return found


def parse_url(url: str) -> httpx.URL:
    """Raises NotAllowed for what is no plain http or https URL."""
    if len(url) > MAX_URL_CHARS:
        raise NotAllowed(f"is {len(url):,} characters long; at most {MAX_URL_CHARS:,} can be used")
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise NotAllowed(f"is no URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise NotAllowed("must be a URL such as https://example.com/hook")
    if parsed.port is not None and not 0 < parsed.port < 2**16:
        raise NotAllowed(f"names port {parsed.port}; there are 1 to 65535")
    if parsed.userinfo:
        raise NotAllowed("must not hold a user or a password: check the signature instead")
    return parsed


def port_of(url: httpx.URL) -> int:
    """The one it names, or its scheme's."""
    return url.port or (443 if url.scheme == "https" else 80)


def _is_public(address: str) -> bool:
    return all(
        one.is_global and not (one.is_multicast or one.is_reserved or getattr(one, "is_site_local", False))
        for one in _meant(address)
    )


def _meant(address: str) -> Iterator[IPv4Address | IPv6Address]:
    """The address, and the IPv4 address that a gateway or this machine would make of it."""
    ip = ipaddress.ip_address(address)
    if not isinstance(ip, IPv6Address):
        yield ip
        return
    inner = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
    if ip in _NAT64:
        inner.append(IPv4Address(int(ip) & 0xFFFFFFFF))
    embedded = [one for one in inner if one is not None]
    yield from embedded
    if ip.ipv4_mapped is None:
        yield ip
