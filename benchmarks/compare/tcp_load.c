/*
 * A closed loop of fixed requests over TCP, for servers whose answers all have the same length: Redis, memcached, an echo.
 *
 * Usage: tcp_load IP PORT CONNECTIONS DEPTH REPLY_BYTES WARMUP_S MEASURE_S FIRST_BYTES REQUEST_FILE
 *
 * Each of CONNECTIONS keeps DEPTH requests waiting; an answer is REPLY_BYTES long and must begin with FIRST_BYTES (else it counts as
 * failed). Requests lie one after another in REQUEST_FILE, after their count in a line of its own; all have one length, and they are
 * sent in turn, so that keys vary. Prints "measuring" after the warm-up and one JSON object at the end of the measured time.
 * One thread; one read and one write for whatever is there, as a pipelining client does it. Latency is counted from the write.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS_MAX = 256, READ_BYTES = 1 << 18, DEPTH_MAX = 65536, CONNECTIONS_MAX = 16384, STEPS = 64, BUCKETS = 64 * STEPS };

typedef struct connection {
    int fd;
    uint32_t begun;      /* index of the oldest waiting request in sent_ns, modulo depth */
    uint32_t waiting;    /* requests sent and not answered */
    uint32_t part_bytes; /* of the answer that has come in part */
    uint64_t *sent_ns;   /* when each waiting request was written: a ring of depth */
    char *unsent;        /* what the socket did not take */
    size_t unsent_bytes;
    char head[16]; /* the first bytes of the answer that has come in part */
} connection;

static char *requests;
static uint32_t requests_count, request_bytes, next_request, depth, reply_bytes;
static const char *first;
static size_t first_bytes;
static uint64_t answered, failed, histogram[BUCKETS];
static int epoll_fd;

static void stop(const char *what) {
    fprintf(stderr, "tcp_load: %s: %s\n", what, errno ? strerror(errno) : "unexpected");
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Buckets of 1/64 relative width: the position of the highest bit, and the six bits below it. */
static uint32_t bucket_of(uint64_t ns) {
    if (ns < STEPS) return (uint32_t)ns;
    uint32_t shift = 63 - (uint32_t)__builtin_clzll(ns) - 6;
    return (shift + 1) * STEPS + (uint32_t)((ns >> shift) - STEPS);
}

static double edge_us(uint32_t bucket) {
    if (bucket < STEPS) return bucket / 1e3;
    uint32_t shift = bucket / STEPS - 1;
    return (double)(((uint64_t)(bucket % STEPS) + STEPS + 1) << shift) / 1e3;
}

static double percentile_us(double fraction) {
    uint64_t total = answered + failed, below = 0;
    for (uint32_t i = 0; i < BUCKETS; i++) {
        below += histogram[i];
        if (below > (uint64_t)(fraction * (double)total)) return edge_us(i);
    }
    return 0;
}

static void watch(connection *c, int writes) {
    struct epoll_event event = {.events = EPOLLIN | (writes ? EPOLLOUT : 0u), .data.ptr = c};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event)) stop("epoll_ctl");
}

static void write_rest(connection *c) {
    ssize_t done = write(c->fd, c->unsent, c->unsent_bytes);
    if (done < 0 && errno != EAGAIN) stop("write");
    if (done < 0) done = 0;
    c->unsent_bytes -= (size_t)done;
    if (c->unsent_bytes) memmove(c->unsent, c->unsent + done, c->unsent_bytes);
    watch(c, c->unsent_bytes > 0);
}

/* Sends as many requests as answers have come; the request that follows the last of the file is the first. */
static void refill(connection *c) {
    uint64_t now = now_ns();
    int blocked = c->unsent_bytes > 0;
    while (c->waiting < depth) {
        uint32_t count = depth - c->waiting;
        if (count > requests_count - next_request) count = requests_count - next_request;
        const char *from = requests + (size_t)next_request * request_bytes;
        size_t bytes = (size_t)count * request_bytes, done = 0;
        if (!blocked) {
            ssize_t written = write(c->fd, from, bytes);
            if (written < 0 && errno != EAGAIN) stop("write");
            done = written < 0 ? 0 : (size_t)written;
        }
        if (done < bytes) {
            memcpy(c->unsent + c->unsent_bytes, from + done, bytes - done);
            c->unsent_bytes += bytes - done;
            if (!blocked) watch(c, 1);
            blocked = 1;
        }
        for (uint32_t i = 0; i < count; i++) c->sent_ns[(c->begun + c->waiting + i) % depth] = now;
        c->waiting += count;
        next_request = (next_request + count) % requests_count;
    }
}

static void take(connection *c, const char *bytes, size_t count, uint64_t now) {
    while (count) {
        if (!c->waiting) stop("an answer too many");
        size_t part = reply_bytes - c->part_bytes;
        if (part > count) part = count;
        for (size_t i = 0; i < part && c->part_bytes + i < first_bytes; i++) c->head[c->part_bytes + i] = bytes[i];
        c->part_bytes += (uint32_t)part;
        bytes += part;
        count -= part;
        if (c->part_bytes < reply_bytes) return;
        c->part_bytes = 0;
        if (memcmp(c->head, first, first_bytes)) failed++;
        else answered++;
        histogram[bucket_of(now - c->sent_ns[c->begun])]++;
        c->begun = (c->begun + 1) % depth;
        c->waiting--;
    }
}

static void run(uint64_t until_ns) {
    static char buffer[READ_BYTES];
    struct epoll_event events[EVENTS_MAX];
    while (now_ns() < until_ns) {
        int count = epoll_wait(epoll_fd, events, EVENTS_MAX, 100);
        if (count < 0 && errno != EINTR) stop("epoll_wait");
        for (int i = 0; i < count; i++) {
            connection *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) write_rest(c);
            if (!(events[i].events & ~(uint32_t)EPOLLOUT)) continue;
            ssize_t got = read(c->fd, buffer, sizeof buffer);
            if (got < 0 && errno == EAGAIN) continue;
            if (got <= 0) stop("read");
            take(c, buffer, (size_t)got, now_ns());
            refill(c);
        }
    }
}

static void read_requests(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file || fscanf(file, "%u", &requests_count) != 1 || fgetc(file) != '\n' || !requests_count) stop(path);
    long begin = ftell(file);
    if (fseek(file, 0, SEEK_END)) stop(path);
    size_t bytes = (size_t)(ftell(file) - begin);
    request_bytes = (uint32_t)(bytes / requests_count);
    requests = malloc(bytes);
    if (!requests || fseek(file, begin, SEEK_SET) || fread(requests, 1, bytes, file) != bytes) stop(path);
    fclose(file);
}

static void open_one(connection *c, const struct sockaddr_in *address) {
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (const struct sockaddr *)address, sizeof *address)) stop("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (fcntl(c->fd, F_SETFL, O_NONBLOCK)) stop("fcntl");
    c->sent_ns = calloc(depth, sizeof *c->sent_ns);
    c->unsent = malloc((size_t)depth * request_bytes);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (!c->sent_ns || !c->unsent || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event)) stop("a connection");
}

int main(int argc, char **argv) {
    if (argc != 10) {
        fprintf(stderr, "usage: tcp_load IP PORT CONNECTIONS DEPTH REPLY_BYTES WARMUP_S MEASURE_S FIRST_BYTES REQUEST_FILE\n");
        return 2;
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
    uint32_t count = (uint32_t)atoi(argv[3]);
    depth = (uint32_t)atoi(argv[4]);
    reply_bytes = (uint32_t)atoi(argv[5]);
    double warmup_s = atof(argv[6]), measure_s = atof(argv[7]);
    first = argv[8];
    first_bytes = strlen(first);
    if (!inet_aton(argv[1], &address.sin_addr) || !count || count > CONNECTIONS_MAX || !depth || depth > DEPTH_MAX || !reply_bytes ||
        first_bytes > sizeof((connection *)0)->head || first_bytes > reply_bytes)
        stop("the arguments");
    read_requests(argv[9]);
    epoll_fd = epoll_create1(0);
    connection *connections = calloc(count, sizeof *connections);
    if (epoll_fd < 0 || !connections) stop("epoll_create1");
    for (uint32_t i = 0; i < count; i++) open_one(&connections[i], &address);
    for (uint32_t i = 0; i < count; i++) refill(&connections[i]);
    run(now_ns() + (uint64_t)(warmup_s * 1e9));
    answered = failed = 0;
    memset(histogram, 0, sizeof histogram);
    printf("measuring\n");
    fflush(stdout);
    uint64_t begun_ns = now_ns();
    clock_t cpu_begun = clock();
    run(begun_ns + (uint64_t)(measure_s * 1e9));
    double seconds = (double)(now_ns() - begun_ns) / 1e9, cpu_seconds = (double)(clock() - cpu_begun) / CLOCKS_PER_SEC;
    printf("{\"answered\": %llu, \"failed\": %llu, \"seconds\": %.6f, \"cpu_seconds\": %.6f, ", (unsigned long long)answered,
           (unsigned long long)failed, seconds, cpu_seconds);
    printf("\"p50_us\": %.3f, \"p99_us\": %.3f}\n", percentile_us(0.5), percentile_us(0.99));
    fflush(stdout);
    return 0;
}
