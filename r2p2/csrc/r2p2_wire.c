/* The R2P2 header: pure functions over bytes. See r2p2_wire.h. */
#include "r2p2_wire.h"

enum r2p2_header_error r2p2_header_parse(const uint8_t *data, size_t length, r2p2_header *header) {
    if (length < R2P2_HEADER_BYTES) return R2P2_HEADER_SHORT;
    if (data[0] != R2P2_MAGIC) return R2P2_HEADER_MAGIC;
    uint8_t header_size = data[1];
    if (header_size < R2P2_HEADER_BYTES || header_size > length) return R2P2_HEADER_SIZE;
    uint8_t type = data[2] >> 4, policy = data[2] & 0x0f, flags = data[3];
    if (type > R2P2_TYPE_RAFT_MSG) return R2P2_HEADER_TYPE;
    if (policy > R2P2_POLICY_REPLICATED_NO_SE) return R2P2_HEADER_POLICY;
    if (flags & ~(R2P2_FLAG_FIRST | R2P2_FLAG_LAST)) return R2P2_HEADER_FLAGS;
    uint8_t is_first = (flags & R2P2_FLAG_FIRST) != 0, is_last = (flags & R2P2_FLAG_LAST) != 0;
    uint16_t p_order = r2p2_load_u16(data + 6);
    if (is_first) {
        /* p_order counts packets: one packet is also the last, more are not. */
        if (p_order == 0 || p_order > R2P2_PACKETS_MAX) return R2P2_HEADER_ORDER;
        if (is_last != (p_order == 1)) return R2P2_HEADER_FLAGS;
    } else if (p_order == 0 || p_order >= R2P2_PACKETS_MAX) {
        return R2P2_HEADER_ORDER;
    }
    header->header_size = header_size;
    header->type = type;
    header->policy = policy;
    header->is_first = is_first;
    header->is_last = is_last;
    header->has_session = is_first && header_size == R2P2_SESSION_HEADER_BYTES &&
                          ((type == R2P2_TYPE_REQUEST && policy == R2P2_POLICY_REPLICATED) ||
                           type == R2P2_TYPE_RESPONSE || type == R2P2_TYPE_DROP);
    header->rid = r2p2_load_u16(data + 4);
    header->p_order = p_order;
    return R2P2_HEADER_OK;
}

enum r2p2_raft_head r2p2_raft_head_check(const uint8_t *data, size_t length, uint32_t cluster_id) {
    if (length < R2P2_RAFT_HEAD_BYTES) return R2P2_RAFT_HEAD_SHORT;
    if (data[0] != R2P2_RAFT_VERSION) return R2P2_RAFT_HEAD_VERSION;
    return r2p2_load_u32(data + 4) == cluster_id ? R2P2_RAFT_HEAD_OK : R2P2_RAFT_HEAD_CLUSTER;
}

void r2p2_header_write(uint8_t *out, uint8_t type, uint8_t policy, int is_first, int is_last, uint16_t rid,
                       uint16_t p_order) {
    out[0] = R2P2_MAGIC;
    out[1] = R2P2_HEADER_BYTES;
    out[2] = (uint8_t)(type << 4 | policy);
    out[3] = (uint8_t)((is_first ? R2P2_FLAG_FIRST : 0) | (is_last ? R2P2_FLAG_LAST : 0));
    r2p2_store_u16(out + 4, rid);
    r2p2_store_u16(out + 6, p_order);
}
