"""The gateway: ordinary Redis clients over TCP in front, a replicated key-value store over R2P2 behind.

`parser.py` reads what clients send, `local.py` answers what is the gateway's own business, `connection.py` keeps one
client's order and transactions, `upstream.py` turns commands into R2P2 requests, `server.py` listens, `command.py` is
`r2p2 gateway`. docs/gateway.md says what clients may expect.
"""

from r2p2.gateway.server import Gateway, GatewayConfig

__all__ = ["Gateway", "GatewayConfig"]
