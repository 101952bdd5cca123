/* The router's servers: see r2p2_router_servers.h. */
#include "r2p2_router_servers.h"

void r2p2_servers_init(r2p2_servers *servers, const r2p2_router_config *config, r2p2_router_counters *counters,
                       const r2p2_target *addresses, uint32_t count) {
    servers->config = config;
    servers->counters = counters;
    servers->random_state = config->seed;
    servers->count = count;
    for (uint32_t i = 0; i < count; i++) servers->list[i].address = addresses[i];
}

/* Uniform in 0..count-1 but for a bias below 2^-32 * count. SplitMix64. */
static uint32_t random_below(r2p2_servers *servers, uint32_t count) {
    uint64_t mixed = servers->random_state += UINT64_C(0x9E3779B97F4A7C15);
    mixed = (mixed ^ (mixed >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    mixed = (mixed ^ (mixed >> 27)) * UINT64_C(0x94D049BB133111EB);
    return (uint32_t)(((mixed >> 32) * count) >> 32);
}

static int may_take(const r2p2_servers *servers, const r2p2_server *server, uint64_t now_ns) {
    if (server->is_down && (server->is_probed || now_ns < server->retry_ns)) return 0;
    return servers->config->choice != R2P2_ROUTER_JBSQ || server->outstanding < servers->config->bound;
}

static int choose_in_turn(r2p2_servers *servers, uint64_t now_ns) {
    for (uint32_t i = 0; i < servers->count; i++) {
        uint32_t index = (servers->next + i) % servers->count;
        if (!may_take(servers, &servers->list[index], now_ns)) continue;
        servers->next = (index + 1) % servers->count;
        return (int)index;
    }
    return R2P2_NO_SERVER;
}

/* Chance draws once for each server that is as good as the best. */
int r2p2_servers_choose(r2p2_servers *servers, uint64_t now_ns) {
    if (servers->config->choice == R2P2_ROUTER_ROUND_ROBIN) return choose_in_turn(servers, now_ns);
    int by_load = servers->config->choice != R2P2_ROUTER_RANDOM;
    int best = R2P2_NO_SERVER;
    uint32_t equals = 0;
    for (uint32_t i = 0; i < servers->count; i++) {
        const r2p2_server *server = &servers->list[i];
        if (!may_take(servers, server, now_ns)) continue;
        if (best != R2P2_NO_SERVER && by_load) {
            if (server->outstanding > servers->list[best].outstanding) continue;
            if (server->outstanding < servers->list[best].outstanding) equals = 0;
        }
        if (random_below(servers, ++equals) == 0) best = (int)i;
    }
    return best;
}

int r2p2_servers_any_is_up(const r2p2_servers *servers) {
    for (uint32_t i = 0; i < servers->count; i++)
        if (!servers->list[i].is_down) return 1;
    return 0;
}

void r2p2_servers_lead(r2p2_servers *servers, uint32_t index) {
    if (servers->leader == index) return;
    servers->leader = index;
    servers->counters->leader_changes++;
}

void r2p2_servers_lead_elsewhere(r2p2_servers *servers, uint32_t index) {
    if (servers->leader != index) return;
    uint32_t next = (index + 1) % servers->count;
    for (uint32_t i = 0; i < servers->count && servers->list[next].is_down; i++)
        next = (next + 1) % servers->count;
    r2p2_servers_lead(servers, next);
}

void r2p2_servers_answers(r2p2_servers *servers, uint32_t index) {
    r2p2_server *server = &servers->list[index];
    server->misses = 0;
    if (!server->is_down) return;
    server->is_down = 0;
    servers->counters->servers_back++;
}

void r2p2_servers_missed(r2p2_servers *servers, uint32_t index, int is_probe, uint64_t now_ns) {
    r2p2_server *server = &servers->list[index];
    if (server->is_down) {
        if (is_probe) server->retry_ns = now_ns + servers->config->down_ns;
        return;
    }
    if (++server->misses < servers->config->misses_max) return;
    server->is_down = 1;
    server->retry_ns = now_ns + servers->config->down_ns;
    servers->counters->servers_out++;
    r2p2_servers_lead_elsewhere(servers, index);
}

int r2p2_servers_find(const r2p2_servers *servers, uint32_t ip, uint16_t port, uint32_t likely) {
    const r2p2_server *server = &servers->list[likely];
    int by_ip = server->address.ip == ip ? (int)likely : R2P2_NO_SERVER;
    if (by_ip != R2P2_NO_SERVER && server->address.port == port) return by_ip;
    for (uint32_t i = 0; i < servers->count; i++) {
        if (servers->list[i].address.ip != ip) continue;
        if (servers->list[i].address.port == port) return (int)i;
        if (by_ip == R2P2_NO_SERVER) by_ip = (int)i;
    }
    return by_ip;
}

uint64_t r2p2_servers_retry_ns(const r2p2_servers *servers, uint64_t now_ns) {
    uint64_t first_ns = UINT64_MAX;
    for (uint32_t i = 0; i < servers->count; i++) {
        const r2p2_server *server = &servers->list[i];
        int is_to_come = server->is_down && !server->is_probed && server->retry_ns > now_ns;
        if (is_to_come && server->retry_ns < first_ns) first_ns = server->retry_ns;
    }
    return first_ns;
}
