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

/* The value of a slot, a new reference; NULL if there is none. */
static PyObject *find(PyObject *run, enum tu_slot table, uint32_t slot)
{
	PyObject *key = PyLong_FromUnsignedLong(slot);
	PyObject *found = key ? PyDict_GetItemWithError(tu_get(run, table), key) : NULL;

	Py_XINCREF(found);
	Py_XDECREF(key);
	return found;
}

/* Who has the descriptor that a submission is for, a new reference; NULL if it is nobody's. */
static PyObject *owner_of(PyObject *run, const tu_core *core, uint64_t user_data)
{
	uint32_t slot = (uint32_t)user_data;
	PyObject *operation;
	PyObject *owner = NULL;

	if (!tu_operations_is_current(&core->operations, user_data))
		return NULL;
	switch (core->operations.slots[slot].kind) {
	case TU_RECEIVE:
		return find(run, TU_RUN_RECEIVERS, slot);
	case TU_ACCEPT:
		return find(run, TU_RUN_ACCEPTORS_BY_SLOT, slot);
	case TU_OPERATION:
		operation = find(run, TU_RUN_OPERATIONS, slot);
		if (operation && PyObject_TypeCheck(operation, tu_known.operation))
			owner = tu_get(operation, TU_OPERATION_OWNER);
		Py_XINCREF(owner);
		Py_XDECREF(operation);
		return owner;
	default: /* whoever waits for a descriptor expects to be woken for nothing */
		return NULL;
	}
}

/* Of a socket of ours, or of who is called and tells the number of its descriptor. */
static bool is_stale(PyObject *owner, int fd)
{
	PyObject *number;
	bool stale;

	if (!owner || owner == Py_None)
		return false;
	if (PyObject_TypeCheck(owner, tu_known.armed))
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

static tu_core *core_of(PyObject *run)
{
	if (Py_TYPE(run) == tu_known.run)
		return PyLong_AsVoidPtr(tu_get(run, TU_RUN_CORE_AT));
	PyErr_SetString(PyExc_TypeError, "it takes a run");
	return NULL;
}

PyObject *tu_check_queued(PyObject *Py_UNUSED(module), PyObject *run)
{
	tu_core *core = core_of(run);

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
	check(run, core_of(run));
	PyErr_Restore(type, value, traceback);
	PyGILState_Release(state);
}

/* The run is borrowed: it outlives its ring, which is not entered once it is closed. */
PyObject *tu_watch_queue(PyObject *Py_UNUSED(module), PyObject *run)
{
	tu_core *core = core_of(run);

	if (!core)
		return NULL;
	core->ring.check_argument = run;
	core->ring.check = check_ring;
	Py_RETURN_NONE;
}
