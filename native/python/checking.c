/* A descriptor's number is not a socket: it may be closed, by whom nobody told us, and be another
 * connection's before the kernel takes what was queued for the first one. So whatever is queued is
 * looked at, with the GIL held, before the kernel is entered: a socket that has another number by
 * now, or none, gets -EBADF for it, as a call of its own would have.
 *
 * `run.queued` has two items for each: who has the descriptor, and the slot. A tick calls
 * `check_queued` before it lets go of the GIL; the core calls `check_ring` where it is entered
 * otherwise, with something queued that no tick has seen. */
#include "tasks.h"

/* A new reference; NULL if it is gone. */
static PyObject *referent(PyObject *reference)
{
	PyObject *object = NULL;

	if (!reference || !PyWeakref_Check(reference))
		return NULL;
#if PY_VERSION_HEX >= 0x030d0000
	PyWeakref_GetRef(reference, &object);
#else
	object = PyWeakref_GetObject(reference);
	object = object == Py_None ? NULL : Py_NewRef(object);
#endif
	return object;
}

/* What a socket of the standard library says its descriptor is. */
static bool has_number(PyObject *sock, PyObject *fd)
{
	PyObject *number = tu_known.fileno(sock, NULL);
	bool same = number && PyLong_AsLong(number) == PyLong_AsLong(fd);

	Py_XDECREF(number);
	return same;
}

bool tu_is_current(PyObject *armed)
{
	PyObject *fd = tu_get(armed, TU_ARMED_FD);
	PyObject *sock = referent(tu_get(armed, TU_ARMED_SOCK));
	bool current = sock && fd && PyObject_TypeCheck(sock, tu_known.base_socket) && has_number(sock, fd);

	Py_XDECREF(sock);
	if (!current)
		PyErr_Clear();
	return current;
}

PyObject *tu_tell_current(PyObject *Py_UNUSED(module), PyObject *armed)
{
	if (PyObject_TypeCheck(armed, tu_known.armed))
		return PyBool_FromLong(tu_is_current(armed));
	PyErr_SetString(PyExc_TypeError, "is_current() takes a connection or an acceptor");
	return NULL;
}

/* Those that are no sockets of ours tell it themselves. */
static bool is_current(PyObject *owner)
{
	PyObject *answer;
	bool current;

	if (PyObject_TypeCheck(owner, tu_known.armed))
		return tu_is_current(owner);
	answer = PyObject_GetAttr(owner, tu_names.is_current);
	current = answer == Py_True;
	Py_XDECREF(answer);
	if (!current)
		PyErr_Clear();
	return current;
}

static void check(PyObject *run)
{
	PyObject *queued = tu_get(run, TU_RUN_QUEUED);
	tu_core *core = PyLong_AsVoidPtr(tu_get(run, TU_RUN_CORE_AT));

	for (Py_ssize_t index = 0; index + 1 < PyList_GET_SIZE(queued); index += 2) {
		PyObject *owner = Py_NewRef(PyList_GET_ITEM(queued, index));
		int slot = (int)PyLong_AsLong(PyList_GET_ITEM(queued, index + 1));

		if (!is_current(owner))
			tu_known.disown(core, slot);
		Py_DECREF(owner);
	}
	PyList_SetSlice(queued, 0, PyList_GET_SIZE(queued), NULL);
}

PyObject *tu_check_queued(PyObject *Py_UNUSED(module), PyObject *run)
{
	tu_core *core;

	if (Py_TYPE(run) != tu_known.run) {
		PyErr_SetString(PyExc_TypeError, "check_queued() takes a run");
		return NULL;
	}
	check(run);
	core = PyLong_AsVoidPtr(tu_get(run, TU_RUN_CORE_AT));
	core->ring.unchecked = false;
	Py_RETURN_NONE;
}

/* Called by the core without the GIL. What was raised meanwhile is not ours to change. */
static void check_ring(void *run)
{
	PyGILState_STATE state = PyGILState_Ensure();
	PyObject *type;
	PyObject *value;
	PyObject *traceback;

	PyErr_Fetch(&type, &value, &traceback);
	check(run);
	PyErr_Restore(type, value, traceback);
	PyGILState_Release(state);
}

/* The run is borrowed: it outlives its ring, which is entered no more once it is closed. */
PyObject *tu_watch_queue(PyObject *Py_UNUSED(module), PyObject *run)
{
	tu_core *core;

	if (Py_TYPE(run) != tu_known.run) {
		PyErr_SetString(PyExc_TypeError, "watch_queue() takes a run");
		return NULL;
	}
	core = PyLong_AsVoidPtr(tu_get(run, TU_RUN_CORE_AT));
	core->ring.check_argument = run;
	core->ring.check = check_ring;
	Py_RETURN_NONE;
}
