"""May this link of the service be asked? Never into the user's own network, never with a login, never without TLS.

Looks names up; sends nothing. The service chooses the links, so they are a stranger's words: a link to 127.1 or to the
cloud's metadata address would make this tool ask for a stranger what only the user's machine can reach.
"""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Proxies that answer every name with such an address (TUN mode) are common; a literal one is still refused.
FAKE_IP = ipaddress.ip_network("198.18.0.0/15")


def why_not(url: str, loopback: bool, home: str = ""):
    """Why the URL must not be asked ("that is not https"), or None.

    `loopback`: the service is on this machine, so http and loopback are its own. What the user named as the service's
    own address (`home`) is no secret of the network: it may be an inner one.
    """
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        return "that is no URL"
    if parts.scheme != "https" and not (loopback and parts.scheme == "http"):
        return "that is not https"
    # a percent in a host is an address in disguise (%31 is a 1) or one of a single network card
    if not host or "@" in parts.netloc or "%" in parts.netloc or "\\" in url:
        return "with a login or without a host"
    if not loopback and parts.netloc != home and any(_is_inner(address) for address in _addresses(host)):
        return "into a private network"
    return None


def _addresses(host: str) -> list:
    """Every address a host stands for: written out in any old spelling, or looked up.

    A name that cannot be looked up here may still be known to the proxy; it has no address to refuse.
    """
    host = host.rstrip(".")
    try:
        return [ipaddress.ip_address(host)]
    except ValueError:
        pass
    try:
        return [ipaddress.ip_address(socket.inet_aton(host))]  # also 127.1 and 2130706433
    except OSError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    addresses = [ipaddress.ip_address(entry[4][0].partition("%")[0]) for entry in found]
    return [address for address in addresses if address not in FAKE_IP]


def _is_inner(address) -> bool:
    if address.version == 6:
        if address.ipv4_mapped:
            address = address.ipv4_mapped
        elif address.sixtofour:
            address = address.sixtofour
        elif address in NAT64:
            address = ipaddress.ip_address(int(address) & 0xFFFFFFFF)
    # is_global has no word on the old IPv4-compatible (::127.0.0.1) and site-local (fec0::) addresses
    return not address.is_global or address.is_multicast or address.is_reserved or (
        address.version == 6 and address.is_site_local)
