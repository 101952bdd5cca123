/*
 * The null responder: answers requests of one packet straight from the port, with no engine, no application and no state, so that what is
 * measured is the load generator. Plain declarations: cffi parses this file.
 *
 * A RESP SET (three words) gets +OK, a GET (two words) "no such key", anything else itself; a session's opening gets an id, and every
 * answer its extension back. It remembers nothing: it is for measuring a generator, and for nothing else.
 */
typedef struct r2p2_null_counts {
    uint64_t answered, ignored; /* ignored: whatever is not a request of one packet */
    uint64_t bursts;            /* receive calls that brought something */
} r2p2_null_counts;
/* Answers for a while (blocks; without the GIL); adds to *counts. `port` is a struct r2p2_port. An idle poll yields the core, or sleeps in
 * poll(2) where the port has a descriptor. */
int32_t r2p2_null_run(uintptr_t port, uint64_t duration_ns, r2p2_null_counts *counts);
