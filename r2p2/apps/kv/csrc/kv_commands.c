/* Commands. See kv_commands.h. */
#include "kv_commands.h"

/* Where the command that begins at `at` ends, and how many words it has; 0: it is not whole, or none. */
static size_t end_of(const uint8_t *data, size_t length, size_t at, uint32_t *words) {
    const char *text;
    Py_ssize_t bytes;
    if (!r2p2_resp_number(data, length, &at, '*', words) || *words == 0) return 0;
    for (uint32_t i = 0; i < *words; i++)
        if (!kv_bulk(data, length, &at, &text, &bytes)) return 0;
    return at;
}

/* The command's words; it is whole. */
static PyObject *command_at(const uint8_t *data, size_t length, size_t at, uint32_t words) {
    PyObject *command = PyList_New(words);
    const char *text = NULL;
    Py_ssize_t bytes = 0;
    (void)r2p2_resp_number(data, length, &at, '*', &words);
    for (uint32_t i = 0; command && i < words; i++) {
        (void)kv_bulk(data, length, &at, &text, &bytes);
        PyObject *word = PyBytes_FromStringAndSize(text, bytes);
        if (word) PyList_SET_ITEM(command, i, word);
        else Py_CLEAR(command);
    }
    return command;
}

PyObject *kv_commands(PyObject *module, PyObject *data) {
    (void)module;
    if (!PyBytes_Check(data)) return PyErr_Format(PyExc_TypeError, "data is a %s, not bytes", Py_TYPE(data)->tp_name);
    const uint8_t *bytes = (const uint8_t *)PyBytes_AS_STRING(data);
    size_t length = (size_t)PyBytes_GET_SIZE(data), at = 0, end;
    PyObject *commands = PyList_New(0);
    for (uint32_t words; commands && at < length; at = end) {
        end = end_of(bytes, length, at, &words);
        if (end == 0) {
            Py_DECREF(commands);
            Py_RETURN_NONE;
        }
        PyObject *command = command_at(bytes, length, at, words);
        if (!command || PyList_Append(commands, command)) Py_CLEAR(commands);
        Py_XDECREF(command);
    }
    return commands;
}
