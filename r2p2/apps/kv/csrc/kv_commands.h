/*
 * RESP commands out of bytes that came together, as lists of words.
 *
 * Why not a parser of replies, which takes the same bytes: that makes room for as many elements as a header announces, and 2,147,483,647 of
 * them held up a gateway for half a minute. Here a command is looked at to its end before anything is made of it.
 */
#ifndef KV_COMMANDS_H
#define KV_COMMANDS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stddef.h>
#include <stdint.h>

#include "r2p2_resp.h"

/* One bulk string and its line end. 0: the bytes are not that. */
static inline int kv_bulk(const uint8_t *data, size_t length, size_t *at, const char **text, Py_ssize_t *bytes) {
    uint32_t n;
    if (!r2p2_resp_number(data, length, at, '$', &n) || length - *at < (size_t)n + 2) return 0;
    if (data[*at + n] != '\r' || data[*at + n + 1] != '\n') return 0;
    *text = (const char *)data + *at;
    *bytes = n;
    *at += (size_t)n + 2;
    return 1;
}

/* commands(data): a list of commands, each a list of words, when the bytes are whole arrays of bulk strings and nothing else; else None. */
PyObject *kv_commands(PyObject *module, PyObject *data);

#endif
