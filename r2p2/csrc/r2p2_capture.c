/* A tap on the engine. See r2p2_capture.h. */
#include "r2p2_capture.h"

#include <stdlib.h>
#include <string.h>

#include "r2p2_wire.h"

#define SECOND_NS 1000000000
#define RESERVE_NS (SECOND_NS / 4)
#define RESERVE_PACKETS 32
#define APPEND_KIND 5
#define FORWARD_KIND 7

int r2p2_capture_start(r2p2_capture *capture, uint64_t rate, uint32_t snap_bytes, uint64_t now_ns) {
    if (rate == 0 || rate > SECOND_NS || snap_bytes == 0) return R2P2_ERROR_ARGUMENT;
    if (!capture->records) capture->records = malloc(R2P2_CAPTURE_BYTES);
    if (!capture->records) return R2P2_ERROR_NO_MEMORY;
    capture->used = 0;
    capture->missed = 0;
    capture->rate = rate;
    capture->tokens_ns = capture->rare_tokens_ns = SECOND_NS;
    capture->refilled_ns = now_ns;
    capture->draw = 0x9e3779b9u; /* anything but 0 */
    capture->snap_bytes = snap_bytes < R2P2_DATAGRAM_BYTES_MAX ? snap_bytes : R2P2_DATAGRAM_BYTES_MAX;
    return R2P2_OK;
}

void r2p2_capture_stop(r2p2_capture *capture) {
    free(capture->records);
    memset(capture, 0, sizeof *capture);
}

/* Votes, forming: rare, and what a reader looks for. Appends, their replies and forwards are most of the traffic. */
static int is_rare(const uint8_t *data, uint32_t length) {
    if (length < R2P2_HEADER_BYTES + 2u || data[0] != R2P2_MAGIC || data[2] >> 4 < R2P2_TYPE_RAFT_REQ) return 0;
    if (!(data[3] & R2P2_FLAG_FIRST)) return 0;
    uint8_t kind = data[R2P2_HEADER_BYTES + 1];
    return kind < APPEND_KIND || kind > FORWARD_KIND;
}

/* Whether this packet is one of the sample. Once the bucket is nearly empty, the emptier it is, the fewer are: whoever comes first when there is a
 * token again is always the same, what a poll receives and not what it sends, so not every packet that could be afforded is taken. */
static int is_drawn(r2p2_capture *capture, int64_t cost_ns) {
    int64_t reserve_ns = RESERVE_PACKETS * cost_ns > RESERVE_NS ? RESERVE_PACKETS * cost_ns : RESERVE_NS;
    if (reserve_ns > SECOND_NS / 2) reserve_ns = SECOND_NS / 2;
    if (capture->tokens_ns < cost_ns) return 0;
    if (capture->tokens_ns >= reserve_ns) return 1;
    uint32_t draw = capture->draw;
    draw ^= draw << 13;
    draw ^= draw >> 17;
    draw ^= draw << 5;
    capture->draw = draw;
    /* The square: where few are taken, there is still more than one token, so that having just taken one makes little difference. */
    uint32_t share = (uint32_t)((uint64_t)capture->tokens_ns * 65536 / (uint64_t)reserve_ns);
    return draw < share * share;
}

/* Remembers for a multi-packet message whether it is being taken; answers that for its later packets. */
static int belongs_to_taken(r2p2_capture *capture, uint64_t ips, uint64_t ports, const uint8_t *data, uint32_t length,
                            int affordable) {
    if (length < R2P2_HEADER_BYTES || data[0] != R2P2_MAGIC) return 0;
    uint8_t flags = data[3] & (R2P2_FLAG_FIRST | R2P2_FLAG_LAST);
    if (flags == (R2P2_FLAG_FIRST | R2P2_FLAG_LAST)) return 0;
    uint64_t key = ips * 0x9e3779b97f4a7c15u ^ (ports << 32 | (uint64_t)r2p2_load_u16(data + 4) << 8 | data[2]);
    if (key == 0) key = 1;
    struct r2p2_capture_message *message = &capture->taking[(key ^ key >> 32) & (R2P2_CAPTURE_MESSAGES - 1)];
    if (flags & R2P2_FLAG_FIRST) {
        uint32_t packets = r2p2_load_u16(data + 6);
        if (affordable) *message = (struct r2p2_capture_message){key, packets < R2P2_PACKETS_MAX ? packets : R2P2_PACKETS_MAX};
        else if (message->key == key) message->key = 0;
        return 0;
    }
    if (message->key != key || message->packets_left <= 1) return 0;
    message->packets_left--;
    return 1;
}

static void refill(int64_t *tokens_ns, uint64_t passed_ns) {
    *tokens_ns += passed_ns < INT64_MAX / 2 ? (int64_t)passed_ns : INT64_MAX / 2;
    if (*tokens_ns > SECOND_NS) *tokens_ns = SECOND_NS;
}

void r2p2_capture_add(r2p2_capture *capture, uint64_t now_ns, uint32_t source_ip, uint16_t source_port, uint32_t target_ip,
                      uint16_t target_port, const uint8_t *data, uint32_t length) {
    /* The bucket holds a second's worth; a packet costs a second / rate. */
    refill(&capture->tokens_ns, now_ns - capture->refilled_ns);
    refill(&capture->rare_tokens_ns, now_ns - capture->refilled_ns);
    capture->refilled_ns = now_ns;
    int64_t cost_ns = SECOND_NS / (int64_t)capture->rate;
    uint32_t captured = length < capture->snap_bytes ? length : capture->snap_bytes;
    uint64_t bytes = (sizeof(r2p2_capture_record) + captured + 7) & ~(uint64_t)7;
    int affordable = is_drawn(capture, cost_ns);
    uint64_t ips = (uint64_t)source_ip << 32 | target_ip, ports = (uint64_t)source_port << 16 | target_port;
    int belongs = belongs_to_taken(capture, ips, ports, data, length, affordable);
    int wanted = belongs || (capture->rare_tokens_ns >= cost_ns && is_rare(data, length));
    /* Under load the rest of a message that was not taken is of no use, even when it could be afforded. */
    if (capture->tokens_ns < SECOND_NS / 2 && length >= R2P2_HEADER_BYTES && data[0] == R2P2_MAGIC && !(data[3] & R2P2_FLAG_FIRST)) affordable = wanted;
    if (capture->used + bytes > R2P2_CAPTURE_BYTES || (!affordable && !wanted)) {
        capture->missed++;
        return;
    }
    *(affordable || belongs ? &capture->tokens_ns : &capture->rare_tokens_ns) -= cost_ns;
    r2p2_capture_record record = {
        .time_ns = now_ns,
        .source_ip = source_ip,
        .target_ip = target_ip,
        .source_port = source_port,
        .target_port = target_port,
        .length = length,
        .captured = captured,
        .record_bytes = (uint32_t)bytes,
    };
    uint8_t *out = capture->records + capture->used;
    memcpy(out, &record, sizeof record);
    memcpy(out + sizeof record, data, captured);
    memset(out + sizeof record + captured, 0, bytes - sizeof record - captured);
    capture->used += bytes;
}
