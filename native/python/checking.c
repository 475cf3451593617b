/* The check of queued submissions.
 *
 * A submission names its socket by the number of a descriptor. A program may close that descriptor
 * without telling us, and open another socket that gets the same number, before the kernel takes the
 * submission. So before the kernel is entered, each queued submission is compared with its socket,
 * with the GIL held. If the socket has another number by now, or none, the submission is changed to
 * be answered EBADF, as the socket's own method would answer.
 *
 * A tick calls `check_queued` before it lets go of the GIL. Wherever else the core enters the kernel,
 * it calls `check_ring`. */
#include "operations.h"
#include "tasks.h"

/* What a weak reference refers to, a new reference; NULL if that is gone. */
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

/* Whether a socket of the standard library says that this is its descriptor. */
static bool has_descriptor(PyObject *sock, PyObject *fd)
{
	PyObject *number = tu_learnt.fileno(sock, NULL);
	bool same = number && PyLong_AsLong(number) == PyLong_AsLong(fd);

	Py_XDECREF(number);
	return same;
}

bool tu_is_current(PyObject *run_socket)
{
	PyObject *fd = tu_get(run_socket, TU_SOCKET_FD);
	PyObject *sock = referent(tu_get(run_socket, TU_SOCKET_SOCK));
	bool current = sock && fd && PyObject_TypeCheck(sock, tu_learnt.base_socket) && has_descriptor(sock, fd);

	Py_XDECREF(sock);
	if (!current)
		PyErr_Clear();
	return current;
}

PyObject *tu_answer_current(PyObject *Py_UNUSED(module), PyObject *run_socket)
{
	if (tu_is(run_socket, TU_CLASS_SOCKET))
		return PyBool_FromLong(tu_is_current(run_socket));
	PyErr_SetString(PyExc_TypeError, "is_current() takes a socket of a run");
	return NULL;
}

/* Whom to ask about the descriptor of a submission, a new reference: a RunSocket, or a `fileno` method.
 * NULL if there is nobody to ask. */
static PyObject *owner_of(PyObject *run, const tu_core *core, uint64_t user_data)
{
	uint32_t slot = (uint32_t)user_data;
	PyObject *table;
	PyObject *key;
	PyObject *found;

	/* Waits for readiness are not checked: their callers expect spurious wake-ups. */
	if (!tu_operations_is_current(&core->operations, user_data) || core->operations.slots[slot].kind < TU_OPERATION)
		return NULL;
	table = tu_table(run, core->operations.slots[slot].kind);
	key = table ? PyLong_FromUnsignedLong(slot) : NULL;
	found = key ? PyDict_GetItemWithError(table, key) : NULL;
	if (found && tu_is(found, TU_CLASS_OPERATION))
		found = tu_get(found, TU_OPERATION_OWNER);
	else if (found && !tu_is(found, TU_CLASS_SOCKET))
		found = NULL;
	Py_XINCREF(found);
	Py_XDECREF(key);
	return found;
}

/* Whether a submission's descriptor, `fd`, is no longer its owner's. */
static bool is_stale(PyObject *owner, int fd)
{
	PyObject *number;
	bool stale;

	if (!owner || owner == Py_None)
		return false;
	if (tu_is(owner, TU_CLASS_SOCKET))
		return !tu_is_current(owner);
	number = PyObject_CallNoArgs(owner);
	stale = !number || PyLong_AsLong(number) != fd;
	Py_XDECREF(number);
	return stale;
}

/* Compares all that is queued with its owners. Clears any exception. */
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
	if (core->ring.unchecked)
		check(run, core);
	core->ring.unchecked = 0;
	Py_RETURN_NONE;
}

/* Called by the core, without the GIL. An exception that is set already stays set. */
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

/* The core gets a borrowed reference: the run outlives its ring, and a closed ring is not entered. */
PyObject *tu_watch_queue(PyObject *Py_UNUSED(module), PyObject *run)
{
	tu_core *core = tu_core_of(run);

	if (!core)
		return NULL;
	core->ring.check_argument = run;
	core->ring.check = check_ring;
	Py_RETURN_NONE;
}
