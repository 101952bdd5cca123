/*
 * r2p2.requests._batch: what happens to each request of a batch on its way through a handler in Python.
 *
 * Why C, and why Python's own interface: every replica does this for every request. A bytes object cut out of the slab, a call, a look at
 * what came back and the laying out of the replies cost several times the handler where Python does them step by step
 * (docs/adr/0025), and cffi cannot make Python objects. Nothing is decided here: what is no reply, and an exception, is the caller's to settle.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

/* ---- the requests of a slab, one after the other ---- */

typedef struct slab_cut {
    Py_buffer slab, lengths;
    Py_ssize_t next, count; /* requests */
    Py_ssize_t at;          /* bytes of the slab that are behind */
} slab_cut;

/* 0, or -1 with an exception set. What was taken is given back by slab_cut_release, in either case. */
static int slab_cut_open(slab_cut *cut, PyObject *slab, PyObject *lengths) {
    if (PyObject_GetBuffer(slab, &cut->slab, PyBUF_SIMPLE) || PyObject_GetBuffer(lengths, &cut->lengths, PyBUF_SIMPLE)) return -1;
    if (cut->lengths.len % (Py_ssize_t)sizeof(uint32_t)) {
        PyErr_SetString(PyExc_ValueError, "the lengths are no 32-bit numbers");
        return -1;
    }
    cut->count = cut->lengths.len / (Py_ssize_t)sizeof(uint32_t);
    return 0;
}

static void slab_cut_release(slab_cut *cut) {
    PyBuffer_Release(&cut->slab);
    PyBuffer_Release(&cut->lengths);
}

/* The next request, a new reference; NULL without an exception: there is none. */
static inline PyObject *slab_cut_next(slab_cut *cut) {
    if (cut->next == cut->count) return NULL;
    uint32_t bytes;
    memcpy(&bytes, (const char *)cut->lengths.buf + cut->next * (Py_ssize_t)sizeof bytes, sizeof bytes);
    if ((Py_ssize_t)bytes > cut->slab.len - cut->at) {
        PyErr_SetString(PyExc_ValueError, "the lengths reach beyond the slab");
        return NULL;
    }
    PyObject *request = PyBytes_FromStringAndSize((const char *)cut->slab.buf + cut->at, (Py_ssize_t)bytes);
    cut->at += (Py_ssize_t)bytes;
    cut->next++;
    return request;
}

typedef struct cut_object {
    PyObject_HEAD
    slab_cut cut;
} cut_object;

static PyObject *cut_new(PyTypeObject *type, PyObject *args, PyObject *named) {
    PyObject *slab, *lengths;
    if (named && PyDict_GET_SIZE(named)) {
        PyErr_SetString(PyExc_TypeError, "Cut takes no named arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "OO:Cut", &slab, &lengths)) return NULL;
    cut_object *self = (cut_object *)type->tp_alloc(type, 0); /* all zero: buffers that hold nothing */
    if (self && slab_cut_open(&self->cut, slab, lengths)) Py_CLEAR(self);
    return (PyObject *)self;
}

static void cut_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    slab_cut_release(&((cut_object *)self)->cut);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *cut_next(PyObject *self) { return slab_cut_next(&((cut_object *)self)->cut); }

static PyObject *cut_length_hint(PyObject *self, PyObject *nothing) {
    (void)nothing;
    const slab_cut *cut = &((cut_object *)self)->cut;
    return PyLong_FromSsize_t(cut->count - cut->next);
}

static PyMethodDef cut_methods[] = {
    {"__length_hint__", cut_length_hint, METH_NOARGS, "The requests that are left."}, {NULL, NULL, 0, NULL}};

static PyType_Slot cut_slots[] = {{Py_tp_doc, "Cut(slab, lengths): an iterator over the requests of a slab."},
                                  {Py_tp_new, cut_new},
                                  {Py_tp_dealloc, cut_dealloc},
                                  {Py_tp_iter, PyObject_SelfIter},
                                  {Py_tp_iternext, cut_next},
                                  {Py_tp_methods, cut_methods},
                                  {0, NULL}};

static PyType_Spec cut_spec = {"r2p2.requests._batch.Cut", sizeof(cut_object), 0, Py_TPFLAGS_DEFAULT, cut_slots};

/* ---- a handler of one request, called for each ---- */

#define MORE_MAX 2 /* further arguments of a handler */

/* What the handler raised, taken off the thread's state; NULL, with it still set: it is none of the handler's to answer with. */
static PyObject *take_error(void) {
    if (!PyErr_ExceptionMatches(PyExc_Exception)) return NULL;
#if PY_VERSION_HEX >= 0x030c0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *error, *trace;
    PyErr_Fetch(&type, &error, &trace);
    PyErr_NormalizeException(&type, &error, &trace);
    if (trace) PyException_SetTraceback(error, trace);
    Py_XDECREF(type);
    Py_XDECREF(trace);
    return error;
#endif
}

/* The reply to one request, a new reference. `arguments` has room for the request at its begin. */
static inline PyObject *answer(PyObject *handler, PyObject **arguments, size_t count, Py_ssize_t bytes_max, PyObject *settle) {
    PyObject *reply = PyObject_Vectorcall(handler, arguments, count | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    if (reply && PyBytes_CheckExact(reply) && PyBytes_GET_SIZE(reply) <= bytes_max) return reply;
    PyObject *error = NULL;
    if (!reply) {
        error = take_error();
        if (!error) return NULL;
    }
    PyObject *settled =
        PyObject_CallFunctionObjArgs(settle, handler, arguments[0], reply ? reply : Py_None, error ? error : Py_None, NULL);
    Py_XDECREF(reply);
    Py_XDECREF(error);
    return settled;
}

static PyObject *call_each(PyObject *module, PyObject *const *args, Py_ssize_t args_count) {
    (void)module;
    if (args_count < 5 || args_count > 5 + MORE_MAX) {
        PyErr_Format(PyExc_TypeError, "call_each takes 5 to %d arguments, not %zd", 5 + MORE_MAX, args_count);
        return NULL;
    }
    Py_ssize_t bytes_max = PyLong_AsSsize_t(args[3]);
    if (bytes_max == -1 && PyErr_Occurred()) return NULL;
    PyObject *handler = args[0], *settle = args[4];
    PyObject *stack[2 + MORE_MAX]; /* the first is the callee's to use (PY_VECTORCALL_ARGUMENTS_OFFSET) */
    size_t count = 1;
    for (Py_ssize_t i = 5; i < args_count; i++) stack[1 + count++] = args[i];
    slab_cut cut = {.next = 0};
    PyObject *replies = slab_cut_open(&cut, args[1], args[2]) ? NULL : PyList_New(0);
    PyObject *request = NULL;
    int status = replies ? 0 : -1;
    while (!status && (request = slab_cut_next(&cut))) {
        stack[1] = request;
        PyObject *reply = answer(handler, stack + 1, count, bytes_max, settle);
        status = reply ? PyList_Append(replies, reply) : -1;
        Py_XDECREF(reply);
        Py_DECREF(request);
    }
    if (PyErr_Occurred()) Py_CLEAR(replies);
    slab_cut_release(&cut);
    return replies;
}

/* ---- replies laid end to end ---- */

#define SPECIAL_LENGTHS 2u /* the greatest lengths stand for special replies */

/* The bytes of all replies together; -1: one is not bytes, or has more of them than a length tells. */
static Py_ssize_t plain_bytes(PyObject *const *replies, Py_ssize_t count) {
    Py_ssize_t total = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!PyBytes_CheckExact(replies[i])) return -1;
        Py_ssize_t bytes = PyBytes_GET_SIZE(replies[i]);
        if (bytes > (Py_ssize_t)(UINT32_MAX - SPECIAL_LENGTHS) || bytes > PY_SSIZE_T_MAX - total) return -1;
        total += bytes;
    }
    return total;
}

static PyObject *pack(PyObject *module, PyObject *sequence) {
    (void)module;
    if (!PyList_CheckExact(sequence) && !PyTuple_CheckExact(sequence)) Py_RETURN_NONE;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(sequence);
    PyObject *const *replies = PySequence_Fast_ITEMS(sequence);
    Py_ssize_t total = plain_bytes(replies, count);
    if (total < 0) Py_RETURN_NONE;
    PyObject *slab = PyBytes_FromStringAndSize(NULL, total);
    PyObject *lengths = PyBytes_FromStringAndSize(NULL, count * (Py_ssize_t)sizeof(uint32_t));
    if (slab && lengths) {
        char *out = PyBytes_AS_STRING(slab), *length_out = PyBytes_AS_STRING(lengths);
        for (Py_ssize_t i = 0; i < count; i++) {
            Py_ssize_t bytes = PyBytes_GET_SIZE(replies[i]);
            uint32_t length = (uint32_t)bytes;
            memcpy(out, PyBytes_AS_STRING(replies[i]), (size_t)bytes);
            memcpy(length_out, &length, sizeof length);
            out += bytes;
            length_out += sizeof length;
        }
        return Py_BuildValue("NN", slab, lengths);
    }
    Py_XDECREF(slab);
    Py_XDECREF(lengths);
    return NULL;
}

/* ---- the module ---- */

static PyMethodDef methods[] = {
    {"call_each", (PyCFunction)(void (*)(void))call_each, METH_FASTCALL,
     "call_each(handler, slab, lengths, bytes_max, settle, *more) -> replies\n\nCalls a handler for each request."},
    {"pack", pack, METH_O, "pack(replies) -> (slab, lengths) or None\n\nLays a list or tuple of bytes end to end."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "r2p2.requests._batch",
                                        .m_doc = "What happens to each request of a batch.", .m_size = 0, .m_methods = methods};

PyMODINIT_FUNC PyInit__batch(void) {
    PyObject *module = PyModule_Create(&definition);
    PyObject *type = module ? PyType_FromSpec(&cut_spec) : NULL;
    if (!type || PyModule_AddObject(module, "Cut", type)) {
        Py_XDECREF(type);
        Py_CLEAR(module);
    }
    return module;
}
