"""Handlers that benchmarks serve: ``r2p2 serve --app benchmarks.handlers:echo_one`` from the project's folder."""

from __future__ import annotations


def echo_one(request: bytes) -> bytes:
    """An echo as a user would write it: called for each request, an object each."""
    return request
