/*
 * The order of SCAN: keys sorted by a hash of theirs, BLAKE2b (RFC 7693) cut to 64 bits.
 *
 * Why C: the first SCAN goes through all keys, and in Python a million of them took three seconds, which is an election. Why this hash: whoever
 * chooses keys must not be able to choose many with one place, since a step of SCAN does not part those.
 */
#ifndef KV_PLACES_H
#define KV_PLACES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* places(keys) -> (places, keys): each key once, in order of its place and then of its bytes; the places as bytes, 8 each. */
PyObject *kv_places(PyObject *module, PyObject *keys);

#endif
