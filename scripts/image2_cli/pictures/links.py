"""What is asked for a link as it came: joined, encoded, by https, never into the user's own network, never with a login.

Sends nothing and looks no name up. The service chooses the links, so they are a stranger's words: 127.1 or the cloud's
metadata address would make this tool ask for a stranger what only the user's machine can reach. A name that resolves
inward is not defended against: the look-up was not pinned, so it stopped nobody and refused users of fake-IP resolvers.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from ..service import transport

PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")
PLAIN = "!#$%&'()*+,/:;=?@[]~"  # stays as it is, beside letters, digits and "-._"


class BadLink(Exception):
    """It must not be asked; `str(e)` says why ("that is not https")."""


def asked(link: str, page: str, base_url: str) -> str:
    """The URL to ask for a `link` or redirect found at the URL `page`; raises BadLink for what must not be asked."""
    link = link.strip()
    try:
        return _checked(link if urlsplit(link).scheme else urljoin(page, link), base_url)
    except ValueError:  # its text would repeat the link's
        raise BadLink("that is no URL") from None


def of_header(location: str) -> str:
    """A `Location` header as it was meant: raw UTF-8, which was read as Latin-1."""
    try:
        return location.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return location


def is_of_this_machine(base_url: str) -> bool:
    """Is the service on loopback? Then http, and inner addresses, are its own."""
    return transport.is_loopback(urlsplit(base_url).hostname or "")


def _checked(url: str, base_url: str) -> str:
    parts, base = urlsplit(url), urlsplit(base_url)
    scheme = "https" if base.scheme == "https" and parts.scheme == "http" else parts.scheme
    if scheme != "https" and not (scheme == "http" and is_of_this_machine(base_url)):
        raise BadLink("that is not https")
    # a percent in a host is an address in disguise (%31 is a 1) or one of a single network card
    if not parts.hostname or re.search(r"[@%\\\s]", parts.netloc):
        raise BadLink("with a login or without a host")
    # the host is asked as it was checked: 127。0。0。1 and soft hyphens would become an address only later
    host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode("ascii").lower()
    if _is_inner(host.rstrip(".")) and not is_of_this_machine(base_url) and host != base.hostname:
        raise BadLink("into a private network")
    port = None if scheme != parts.scheme and parts.port == 80 else parts.port
    netloc = (f"[{host}]" if ":" in host else host) + (f":{port}" if port is not None else "")
    return urlunsplit((scheme, netloc, quote(parts.path, safe=PLAIN), quote(parts.query, safe=PLAIN), ""))


def _is_inner(host: str) -> bool:
    """Is this an address of no public machine, in whatever spelling (127.1, 2130706433, 0x7f.1)?"""
    try:
        address = ipaddress.ip_address(host if ":" in host else socket.inet_aton(host))
    except (OSError, ValueError):
        return host == "localhost" or host.endswith(".localhost")
    if isinstance(address, ipaddress.IPv6Address) and (address not in PUBLIC_IPV6 or address.sixtofour):
        return True  # local, or an IPv4 address in disguise
    return not address.is_global or address.is_multicast or address.is_reserved
