/*
 * r2p2.apps.kv._plain: the plain SETs and GETs at the front of a batch, executed on the table in one call. Beside it, patterns (kv_glob.c),
 * the order of SCAN (kv_places.c), and the commands of a gateway's clients (kv_commands.c).
 *
 * Why C, and why Python's own interface: these two commands are nearly all that a store is asked, and what they cost is making the bytes
 * objects that the dict keeps, which cffi cannot do (docs/adr/0016). Nothing is decided here: the first request that is anything else, or
 * not exactly framed, ends the run, and Python goes on from there. The caller sees to it that a plain assignment is all that a SET does:
 * no deadlines, watches or scans in the store.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

#include "kv_commands.h"
#include "kv_glob.h"
#include "kv_places.h"
#include "r2p2_resp.h"

enum verb { VERB_OTHER, VERB_SET, VERB_GET };

/* A command's words behind its name, within the request. */
typedef struct kv_words {
    enum verb verb;
    const char *key, *value;
    Py_ssize_t key_bytes, value_bytes;
} kv_words;

/* Keys and values in one dict or, while a snapshot is made, in two (docs/adr/0024). */
typedef struct kv_table {
    PyObject *top;   /* keys are set here; None: a key of `under` that is removed */
    PyObject *under; /* what `top` does not say, or NULL */
} kv_table;

/* Replies laid end to end. */
typedef struct kv_replies {
    char *data;
    size_t length, capacity;
} kv_replies;

#define HEAD_BYTES 13u /* "*3\r\n$3\r\nSET\r\n" */

/* What a request is. Names in capitals or in small letters, as clients write them; any other spelling is Python's to read. */
static inline kv_words words_of(const uint8_t *data, size_t length) {
    kv_words words = {.verb = VERB_OTHER};
    if (length < HEAD_BYTES) return words;
    enum verb verb = VERB_OTHER;
    if (memcmp(data, "*3\r\n$3\r\nSET\r\n", HEAD_BYTES) == 0 || memcmp(data, "*3\r\n$3\r\nset\r\n", HEAD_BYTES) == 0)
        verb = VERB_SET;
    else if (memcmp(data, "*2\r\n$3\r\nGET\r\n", HEAD_BYTES) == 0 || memcmp(data, "*2\r\n$3\r\nget\r\n", HEAD_BYTES) == 0)
        verb = VERB_GET;
    else
        return words;
    size_t at = HEAD_BYTES;
    if (!kv_bulk(data, length, &at, &words.key, &words.key_bytes)) return words;
    if (verb == VERB_SET && !kv_bulk(data, length, &at, &words.value, &words.value_bytes)) return words;
    if (at == length) words.verb = verb;
    return words;
}

/* Room for `more` bytes; NULL, with MemoryError set: none. */
static inline char *room(kv_replies *replies, size_t more) {
    if (replies->length + more > replies->capacity) {
        size_t capacity = replies->capacity;
        while (capacity < replies->length + more) capacity *= 2;
        char *data = PyMem_Realloc(replies->data, capacity);
        if (!data) {
            PyErr_NoMemory();
            return NULL;
        }
        replies->data = data;
        replies->capacity = capacity;
    }
    return replies->data + replies->length;
}

static inline int say(kv_replies *replies, const char *text, size_t bytes) {
    char *out = room(replies, bytes);
    if (!out) return -1;
    memcpy(out, text, bytes);
    replies->length += bytes;
    return 0;
}

static int set(PyObject *data, const kv_words *words, kv_replies *replies) {
    PyObject *key = PyBytes_FromStringAndSize(words->key, words->key_bytes);
    PyObject *value = key ? PyBytes_FromStringAndSize(words->value, words->value_bytes) : NULL;
    int status = value ? PyDict_SetItem(data, key, value) : -1;
    Py_XDECREF(value);
    Py_XDECREF(key);
    return status ? -1 : say(replies, "+OK\r\n", 5);
}

static int get(const kv_table *table, const kv_words *words, kv_replies *replies) {
    PyObject *key = PyBytes_FromStringAndSize(words->key, words->key_bytes);
    if (!key) return -1;
    PyObject *value = PyDict_GetItemWithError(table->top, key);
    if (!value && table->under && !PyErr_Occurred()) value = PyDict_GetItemWithError(table->under, key);
    Py_DECREF(key);
    if (!value && PyErr_Occurred()) return -1;
    if (!value || value == Py_None) return say(replies, "$-1\r\n", 5);
    char *text;
    Py_ssize_t bytes;
    if (PyBytes_AsStringAndSize(value, &text, &bytes)) return -1;
    char *out = room(replies, (size_t)bytes + 32);
    if (!out) return -1;
    int head = PyOS_snprintf(out, 28, "$%zd\r\n", bytes);
    memcpy(out + head, text, (size_t)bytes);
    memcpy(out + head + bytes, "\r\n", 2);
    replies->length += (size_t)head + (size_t)bytes + 2;
    return 0;
}

/* The commands at the front of the batch; how many, or -1 with an exception set. */
static Py_ssize_t run_all(const kv_table *table, const Py_buffer *slab, const Py_buffer *lengths, int writes, kv_replies *replies,
                          uint32_t *reply_lengths) {
    const uint8_t *at = slab->buf;
    const uint32_t *request_bytes = lengths->buf;
    size_t left = (size_t)slab->len;
    Py_ssize_t count = lengths->len / (Py_ssize_t)sizeof(uint32_t), done = 0;
    for (; done < count; done++) {
        if (request_bytes[done] > left) {
            PyErr_SetString(PyExc_ValueError, "the lengths reach beyond the slab");
            return -1;
        }
        kv_words words = words_of(at, request_bytes[done]);
        size_t before = replies->length;
        if (words.verb == VERB_GET) {
            if (get(table, &words, replies)) return -1;
        } else if (words.verb == VERB_SET && writes) {
            if (set(table->top, &words, replies)) return -1;
        } else {
            break;
        }
        reply_lengths[done] = (uint32_t)(replies->length - before);
        at += request_bytes[done];
        left -= request_bytes[done];
    }
    return done;
}

static PyObject *run(PyObject *module, PyObject *args) {
    PyObject *under, *result = NULL;
    kv_table table;
    Py_buffer slab, lengths;
    int writes;
    if (!PyArg_ParseTuple(args, "O!Oy*y*p:run", &PyDict_Type, &table.top, &under, &slab, &lengths, &writes)) return NULL;
    table.under = under == Py_None ? NULL : under;
    if (table.under && !PyDict_Check(table.under)) {
        PyErr_Format(PyExc_TypeError, "under is a %s, not a dict or None", Py_TYPE(under)->tp_name);
        PyBuffer_Release(&slab);
        PyBuffer_Release(&lengths);
        return NULL;
    }
    kv_replies replies = {.capacity = 4096 + (size_t)lengths.len * 4};
    replies.data = PyMem_Malloc(replies.capacity);
    PyObject *reply_lengths = PyBytes_FromStringAndSize(NULL, lengths.len);
    if (!replies.data) PyErr_NoMemory();
    if (replies.data && reply_lengths) {
        uint32_t *out = (uint32_t *)(void *)PyBytes_AS_STRING(reply_lengths);
        Py_ssize_t done = run_all(&table, &slab, &lengths, writes, &replies, out);
        if (done >= 0 && _PyBytes_Resize(&reply_lengths, done * (Py_ssize_t)sizeof(uint32_t)) == 0)
            result = Py_BuildValue("ny#O", done, replies.data, (Py_ssize_t)replies.length, reply_lengths);
    }
    Py_XDECREF(reply_lengths);
    PyMem_Free(replies.data);
    PyBuffer_Release(&slab);
    PyBuffer_Release(&lengths);
    return result;
}

static PyMethodDef methods[] = {
    {"run", run, METH_VARARGS,
     "run(top, under, slab, lengths, writes) -> (count, replies, reply_lengths)\n\nExecutes the leading GETs and, where writes, SETs."},
    {"commands", kv_commands, METH_O, "commands(data) -> the commands that the bytes are, to the last one, or None"},
    {"places", kv_places, METH_O, "places(keys) -> (places, keys), each key once, sorted"},
    {"matching", kv_matching, METH_VARARGS, "matching(pattern, keys) -> the keys that match, in their order"},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "r2p2.apps.kv._plain", .m_doc = "Plain SETs and GETs in runs.", .m_size = 0, .m_methods = methods};

PyMODINIT_FUNC PyInit__plain(void) { return PyModule_Create(&definition); }
