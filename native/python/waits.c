/* The first half of a wait for readiness, up to the task's sleep. */
#include "operations.h"
#include "tasks.h"

/* A descriptor, of an int object; -1 if it is none. */
static int descriptor_of(PyObject *object)
{
	long number = PyLong_CheckExact(object) ? PyLong_AsLong(object) : -1;

	if (number == -1 && PyErr_Occurred())
		PyErr_Clear();
	return 0 <= number && number <= INT_MAX ? (int)number : -1;
}

/* Polls a descriptor. Returns the slot as an int object; NULL if nothing was done, or with an exception. */
static PyObject *poll_for(tu_core *core, PyObject *readers, PyObject *task, PyObject *fd)
{
	int slot = core->calls->poll_add(core, descriptor_of(fd), TU_READ | TU_UNCONFIRMED);
	PyObject *number;

	if (slot < 0)
		return NULL;
	number = PyLong_FromLong(slot);
	if (number && PyDict_SetItem(readers, fd, task) == 0)
		return number;
	Py_XDECREF(number);
	core->calls->poll_cancel(core, slot, 0); /* enters no kernel, since that has not seen the poll */
	return NULL;
}

/* Does what the first half of `Readiness.wait_readable` does; false if it has done nothing, or with an exception. */
static bool start_reading(PyObject *run, PyObject *task, PyObject *fd)
{
	PyObject *readers;
	PyObject *slot;
	tu_core *core;

	if (!tu_is(run, TU_CLASS_RUN) || !tu_is_exactly(task, TU_CLASS_TASK) || descriptor_of(fd) < 0)
		return false;
	readers = tu_table(run, TU_READ);
	core = tu_core_with_room(run);
	if (!readers || !core || PyDict_Contains(readers, fd))
		return false;
	slot = poll_for(core, readers, task, fd);
	if (!slot)
		return false;
	tu_set(task, TU_TASK_CUSTOM_SLEEP_DATA, slot);
	Py_DECREF(slot);
	return true;
}

PyObject *tu_start_reading(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t number)
{
	bool started;

	if (number != 3) {
		PyErr_SetString(PyExc_TypeError, "start_reading() takes a run, a task and a descriptor");
		return NULL;
	}
	started = start_reading(arguments[0], arguments[1], arguments[2]);
	return PyErr_Occurred() ? NULL : PyBool_FromLong(started);
}
