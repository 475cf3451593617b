#include "tasks.h"

PyObject *tu_uncleared_bytes(PyObject *Py_UNUSED(module), PyObject *length)
{
	Py_ssize_t size = PyLong_AsSsize_t(length);

	return size == -1 && PyErr_Occurred() ? NULL : PyBytes_FromStringAndSize(NULL, size);
}

PyObject *tu_keep(PyObject *Py_UNUSED(module), PyObject *memory)
{
	Py_INCREF(memory);
	Py_RETURN_NONE;
}
