/* Places. See kv_places.h. */
#include "kv_places.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* ---- BLAKE2b, 8 bytes, without a key ---- */

#define DIGEST_BYTES 8u
#define BLOCK_BYTES 128u
#define ROUNDS 12u

static const uint64_t IV[8] = {0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
                               0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179};

/* The order of a block's words in each round; from the eleventh on it begins again. */
static const uint8_t SIGMA[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0}};

static inline uint64_t rotated(uint64_t word, uint32_t bits) { return word >> bits | word << (64 - bits); }

static inline uint64_t load(const uint8_t *at) {
    uint64_t word = 0;
    for (uint32_t i = 0; i < 8; i++) word |= (uint64_t)at[i] << (8 * i);
    return word;
}

static inline void mix(uint64_t *v, uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint64_t x, uint64_t y) {
    v[a] += v[b] + x;
    v[d] = rotated(v[d] ^ v[a], 32);
    v[c] += v[d];
    v[b] = rotated(v[b] ^ v[c], 24);
    v[a] += v[b] + y;
    v[d] = rotated(v[d] ^ v[a], 16);
    v[c] += v[d];
    v[b] = rotated(v[b] ^ v[c], 63);
}

/* `before`: bytes up to the end of this block. */
static void compress(uint64_t *state, const uint8_t *block, uint64_t before, int is_last) {
    uint64_t v[16], m[16];
    for (uint32_t i = 0; i < 16; i++) m[i] = load(block + 8 * i);
    memcpy(v, state, 64);
    memcpy(v + 8, IV, 64);
    v[12] ^= before;
    if (is_last) v[14] = ~v[14];
    for (uint32_t round = 0; round < ROUNDS; round++) {
        const uint8_t *s = SIGMA[round % 10];
        mix(v, 0, 4, 8, 12, m[s[0]], m[s[1]]);
        mix(v, 1, 5, 9, 13, m[s[2]], m[s[3]]);
        mix(v, 2, 6, 10, 14, m[s[4]], m[s[5]]);
        mix(v, 3, 7, 11, 15, m[s[6]], m[s[7]]);
        mix(v, 0, 5, 10, 15, m[s[8]], m[s[9]]);
        mix(v, 1, 6, 11, 12, m[s[10]], m[s[11]]);
        mix(v, 2, 7, 8, 13, m[s[12]], m[s[13]]);
        mix(v, 3, 4, 9, 14, m[s[14]], m[s[15]]);
    }
    for (uint32_t i = 0; i < 8; i++) state[i] ^= v[i] ^ v[i + 8];
}

/* A key's place: the digest as a big-endian number; 1 for 0, which is where a scan begins. */
static uint64_t place_of(const uint8_t *key, size_t length) {
    uint64_t state[8];
    memcpy(state, IV, sizeof state);
    state[0] ^= 0x01010000 ^ DIGEST_BYTES;
    size_t at = 0;
    for (; length - at > BLOCK_BYTES; at += BLOCK_BYTES) compress(state, key + at, at + BLOCK_BYTES, 0);
    uint8_t block[BLOCK_BYTES] = {0};
    memcpy(block, key + at, length - at);
    compress(state, block, length, 1);
    uint64_t place = __builtin_bswap64(state[0]);
    return place ? place : 1;
}

/* ---- sorting ---- */

typedef struct kv_placed {
    uint64_t place;
    PyObject *key; /* the sequence holds it */
} kv_placed;

static int order_of(const void *left, const void *right) {
    const kv_placed *a = left, *b = right;
    if (a->place != b->place) return a->place < b->place ? -1 : 1;
    Py_ssize_t a_bytes = PyBytes_GET_SIZE(a->key), b_bytes = PyBytes_GET_SIZE(b->key);
    int differ = memcmp(PyBytes_AS_STRING(a->key), PyBytes_AS_STRING(b->key), (size_t)(a_bytes < b_bytes ? a_bytes : b_bytes));
    return differ ? differ : (a_bytes > b_bytes) - (a_bytes < b_bytes);
}

/* Fills `placed` from the keys, sorts it, and leaves each key once; how many, or -1. */
static Py_ssize_t sort_keys(PyObject *sequence, kv_placed *placed) {
    Py_ssize_t count = PySequence_Fast_GET_SIZE(sequence), kept = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *key = PySequence_Fast_GET_ITEM(sequence, i);
        if (!PyBytes_Check(key)) {
            PyErr_Format(PyExc_TypeError, "a key is a %s, not bytes", Py_TYPE(key)->tp_name);
            return -1;
        }
        placed[i] = (kv_placed){place_of((const uint8_t *)PyBytes_AS_STRING(key), (size_t)PyBytes_GET_SIZE(key)), key};
    }
    qsort(placed, (size_t)count, sizeof *placed, order_of);
    for (Py_ssize_t i = 0; i < count; i++)
        if (i == 0 || order_of(&placed[kept - 1], &placed[i])) placed[kept++] = placed[i];
    return kept;
}

static PyObject *sorted_keys(const kv_placed *placed, Py_ssize_t count) {
    PyObject *places = PyBytes_FromStringAndSize(NULL, count * 8), *keys = PyList_New(count);
    for (Py_ssize_t i = 0; places && keys && i < count; i++) {
        memcpy(PyBytes_AS_STRING(places) + 8 * i, &placed[i].place, 8);
        Py_INCREF(placed[i].key);
        PyList_SET_ITEM(keys, i, placed[i].key);
    }
    PyObject *both = places && keys ? PyTuple_Pack(2, places, keys) : NULL;
    Py_XDECREF(places);
    Py_XDECREF(keys);
    return both;
}

PyObject *kv_places(PyObject *module, PyObject *keys) {
    (void)module;
    PyObject *sequence = PySequence_Fast(keys, "keys can be gone through"), *both = NULL;
    if (!sequence) return NULL;
    kv_placed *placed = PyMem_Malloc((size_t)(PySequence_Fast_GET_SIZE(sequence) + 1) * sizeof *placed);
    if (!placed) PyErr_NoMemory();
    Py_ssize_t count = placed ? sort_keys(sequence, placed) : -1;
    if (count >= 0) both = sorted_keys(placed, count);
    PyMem_Free(placed);
    Py_DECREF(sequence);
    return both;
}
