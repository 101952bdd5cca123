"""Every bound of the project, with its unit, its reason and the relations between them.

Sizes that C shares stand in ``r2p2/csrc/r2p2_limits.h`` under ``R2P2_`` names; a test compares the two. Names end in
their unit: ``_bytes``, ``_count``, ``_ns``, ``_max``.
"""

from __future__ import annotations

from typing import Final

US: Final = 1_000
MS: Final = 1_000_000
SECOND: Final = 1_000_000_000

# The wire (docs/wire.md). A datagram fits an Ethernet MTU of 1500: 1500 - 20 (IPv4) - 8 (UDP).
DATAGRAM_BYTES_MAX: Final = 1472
HEADER_BYTES: Final = 8
PAYLOAD_BYTES_MAX: Final = 1464
assert PAYLOAD_BYTES_MAX == DATAGRAM_BYTES_MAX - HEADER_BYTES
# REQ0 of a multi-packet request carries so little that refusing it costs nothing.
FIRST_PAYLOAD_BYTES: Final = 14
# p_order must count packets; deployed code uses 8 bits of it.
PACKETS_MAX: Final = 254
REQUEST_BYTES_MAX: Final = FIRST_PAYLOAD_BYTES + (PACKETS_MAX - 1) * PAYLOAD_BYTES_MAX
MESSAGE_BYTES_MAX: Final = PACKETS_MAX * PAYLOAD_BYTES_MAX
assert (REQUEST_BYTES_MAX, MESSAGE_BYTES_MAX) == (370_406, 371_856)

# One rx or tx call of a port. 64 packets fill the vector paths of drivers and one page of descriptors.
BURST_MAX: Final = 64
# Datagrams one poll handles before Raft and timers get their turn: at 100 ns each, well under a heartbeat.
PACKETS_PER_POLL_MAX: Final = 1024
assert PACKETS_PER_POLL_MAX % BURST_MAX == 0

# An entry in the log: header, body, padding to 8. With the 8 bytes of its position: 24 bytes of overhead and at most
# 7 of padding.
ENTRY_HEADER_BYTES: Final = 16
# The log's time (docs/log-time.md) at the head of a timed entry's body: unix ms, until the year 10889, so that sums and
# differences of times fit in 64 bits with a sign.
TIME_BYTES: Final = 8
TIME_MS_MAX: Final = (1 << 48) - 1
# A leader's clock that is further ahead of the log than this, beyond the time that has passed, is counted as a jump.
TIME_JUMP_MS: Final = 1_000
# A deadline of the application is looked at at least so often while its time has not come.
LOG_TIME_LOOK_NS: Final = 100 * MS
# The headers of every Raft message without entries fit here (Formed with 16 members: 24 + 8 + 16 * 16 = 288).
RAFT_PREFIX_BYTES: Final = 296
# A configuration: 8 bytes, then 20 for each of 16 voters, 16 outgoing voters and 16 learners.
CONFIGURATION_BYTES_MAX: Final = 8 + 20 * 48
# Pages of the log: a live log of a few thousand small entries stays in a core's L2.
LOG_PAGE_BYTES: Final = 262_144
# A Raft group has few members; also bounds one send's targets.
TARGETS_MAX: Final = 16
# Addresses of members for whom a part of the tables is kept free: 48 of a configuration, and 16 of a cluster file.
PEERS_MAX: Final = 64

# Half messages. 4096 of them, or 64 MiB, whichever comes first; older than this their sender has given up.
REASSEMBLY_COUNT_MAX: Final = 4096
REASSEMBLY_BYTES_MAX: Final = 64 << 20
REASSEMBLY_TIMEOUT_NS: Final = 200 * MS
assert REASSEMBLY_BYTES_MAX > MESSAGE_BYTES_MAX * TARGETS_MAX
# One source address may hold a quarter of them: several clients behind one address are served, and no one address
# takes all.
SOURCE_SHARE: Final = 4
# Half answers to one call. One is awaited, but a repeated call may be answered by two servers, and whoever knows its
# number may answer, too.
ANSWER_HALVES_MAX: Final = 4

# Packets of requests that were announced, acknowledged and have not come (r2p2_grants.h): half of what the port says
# may wait to be received, and where it does not say, this. What has not come after so long counts no more: within a few
# milliseconds all that a ring holds has been received.
GRANT_PACKETS_MAX: Final = 1024
GRANT_OVERDUE_NS: Final = 5 * MS
# What came and what did not is counted for so long, and for so long again: eight times over what has not come before it
# counts no more, so that a sender which is stopped for a moment does not look like one that forges announcements.
GRANT_WINDOW_NS: Final = 40 * MS
assert GRANT_PACKETS_MAX // 2 > PACKETS_MAX
assert GRANT_OVERDUE_NS < GRANT_WINDOW_NS < REASSEMBLY_TIMEOUT_NS

# The log of a member, in memory. A member that is down holds it back until it is full; then requests are refused.
LOG_BYTES_MAX: Final = 256 << 20
LOG_ENTRIES_MAX: Final = 4 << 20
# Appended but not applied: the queue in front of the application. At 200 ns a request, 50 ms of work.
BACKLOG_ENTRIES_MAX: Final = 262_144
assert BACKLOG_ENTRIES_MAX < LOG_ENTRIES_MAX
# Requests a follower holds for the leader, and for how long without one: a little over an election.
HOLD_BYTES_MAX: Final = 16 << 20
HOLD_TIMEOUT_NS: Final = 400 * MS
assert HOLD_BYTES_MAX > REQUEST_BYTES_MAX

# Linearizable reads taken in and not answered yet, at one member: a round of confirmation takes far less than a
# millisecond, in which a member answers some thousand; the rest is for stalls. All at once they take the application
# less than a heartbeat (200 ns each: 6.6 ms).
READS_COUNT_MAX: Final = 32_768
READS_BYTES_MAX: Final = 16 << 20
assert READS_BYTES_MAX > REQUEST_BYTES_MAX
# Groups of reads that wait for a confirmation at once; while all are under way, the next group grows.
READ_GROUPS_MAX: Final = 8
# A follower's question for a read index, or its answer, may be lost: it asks again after so many heartbeats.
READ_RETRY_HEARTBEATS: Final = 3

# Entries given to the application at once. Between batches the node looks at its timers. No batch goes beyond a
# multiple of it: there the kept replies of all sessions are known on every replica, and their bytes are held to their
# bound.
APPLY_BATCH_ENTRIES_MAX: Final = 1024
# Batches applied before the node looks at its port again: 8 * 1024 * 200 ns = 1.6 ms.
APPLY_BATCHES_PER_POLL_MAX: Final = 8

# The debug mode that compares replicas: entries between two places that are compared, by default.
CHECK_INTERVAL_ENTRIES: Final = 64

# Sessions (docs/exactly-once.md). They are replicated state: these must be the same on every member. The extension of a
# session's request: client_id, sequence, oldest_pending.
SESSION_BYTES: Final = 24
# A reply carries the extension back.
REPLICATED_REPLY_BYTES_MAX: Final = MESSAGE_BYTES_MAX - SESSION_BYTES
assert REPLICATED_REPLY_BYTES_MAX == 371_832
# And so does a request.
SESSION_REQUEST_BYTES_MAX: Final = REQUEST_BYTES_MAX - SESSION_BYTES
# Sequence numbers a session may have between its oldest pending request and its newest: every rid of one local port.
SESSION_WINDOW_MAX: Final = 65_536
# A kept reply's place in the table; replies up to 24 bytes lie in it.
SESSION_KEPT_BYTES: Final = 32
SESSIONS_COUNT_MAX: Final = 65_536
# Places and longer replies together. 10,000 sessions of 64 replies of 100 bytes take 85 MB.
SESSIONS_BYTES_MAX: Final = 128 << 20
# Over the bound, sessions that hold more than this part of it go first, however recently they were used; then those
# with more than half of that, and so on.
SESSIONS_SHARE: Final = 8
assert SESSION_WINDOW_MAX * SESSION_KEPT_BYTES <= SESSIONS_BYTES_MAX // SESSIONS_SHARE
# Sessions that a member lets be opened, a second and at once after a pause, in all and by one address: to open as many
# as the table holds takes long, so that others' stay in it (docs/hostile.md). At once: a load of 10,000 sessions.
OPENINGS_PER_SECOND: Final = 1024
OPENINGS_BURST: Final = 12_288
OPENINGS_ADDRESS_PER_SECOND: Final = 256
OPENINGS_ADDRESS_BURST: Final = 12_288
assert OPENINGS_ADDRESS_BURST <= OPENINGS_BURST < SESSIONS_COUNT_MAX
# Sessions a client has open from one local port.
CLIENT_SESSIONS_MAX: Final = 16_384
# The first and the longest time between two sendings of a session's request. The first is well above a round trip
# under load; the longest is under an election, so that a new leader is found as soon as there is one.
SESSION_RETRY_NS: Final = 20 * MS
SESSION_RETRY_MAX_NS: Final = 80 * MS
# Where answers take longer than that, because requests are large or many, nothing is gained by sending them again
# before: so many times the longest that an answer took lately, and at most so long.
SESSION_RETRY_ANSWERS: Final = 2
SESSION_RETRY_SLOW_MAX_NS: Final = 400 * MS

# Raft messages fetched from the engine in one call.
RAFT_MESSAGES_MAX: Final = 256
# One AppendEntries: half of the largest message leaves room for its header and keeps loss of one packet cheap to
# repair.
APPEND_BYTES_MAX: Final = 128 << 10
assert APPEND_BYTES_MAX + REQUEST_BYTES_MAX // 2 < MESSAGE_BYTES_MAX
# And so much of the log's bound. A follower takes a quarter more than the bound, and below three quarters of it nothing
# makes room: what did not fit then would be refused for ever. A larger request goes alone; the largest is no more than
# a quarter of a log of two MiB.
APPENDS_PER_LOG: Final = 4
assert APPENDS_PER_LOG * REQUEST_BYTES_MAX < 2 << 20

# A snapshot travels in chunks: large enough that a gigabyte is a few thousand round trips, small enough that a lost
# packet costs little and other messages get their turn between two.
SNAPSHOT_CHUNK_BYTES_MAX: Final = 64 << 10
SNAPSHOT_BYTES_MAX: Final = 1 << 30
# Of one that an application gives in pieces, taken between two polls: for so long, and at most so many. Polls stay well
# within a heartbeat, and a million keys of the store are still through in a second or two under load.
SNAPSHOT_TURN_NS: Final = 500_000
SNAPSHOT_TURN_PIECES_MAX: Final = 64
assert SNAPSHOT_CHUNK_BYTES_MAX + RAFT_PREFIX_BYTES + CONFIGURATION_BYTES_MAX < MESSAGE_BYTES_MAX

# The router (r2p2_router_api.h). Requests on their way: half of the rids, so that one rests before it is used again.
ROUTER_PENDING_MAX: Final = 32_768
# JBSQ: requests that wait for a slot; 4096 of them are 6 MiB.
ROUTER_QUEUE_COUNT_MAX: Final = 4_096
ROUTER_SERVERS_MAX: Final = 64
# How long a server that does not answer is left out before one request tries it.
ROUTER_DOWN_NS: Final = 1 * SECOND
ROUTER_MISSES_MAX: Final = 3
# Where servers send FEEDBACK.
ROUTER_CONTROL_PORT: Final = 9000

# Who asked, as the engine hands it out for replies that come later.
ASKER_BYTES: Final = 12
# Requests whose replies come later, at once: beyond it new ones are refused.
DEFERRED_MAX: Final = 65_536

# An operator's request that nobody repeats for so long is given up while nothing of it has begun: `r2p2 member` repeats
# it every second, so several in a row may be lost.
MEMBER_REPEAT_NS: Final = 5 * SECOND

# A call of a client without a deadline of its own.
CALL_TIMEOUT_NS: Final = 1 * SECOND
assert SESSION_RETRY_SLOW_MAX_NS < CALL_TIMEOUT_NS
CALLS_MAX: Final = 65_535

# The key-value store (r2p2/apps/kv). A value is at most what a request can carry, so that a reply can carry it, too.
KV_VALUE_BYTES_MAX: Final = REQUEST_BYTES_MAX
assert KV_VALUE_BYTES_MAX + 64 < REPLICATED_REPLY_BYTES_MAX
# A pattern of KEYS, SCAN or CONFIG GET: made into a regular expression, which takes 0.1 ms for such a one in the usual
# case and 30 ms at worst, and seconds, without a heartbeat, for one as long as a request.
KV_PATTERN_BYTES_MAX: Final = 1024
# Keys watched by open transactions; each costs about 200 bytes.
KV_WATCHED_MAX: Final = 65_536
# Commands of one batch: at 500 ns each, 2 ms of the loop. A refused reply of each (64 bytes) fits in a response.
KV_BATCH_COMMANDS_MAX: Final = 4_096
# Of these, commands that may go through many keys (SCAN, KEYS, DBSIZE, FLUSHALL): thousands of them in one request
# would hold up every member for minutes.
KV_SWEEPING_MAX: Final = 8
# Bytes of keys, and one key more, that a step of SCAN goes through.
KV_SCAN_BYTES_MAX: Final = 1 << 20
assert KV_BATCH_COMMANDS_MAX * 64 < REPLICATED_REPLY_BYTES_MAX
# Ended keys taken out of memory with each batch, beyond one for each of its requests: at 1 us each.
KV_SWEEP_MAX: Final = 64
# After a snapshot, keys written meanwhile that are moved to the others with each batch, beyond two for each of its
# requests: at 0.2 us each.
KV_SETTLE_MIN: Final = 256

# The gateway (r2p2/gateway). Commands of one client that wait: above it nothing more is read from that client.
GATEWAY_QUEUE_BYTES_MAX: Final = 1 << 20
assert GATEWAY_QUEUE_BYTES_MAX > 2 * REQUEST_BYTES_MAX
# Connections at once; each costs about 10 KiB.
GATEWAY_CLIENTS_MAX: Final = 10_000
# Sessions of a gateway, by turns: one write without an answer bounds how many later ones its session may carry.
GATEWAY_SESSIONS_COUNT: Final = 8
assert GATEWAY_CLIENTS_MAX < GATEWAY_SESSIONS_COUNT * SESSION_WINDOW_MAX

# Redis as the state machine (r2p2/apps/redis). A server that says nothing for so long is given up; saving or loading
# a gigabyte takes it some ten seconds.
REDIS_SILENCE_SECONDS: Final = 60.0
# Keys with a reminder of their deadline beyond twice those that have one: then the table is gone through.
REDIS_REMINDERS_SLACK_COUNT: Final = 65_536
