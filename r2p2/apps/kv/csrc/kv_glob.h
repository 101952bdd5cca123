/*
 * Patterns of KEYS and SCAN, matched against many keys in one call, in time that is linear in the keys.
 *
 * Why C: a pattern of 1,024 bytes against a key of 370,000 has up to 370 million places where a byte is to be compared with one, which
 * held up a member for half a second a key (docs/kv.md). Here it is a step for each byte of the key, of 16 words at most.
 */
#ifndef KV_GLOB_H
#define KV_GLOB_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* matching(pattern, keys): the keys that match, in their order. ValueError: the pattern is too long. */
PyObject *kv_matching(PyObject *module, PyObject *args);

#endif
