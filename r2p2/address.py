"""IPv4 addresses and UDP ports: text outside, ints in host order inside."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from r2p2.errors import UserError


def parse_ip(text: str) -> int:
    """``"10.0.0.1"`` as an int.

    Raises:
        UserError: it is not an IPv4 address.
    """
    try:
        return int(ipaddress.IPv4Address(text))
    except ValueError as error:
        raise UserError(f"{text!r} is not an IPv4 address: {error}", "Write four numbers, as in 10.0.0.1.") from None


def format_ip(ip: int) -> str:
    """An int as ``"10.0.0.1"``."""
    return str(ipaddress.IPv4Address(ip))


@lru_cache(maxsize=256)  # clients give their servers as text, with each call
def parse_address(text: str, *, default_port: int | None = None) -> tuple[int, int]:
    """``"10.0.0.1:8000"`` as ``(ip, port)``; the port may be left out where there is a default.

    Raises:
        UserError: no address of this form, or a port outside 0..65535.
        TypeError: it is not text.
    """
    if not isinstance(text, str):
        raise TypeError(f"an address is text, as in '127.0.0.1:8000', not {type(text).__name__}")
    ip, colon, port_text = text.partition(":")
    if ":" in port_text:
        raise UserError(f"{text!r} is no IPv4 address with a port", "IPv4 only: write IP:PORT, as in 127.0.0.1:8000.")
    if not colon:
        if default_port is None:
            raise UserError(f"{text!r} has no port", "Write IP:PORT, as in 127.0.0.1:8000.")
        return parse_ip(ip), default_port
    try:
        port = int(port_text)
    except ValueError:
        raise UserError(f"{port_text!r} in {text!r} is not a port number", "Write IP:PORT.") from None
    if not 0 <= port <= 65535:
        raise UserError(f"port {port} in {text!r} is outside 0..65535")
    return parse_ip(ip), port


def parse_own_address(option: str, text: str) -> tuple[int, int]:
    """As :func:`parse_address`, of one that a process listens at.

    Raises:
        UserError: as there, or many machines have it at once.
    """
    ip, port = parse_address(text)
    if ipaddress.IPv4Address(ip).is_multicast or ip == 0xFFFFFFFF:
        raise UserError(f"{option} {text}: {format_ip(ip)} is no machine's own address", "Give one of this machine.")
    return ip, port


def format_address(address: tuple[int, int]) -> str:
    """``(ip, port)`` as ``"10.0.0.1:8000"``."""
    return f"{format_ip(address[0])}:{address[1]}"
