/*
 * The C twin of r2p2/limits.py: sizes that both languages must agree on. A test compares the two, name by name.
 * No include guard trickery and only integer #defines: cffi reads this file too.
 */
#define R2P2_HEADER_BYTES 8
#define R2P2_DATAGRAM_BYTES_MAX 1472
#define R2P2_PAYLOAD_BYTES_MAX 1464
#define R2P2_FIRST_PAYLOAD_BYTES 14
#define R2P2_PACKETS_MAX 254
#define R2P2_REQUEST_BYTES_MAX 370406
#define R2P2_MESSAGE_BYTES_MAX 371856
#define R2P2_BURST_MAX 64
#define R2P2_ENTRY_HEADER_BYTES 16
#define R2P2_RAFT_PREFIX_BYTES 296
#define R2P2_LOG_PAGE_BYTES 262144
#define R2P2_TARGETS_MAX 16
#define R2P2_SOURCE_SHARE 4
#define R2P2_ASKER_BYTES 12
#define R2P2_READS_COUNT_MAX 32768
#define R2P2_READS_BYTES_MAX 16777216
