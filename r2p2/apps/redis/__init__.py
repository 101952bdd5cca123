"""An unmodified redis-server as the state machine: each replica has one, and gives it the committed commands in order.

`commands.py` says which commands may enter, `deadlines.py` takes the time of keys out of Redis's hands, `plan.py`
turns a command into what Redis is sent, `pipeline.py` has several answered at once, `link.py` is the connection,
`child.py` the process, `scan.py` a SCAN that any replica can go on with, `machine.py` the application. docs/redis.md
says what users may expect.
"""

from r2p2.apps.redis.child import Settings
from r2p2.apps.redis.machine import RedisServer

__all__ = ["RedisServer", "Settings"]
