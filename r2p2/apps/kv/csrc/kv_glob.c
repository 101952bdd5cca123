/*
 * Patterns. See kv_glob.h.
 *
 * A pattern is parted at its stars. The first piece must stand at the beginning of the key, the last at its end, the others between them
 * in order, each where it fits first: anywhere later would be no better. A piece is so many sets of bytes, one for each byte of the key
 * that it covers. To find where one fits, Shift-And goes through the key with a bit for each set (Baeza-Yates and Gonnet, 1992): after a
 * byte, bit i is set where the piece's first i + 1 sets fit what ends there. A piece of few sets is tried at each place, one of plain
 * bytes is looked for with memmem.
 */
#include "kv_glob.h"

#include <stdint.h>
#include <string.h>

#include "r2p2_limits.h"

#define SETS_MAX R2P2_KV_PATTERN_BYTES_MAX
#define WORDS_MAX (SETS_MAX / 64)
#define FEW_SETS 8u

typedef struct kv_set {
    uint64_t bits[4]; /* bit b: byte b is in it */
} kv_set;

typedef struct kv_piece {
    uint32_t first, count; /* of the pattern's sets */
    uint8_t is_plain;      /* each set is one byte: `plain` has them */
    uint64_t *masks;       /* for each byte, the sets that hold it, as bits of `words` words; NULL: not made */
} kv_piece;

typedef struct kv_glob {
    kv_set sets[SETS_MAX];
    uint8_t plain[SETS_MAX];
    kv_piece pieces[SETS_MAX + 1];
    uint32_t sets_count, pieces_count;
    uint8_t takes_empty;
} kv_glob;

static inline int holds(const kv_set *set, uint8_t byte) { return (int)(set->bits[byte >> 6] >> (byte & 63) & 1); }

/* ---- reading a pattern ---- */

static void add_range(kv_set *set, uint8_t low, uint8_t high) {
    for (uint32_t byte = low; byte <= high; byte++) set->bits[byte >> 6] |= (uint64_t)1 << (byte & 63);
}

/* A class that begins behind `[`; returns where the pattern goes on. An open one runs to the end. */
static size_t read_class(const uint8_t *pattern, size_t length, size_t at, kv_set *set) {
    int is_inverted = at < length && pattern[at] == '^';
    at += (size_t)is_inverted;
    while (at < length && pattern[at] != ']') {
        if (pattern[at] == '\\' && at + 1 < length) {
            add_range(set, pattern[at + 1], pattern[at + 1]);
            at += 2;
        } else if (at + 2 < length && pattern[at + 1] == '-') {
            uint8_t one = pattern[at], other = pattern[at + 2];
            add_range(set, one < other ? one : other, one < other ? other : one);
            at += 3;
        } else {
            add_range(set, pattern[at], pattern[at]);
            at++;
        }
    }
    if (is_inverted)
        for (uint32_t i = 0; i < 4; i++) set->bits[i] = ~set->bits[i];
    return at + 1;
}

/* length <= SETS_MAX. */
static void read_pattern(kv_glob *glob, const uint8_t *pattern, size_t length) {
    kv_piece *piece = glob->pieces;
    *piece = (kv_piece){.is_plain = 1};
    glob->takes_empty = length == 0 || (length == 1 && pattern[0] == '*'); /* Redis has no other pattern match the empty key */
    for (size_t at = 0; at < length;) {
        uint8_t byte = pattern[at++];
        if (byte == '*') {
            if (piece == glob->pieces || piece->count > 0) *++piece = (kv_piece){.first = glob->sets_count, .is_plain = 1};
            continue;
        }
        kv_set *set = &glob->sets[glob->sets_count];
        if (byte == '?') {
            add_range(set, 0, 255);
            piece->is_plain = 0;
        } else if (byte == '[') {
            at = read_class(pattern, length, at, set);
            piece->is_plain = 0;
        } else {
            if (byte == '\\' && at < length) byte = pattern[at++];
            add_range(set, byte, byte);
            glob->plain[glob->sets_count] = byte;
        }
        glob->sets_count++;
        piece->count++;
    }
    glob->pieces_count = (uint32_t)(piece - glob->pieces) + 1;
}

/* The masks of the pieces that need them. 0: no memory. */
static int make_masks(kv_glob *glob) {
    for (uint32_t i = 1; i + 1 < glob->pieces_count; i++) {
        kv_piece *piece = &glob->pieces[i];
        if (piece->is_plain || piece->count <= FEW_SETS) continue;
        uint32_t words = (piece->count + 63) / 64;
        piece->masks = PyMem_Calloc((size_t)256 * words, sizeof *piece->masks);
        if (!piece->masks) return 0;
        for (uint32_t set = 0; set < piece->count; set++)
            for (uint32_t byte = 0; byte < 256; byte++)
                if (holds(&glob->sets[piece->first + set], (uint8_t)byte))
                    piece->masks[byte * words + set / 64] |= (uint64_t)1 << (set & 63);
    }
    return 1;
}

static void free_masks(kv_glob *glob) {
    for (uint32_t i = 0; i < glob->pieces_count; i++) PyMem_Free(glob->pieces[i].masks);
}

/* ---- matching a key ---- */

static int fits(const kv_glob *glob, const kv_piece *piece, const uint8_t *at) {
    if (piece->is_plain) return piece->count == 0 || memcmp(at, glob->plain + piece->first, piece->count) == 0;
    for (uint32_t i = 0; i < piece->count; i++)
        if (!holds(&glob->sets[piece->first + i], at[i])) return 0;
    return 1;
}

static const uint8_t *shift_and(const kv_piece *piece, const uint8_t *at, const uint8_t *end) {
    uint64_t state[WORDS_MAX] = {0};
    uint32_t words = (piece->count + 63) / 64, last = piece->count - 1;
    for (; at < end; at++) {
        const uint64_t *mask = piece->masks + (size_t)*at * words;
        uint64_t carry = 1;
        for (uint32_t i = 0; i < words; i++) {
            uint64_t next = state[i] >> 63;
            state[i] = (state[i] << 1 | carry) & mask[i];
            carry = next;
        }
        if (state[last / 64] >> (last & 63) & 1) return at + 1;
    }
    return NULL;
}

/* Where the piece ends where it fits first; NULL: nowhere. */
static const uint8_t *find(const kv_glob *glob, const kv_piece *piece, const uint8_t *at, const uint8_t *end) {
    if ((size_t)(end - at) < piece->count) return NULL;
    if (piece->masks) return shift_and(piece, at, end);
    if (piece->is_plain) {
        at = memmem(at, (size_t)(end - at), glob->plain + piece->first, piece->count);
        return at ? at + piece->count : NULL;
    }
    for (; at + piece->count <= end; at++)
        if (fits(glob, piece, at)) return at + piece->count;
    return NULL;
}

static int matches(const kv_glob *glob, const uint8_t *key, size_t length) {
    const kv_piece *first = glob->pieces, *last = &glob->pieces[glob->pieces_count - 1];
    if (length == 0) return glob->takes_empty;
    if (first == last) return length == first->count && fits(glob, first, key);
    if (length < (size_t)first->count + last->count || !fits(glob, first, key)) return 0;
    const uint8_t *at = key + first->count, *end = key + length - last->count;
    if (!fits(glob, last, end)) return 0;
    for (const kv_piece *piece = first + 1; piece < last; piece++) {
        at = find(glob, piece, at, end);
        if (!at) return 0;
    }
    return 1;
}

/* ---- as Python has it ---- */

static int collect(const kv_glob *glob, PyObject *keys, PyObject *found) {
    for (PyObject *key; (key = PyIter_Next(keys));) {
        int status = 0;
        if (!PyBytes_Check(key)) {
            PyErr_Format(PyExc_TypeError, "a key is a %s, not bytes", Py_TYPE(key)->tp_name);
            status = -1;
        } else if (matches(glob, (const uint8_t *)PyBytes_AS_STRING(key), (size_t)PyBytes_GET_SIZE(key))) {
            status = PyList_Append(found, key);
        }
        Py_DECREF(key);
        if (status) return -1;
    }
    return PyErr_Occurred() ? -1 : 0;
}

PyObject *kv_matching(PyObject *module, PyObject *args) {
    (void)module;
    const char *pattern;
    Py_ssize_t length;
    PyObject *keys;
    if (!PyArg_ParseTuple(args, "y#O:matching", &pattern, &length, &keys)) return NULL;
    if (length > (Py_ssize_t)SETS_MAX)
        return PyErr_Format(PyExc_ValueError, "a pattern of %zd bytes; at most %u", length, (unsigned)SETS_MAX);
    PyObject *each = PyObject_GetIter(keys), *found = PyList_New(0);
    kv_glob *glob = PyMem_Calloc(1, sizeof *glob);
    int status = -1;
    if (!glob) PyErr_NoMemory();
    if (each && found && glob) {
        read_pattern(glob, (const uint8_t *)pattern, (size_t)length);
        if (make_masks(glob)) status = collect(glob, each, found);
        else PyErr_NoMemory();
        free_masks(glob);
    }
    PyMem_Free(glob);
    Py_XDECREF(each);
    if (status) Py_CLEAR(found);
    return found;
}
