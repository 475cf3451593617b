/* A descriptor's number is not a socket: it may be closed, without a word to us, and be another
 * connection's before the kernel takes what was queued for the first one. So all that is queued is
 * looked at, with the GIL held, before the kernel is entered. What is for a socket that has another
 * number by now, or none, is answered EBADF, as a call of that socket's own would be.
 *
 * A tick calls `check_queued` before it lets go of the GIL; the core calls `check_ring` where it is
 * entered otherwise. */
#include "operations.h"
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

bool tu_is_current(PyObject *run_socket)
{
	PyObject *fd = tu_get(run_socket, TU_SOCKET_FD);
	PyObject *sock = referent(tu_get(run_socket, TU_SOCKET_SOCK));
	bool current = sock && fd && PyObject_TypeCheck(sock, tu_known.base_socket) && has_number(sock, fd);

	Py_XDECREF(sock);
	if (!current)
		PyErr_Clear();
	return current;
}

PyObject *tu_tell_current(PyObject *Py_UNUSED(module), PyObject *run_socket)
{
	if (tu_is(run_socket, TU_RUN_SOCKET))
		return PyBool_FromLong(tu_is_current(run_socket));
	PyErr_SetString(PyExc_TypeError, "is_current() takes a socket of a run");
	return NULL;
}

/* Who has the descriptor that a submission is for, a new reference; NULL if it is nobody's. */
static PyObject *owner_of(PyObject *run, const tu_core *core, uint64_t user_data)
{
	uint32_t slot = (uint32_t)user_data;
	PyObject *table;
	PyObject *key;
	PyObject *found;

	/* Whoever waits for a descriptor expects to be woken for nothing. */
	if (!tu_operations_is_current(&core->operations, user_data) || core->operations.slots[slot].kind < TU_OPERATION)
		return NULL;
	table = tu_table(run, core->operations.slots[slot].kind);
	key = table ? PyLong_FromUnsignedLong(slot) : NULL;
	found = key ? PyDict_GetItemWithError(table, key) : NULL;
	if (found && tu_is(found, TU_RUN_OPERATION))
		found = tu_get(found, TU_OPERATION_OWNER);
	else if (found && !tu_is(found, TU_RUN_SOCKET))
		found = NULL;
	Py_XINCREF(found);
	Py_XDECREF(key);
	return found;
}

/* Of a socket of ours, or of who is called and tells the number of its descriptor. */
static bool is_stale(PyObject *owner, int fd)
{
	PyObject *number;
	bool stale;

	if (!owner || owner == Py_None)
		return false;
	if (tu_is(owner, TU_RUN_SOCKET))
		return !tu_is_current(owner);
	number = PyObject_CallNoArgs(owner);
	stale = !number || PyLong_AsLong(number) != fd;
	Py_XDECREF(number);
	return stale;
}

static void check(PyObject *run, const tu_core *core)
{
	struct io_uring_sqe *sqe;

	for (uint32_t number = 0; (sqe = tu_ring_pending(&core->ring, number)); number++) {
		PyObject *owner = owner_of(run, core, sqe->user_data);

		if (is_stale(owner, sqe->fd))
			sqe->fd = -1;
		PyErr_Clear();
		Py_XDECREF(owner);
	}
}

PyObject *tu_check_queued(PyObject *Py_UNUSED(module), PyObject *run)
{
	tu_core *core = tu_core_of(run);

	if (!core)
		return NULL;
	check(run, core);
	core->ring.unchecked = 0;
	Py_RETURN_NONE;
}

/* Called by the core, without the GIL. What was raised before is not ours to change. */
static void check_ring(void *run)
{
	PyGILState_STATE state = PyGILState_Ensure();
	PyObject *type;
	PyObject *value;
	PyObject *traceback;

	PyErr_Fetch(&type, &value, &traceback);
	check(run, tu_core_of(run));
	PyErr_Restore(type, value, traceback);
	PyGILState_Release(state);
}

/* The run is borrowed: it outlives its ring, which is not entered once it is closed. */
PyObject *tu_watch_queue(PyObject *Py_UNUSED(module), PyObject *run)
{
	tu_core *core = tu_core_of(run);

	if (!core)
		return NULL;
	core->ring.check_argument = run;
	core->ring.check = check_ring;
	Py_RETURN_NONE;
}
