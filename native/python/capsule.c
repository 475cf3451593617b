/* A core is handed to native/python in a capsule, which keeps the core's memory alive. */
#include "tasks.h"

#define NAME "trio_uring.core"

/* Called by Python when a capsule is thrown away. */
static void destroy(PyObject *capsule)
{
	Py_buffer *memory = PyCapsule_GetContext(capsule);

	if (memory)
		PyBuffer_Release(memory);
	PyMem_Free(memory);
}

/* A new capsule, to which `memory` belongs from then on; NULL with an exception. */
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
	PyObject *capsule = tu_is(run, TU_CLASS_RUN) ? tu_get(run, TU_RUN_CAPSULE) : NULL;

	if (capsule)
		return PyCapsule_GetPointer(capsule, NAME);
	PyErr_Format(PyExc_TypeError, "%R is no run", run);
	return NULL;
}

tu_core *tu_core_with_room(PyObject *run)
{
	tu_core *core = tu_core_of(run);

	return core && core->ring.open && io_uring_sq_space_left(&core->ring.uring) ? core : NULL;
}
