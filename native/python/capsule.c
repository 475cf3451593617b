/* A core, as native/python gets it: a capsule. Who has it has the core's memory, too. */
#include "tasks.h"

#define NAME "trio_uring.core"

static void destroy(PyObject *capsule)
{
	Py_buffer *memory = PyCapsule_GetContext(capsule);

	if (memory)
		PyBuffer_Release(memory);
	PyMem_Free(memory);
}

static PyObject *capsule_of(Py_buffer *memory)
{
	PyObject *capsule;

	if (memory->len != sizeof(tu_core) || !((const tu_core *)memory->buf)->calls) {
		PyErr_SetString(PyExc_ValueError, "capsule_of() takes the memory of a core that was opened");
		return NULL;
	}
	capsule = PyCapsule_New(memory->buf, NAME, destroy);
	if (capsule && PyCapsule_SetContext(capsule, memory) < 0)
		Py_CLEAR(capsule);
	return capsule;
}

PyObject *tu_capsule_of(PyObject *Py_UNUSED(module), PyObject *owner)
{
	Py_buffer *memory = PyMem_Malloc(sizeof(*memory));
	PyObject *capsule;

	if (!memory)
		return PyErr_NoMemory();
	if (PyObject_GetBuffer(owner, memory, PyBUF_SIMPLE) < 0) {
		PyMem_Free(memory);
		return NULL;
	}
	capsule = capsule_of(memory);
	if (!capsule) {
		PyBuffer_Release(memory);
		PyMem_Free(memory);
	}
	return capsule;
}

tu_core *tu_core_of(PyObject *run)
{
	PyObject *capsule = tu_is(run, TU_RUN) ? tu_get(run, TU_RUN_CAPSULE) : NULL;

	if (capsule)
		return PyCapsule_GetPointer(capsule, NAME);
	PyErr_Format(PyExc_TypeError, "%R is no run", run);
	return NULL;
}
