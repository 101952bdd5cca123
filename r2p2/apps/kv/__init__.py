"""A key-value store that speaks RESP, the protocol of Redis: strings and counters with expiry, and atomic batches.

`store.py` is the state, `machine.py` the replicated application over it, `registry.py` the table of commands, filled by
the families `strings.py`, `counters.py`, `expiry.py`, `keyspace.py`, `connection.py` and `batches.py`. docs/kv.md says
what clients see.
"""

from r2p2.apps.kv.machine import KeyValue
from r2p2.apps.kv.resp import encode_command

__all__ = ["KeyValue", "encode_command"]
