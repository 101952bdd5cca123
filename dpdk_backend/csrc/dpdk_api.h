/*
 * What Python sees of the DPDK backend. Plain declarations only: cffi parses this file, and dpdk_module.h includes it.
 *
 * Functions that can fail return a negative errno value and leave a sentence in dpdk_error_text(), which names the call
 * and DPDK's own text. Addresses: IPv4 in host byte order; MACs are 6 bytes. One thread drives all devices of a process.
 */

/* ---- errors and the log (log.c) ---- */
const char *dpdk_error_text(void);
/* The end of DPDK's log as text: copies at most size - 1 bytes and a 0. Returns the bytes copied. */
uint64_t dpdk_log_tail(char *out, uint64_t size);

/* ---- the environment (eal.c) ---- */
#define DPDK_EAL_NOT_STARTED 0
#define DPDK_EAL_RUNNING 1
#define DPDK_EAL_FAILED 2
#define DPDK_EAL_STOPPED 3
const char *dpdk_version_text(void);
int32_t dpdk_eal_state(void);
/* echo_log != 0: DPDK's log goes to stderr too. */
int32_t dpdk_eal_start(int32_t argc, char **argv, int32_t echo_log);
int32_t dpdk_eal_stop(void);
int32_t dpdk_eal_has_hugepages(void);
/* The processor's time stamp counter, and its ticks a second (0 before the EAL runs). */
uint64_t dpdk_tsc(void);
uint64_t dpdk_tsc_hz(void);

/* ---- devices (device.c) ---- */
typedef struct dpdk_device_info {
    char driver[32];
    uint8_t mac[6];
    uint16_t port_id;
    uint16_t mtu;
    uint16_t queues_max; /* rx queues, and as many tx queues */
    uint32_t speed_mbps;
    int32_t is_link_up;
    int32_t is_full_duplex;
    uint64_t rx_offloads; /* what it can do: RTE_ETH_RX_OFFLOAD_* */
    uint64_t tx_offloads;
} dpdk_device_info;

typedef struct dpdk_device_stats {
    uint64_t rx_packets;
    uint64_t rx_bytes;
    uint64_t tx_packets;
    uint64_t tx_bytes;
    uint64_t rx_missed;
    uint64_t rx_errors;
    uint64_t rx_no_mbuf;
    uint64_t tx_errors;
} dpdk_device_stats;

typedef struct dpdk_xstat {
    char name[64];
    uint64_t value;
} dpdk_xstat;

int32_t dpdk_vdev_add(const char *name, const char *args);
int32_t dpdk_vdev_remove(const char *name);
/* The DPDK port id of a device by name, or -ENODEV. */
int32_t dpdk_device_find(const char *name);
int32_t dpdk_devices_count(void);
/* The name of the n-th device that exists; 64 bytes at least. */
int32_t dpdk_device_name(uint32_t position, char *name);
int32_t dpdk_device_info_get(uint16_t port_id, dpdk_device_info *info);
/* DPDK's name of an offload bit, like UDP_CKSUM; "UNKNOWN" where there is none. */
const char *dpdk_rx_offload_name(uint64_t offload);
const char *dpdk_tx_offload_name(uint64_t offload);
int32_t dpdk_device_set_mtu(uint16_t port_id, uint16_t mtu);
int32_t dpdk_device_set_promiscuous(uint16_t port_id, int32_t is_promiscuous);
int32_t dpdk_device_set_link(uint16_t port_id, int32_t is_up);
int32_t dpdk_device_stats_get(uint16_t port_id, dpdk_device_stats *stats);
/* Up to max extended statistics; returns how many there are. */
int32_t dpdk_device_xstats(uint16_t port_id, dpdk_xstat *xstats, uint32_t max);

/* ---- the stack: one local IP over several devices, a struct r2p2_port (port.c) ---- */
#define DPDK_STACK_DEVICES_MAX 8
#define DPDK_ROUTES_MAX 64
#define DPDK_NEIGHBOURS_STATIC_MAX 1024
#define DPDK_NEIGHBOURS_LEARNED_MAX 1024
#define DPDK_NEIGHBOURS_KEPT_MAX 64

typedef struct dpdk_stack dpdk_stack;

typedef struct dpdk_stack_config {
    uint64_t neighbour_random[2]; /* which learned neighbours share a set: drawn, so that nobody outside can tell */
    uint64_t neighbour_ttl_ns; /* a learned neighbour not heard of for so long is asked for again */
    uint32_t local_ip;
    uint16_t local_port;      /* the first UDP port: what tx packets with local_port 0 leave from */
    uint16_t local_ports_count; /* UDP ports local_port, local_port + 1... that are open */
    uint16_t mbuf_data_bytes; /* room of one mbuf, headroom included */
    uint32_t mbufs_count;     /* of the pool */
    uint32_t tx_retry_max;    /* further tx bursts for what a device did not take at once */
    int32_t udp_checksum;     /* 0: UDP checksums are not written */
    int32_t use_offloads;     /* 0: checksums in software even where the device could */
} dpdk_stack_config;

typedef struct dpdk_stack_device_config {
    uint8_t mac[6];
    uint16_t rx_ring_count;
    uint16_t tx_ring_count;
    uint16_t is_memif;      /* its control channel is fenced off from bursts (gate.h) */
    uint16_t is_reconnecting; /* a memif client: it calls its server again and again while the link is down */
    uint16_t rx_room_count; /* packets that wait in it to be received; 0: its rx descriptors */
} dpdk_stack_device_config;

typedef struct dpdk_device_state {
    uint64_t link_changes_count;
    uint64_t rx_idle_polls_count; /* receive calls in a row that found nothing */
    uint64_t rx_no_mbuf_count;
    int32_t is_started;
    int32_t is_link_up;
} dpdk_device_state;

/* NULL on failure. name: unique in the process, at most 20 characters. */
dpdk_stack *dpdk_stack_new(const char *name, const dpdk_stack_config *config);
/* Takes the device over: configures and starts it. Returns its position (0..) in the stack. */
int32_t dpdk_stack_add_device(dpdk_stack *stack, uint16_t port_id, const dpdk_stack_device_config *config);
/* Which device leads to ip/prefix_bits; the longest prefix wins. */
int32_t dpdk_stack_add_route(dpdk_stack *stack, uint32_t ip, uint32_t prefix_bits, uint32_t device);
/* A static neighbour: never learned over, never expires. */
int32_t dpdk_stack_add_neighbour(dpdk_stack *stack, uint32_t ip, const uint8_t *mac);
/* 1 and the MAC when the address is known, static or learned; 0 when it is not. */
int32_t dpdk_stack_find_neighbour(dpdk_stack *stack, uint32_t ip, uint8_t *mac);
/* The struct r2p2_port, for the engine. */
uintptr_t dpdk_stack_port(dpdk_stack *stack);
int32_t dpdk_stack_device_state(dpdk_stack *stack, uint32_t device, dpdk_device_state *state);
/* mbufs neither free in the pool nor kept ready for tx_reserve. */
int64_t dpdk_stack_pool_in_use(dpdk_stack *stack);
/* Waits for link changes and reconnects without receiving: what rx_burst does by itself from time to time. */
void dpdk_stack_control(dpdk_stack *stack);
/* From the first call on the stack's clock is now_ns, which never goes back, and rx_burst hands over only frames allowed
 * here: frames_count more of them, in as many bursts as it takes. For a port with one device (replay.c). */
int32_t dpdk_stack_replay(dpdk_stack *stack, uint64_t now_ns, uint32_t frames_count);
/* Frames that were allowed and not taken yet. */
uint32_t dpdk_stack_replay_left(dpdk_stack *stack);
/* Stops and closes the devices, frees everything. Returns the mbufs that did not come back: 0 unless there is a bug
 * (and with an AF_XDP device, which keeps its buffers, always 0). */
int64_t dpdk_stack_free(dpdk_stack *stack);

/* The port's counters, in order; names are static. */
uint32_t dpdk_counters_count(void);
const char *dpdk_counter_name(uint32_t index);
const char *dpdk_counter_help(uint32_t index);
void dpdk_counters_read(dpdk_stack *stack, uint64_t *values);

/* ---- buffers for devices without a stack (pool.c) ---- */
typedef struct dpdk_pool dpdk_pool;

/* NULL on failure. name: unique in the process, at most 20 characters. */
dpdk_pool *dpdk_pool_new(const char *name, uint32_t mbufs_count, uint16_t mbuf_data_bytes);
int64_t dpdk_pool_in_use(const dpdk_pool *pool);
/* The mbufs that did not come back; where there are any, DPDK's pool stays. Every device that uses it is closed before. */
int64_t dpdk_pool_free(dpdk_pool *pool);

/* ---- a device without a stack: frames as bursts (ethdev.c) ---- */
#define DPDK_BURST_MAX 64

typedef struct dpdk_ethdev dpdk_ethdev;

typedef struct dpdk_ethdev_config {
    uint64_t rx_offloads; /* RTE_ETH_RX_OFFLOAD_*; what the device has not is an error */
    uint64_t tx_offloads;
    uint32_t mbufs_count; /* these two: of the pool it gets when none is given */
    uint16_t mbuf_data_bytes;
    uint16_t queues_count; /* rx queues, and as many tx queues */
    uint16_t rx_ring_count;
    uint16_t tx_ring_count;
    uint16_t mtu; /* 0: the device's own */
    uint16_t is_memif;
    uint16_t is_reconnecting;
    uint16_t is_promiscuous;
} dpdk_ethdev_config;

/* Frames on their way: who has the burst has its mbufs. Empty after a call that sends or frees them. */
typedef struct dpdk_burst {
    void *mbufs[DPDK_BURST_MAX];
    uint32_t count;
    uint32_t reserved;
} dpdk_burst;

/* Takes the device over; pool NULL: it gets one of its own. NULL on failure. */
dpdk_ethdev *dpdk_ethdev_open(const char *pool_name, dpdk_pool *pool, uint16_t port_id, const dpdk_ethdev_config *config);
/* The mbufs of its own pool that did not come back. Every burst with frames from it must be empty before. */
int64_t dpdk_ethdev_close(dpdk_ethdev *ethdev);
/* Nothing comes or goes until it is started again; its settings stay. */
int32_t dpdk_ethdev_stop(dpdk_ethdev *ethdev);
int32_t dpdk_ethdev_start(dpdk_ethdev *ethdev);
int32_t dpdk_ethdev_set_mac(dpdk_ethdev *ethdev, const uint8_t *mac);
int32_t dpdk_ethdev_is_link_up(const dpdk_ethdev *ethdev);
int64_t dpdk_ethdev_pool_in_use(const dpdk_ethdev *ethdev);
/* Lets links change; dpdk_ethdev_receive does so by itself from time to time. */
void dpdk_ethdev_control(dpdk_ethdev *ethdev);

/* Appends at most max frames received on a queue to the burst; returns their number. */
uint32_t dpdk_ethdev_receive(dpdk_ethdev *ethdev, uint16_t queue, dpdk_burst *burst, uint32_t max);
/* Sends the burst and empties it; what the device does not take after retry_max retries is freed. Returns the frames taken. */
uint32_t dpdk_ethdev_send(dpdk_ethdev *ethdev, uint16_t queue, dpdk_burst *burst, uint32_t retry_max);

/* ---- what is in a burst (burst.c) ---- */
void dpdk_burst_free(dpdk_burst *burst);
/* Source and target MAC of every frame change places. */
void dpdk_burst_swap_macs(dpdk_burst *burst);
/* Turns ARP requests and ICMP echo requests, for any address, into their replies; other frames are freed. */
void dpdk_burst_answer_pings(dpdk_ethdev *ethdev, dpdk_burst *burst);
/* Copies the frames out, end to end. Returns how many fitted into the slab. */
uint32_t dpdk_burst_read(const dpdk_burst *burst, uint8_t *slab, uint64_t slab_bytes, uint32_t *lengths);
/* Makes frames from the slab, appended to the burst; long ones are chained. Returns how many found buffers. */
uint32_t dpdk_burst_write(dpdk_ethdev *ethdev, dpdk_burst *burst, const uint8_t *slab, const uint32_t *lengths, uint32_t count);
/* Appends count copies of one frame. Returns how many found buffers. */
uint32_t dpdk_burst_repeat(dpdk_ethdev *ethdev, dpdk_burst *burst, const uint8_t *frame, uint32_t length, uint32_t count);

/* ---- driving any struct r2p2_port by hand: tests, benchmarks (harness.c) ---- */
typedef struct dpdk_datagram {
    uint32_t offset; /* of the payload in the slab */
    uint32_t length;
    uint32_t ip;     /* the source of what was received, the target of what is sent */
    uint16_t port;
    uint16_t local_port;
} dpdk_datagram;

/* Receives at most max datagrams into the slab. Returns how many, or -ENOSPC when the next does not fit (it is lost). */
int32_t dpdk_port_receive(uintptr_t port, uint8_t *slab, uint64_t slab_bytes, dpdk_datagram *datagrams, uint32_t max);
/* Sends datagrams; returns how many found a buffer. */
int32_t dpdk_port_send(uintptr_t port, const uint8_t *slab, const dpdk_datagram *datagrams, uint32_t count);
/* The first datagram's payload to every one's target, by tx_broadcast. */
int32_t dpdk_port_broadcast(uintptr_t port, const uint8_t *slab, const dpdk_datagram *datagrams, uint32_t count);
/* Sends back what comes, for duration_ns or (idle_polls_max != 0) until so many polls in a row were empty. Returns the datagrams. */
uint64_t dpdk_port_echo(uintptr_t port, uint64_t duration_ns, uint64_t idle_polls_max);

typedef struct dpdk_generator_result {
    uint64_t sent_count;
    uint64_t received_count;
    uint64_t duration_ns;
    uint64_t cpu_ns; /* of the calling thread */
} dpdk_generator_result;

/* Keeps `outstanding` datagrams of payload_bytes in flight to ip:port for duration_ns; lost ones are replaced. */
void dpdk_port_generate(uintptr_t port, uint32_t ip, uint16_t udp_port, uint32_t payload_bytes, uint32_t outstanding,
                        uint64_t duration_ns, dpdk_generator_result *result);
