/* The first half of a stream's `receive_some` and `send_all`, up to the task's sleep, in the
 * case that a busy program has nearly always: the socket is known to the run, nothing was read
 * ahead, nobody else receives or sends. For any other case they answer None and have done nothing:
 * streams.py then goes through all of it. */
#include <errno.h>

#include "core.h"
#include "tasks.h"

/* A new reference; NULL without the attribute, or with an exception. */
static PyObject *look_up(PyObject *object, PyObject *name)
{
	PyObject *value = NULL;

#if PY_VERSION_HEX >= 0x030d0000
	PyObject_GetOptionalAttr(object, name, &value);
#else
	_PyObject_LookupAttr(object, name, &value);
#endif
	return value;
}

/* What a call works on, new references. */
struct call {
	PyObject *task;
	PyObject *socket;
	PyObject *connection;
};

static void end_call(struct call *call)
{
	Py_CLEAR(call->task);
	Py_CLEAR(call->socket);
	Py_CLEAR(call->connection);
}

/* Whether the stream's socket has a connection of the run that calls. */
static bool begin_call(struct call *call, PyObject *stream)
{
	*call = (struct call){ 0 };
	if (!tu_known.task)
		return false;
	call->socket = look_up(stream, tu_names.socket);
	if (!call->socket || Py_TYPE(call->socket) != tu_known.socket)
		return false;
	call->connection = look_up(call->socket, tu_names.uring);
	if (!call->connection || Py_TYPE(call->connection) != tu_known.connection)
		return false;
	call->task = look_up(tu_known.context, tu_names.task);
	return call->task && Py_TYPE(call->task) == tu_known.task &&
	       tu_get(call->connection, TU_CONNECTION_RUNNER) == tu_get(call->task, TU_TASK_RUNNER);
}

/* The connection, for which the caller has done its part, or None. */
static PyObject *answer(struct call *call, bool done)
{
	PyObject *result = Py_None;

	if (PyErr_Occurred())
		result = NULL;
	else if (done)
		result = call->connection;
	Py_XINCREF(result);
	end_call(call);
	return result;
}

static bool is_length(PyObject *value)
{
	long length = PyLong_CheckExact(value) ? PyLong_AsLong(value) : 0;

	if (length == -1 && PyErr_Occurred())
		PyErr_Clear();
	return 0 < length && length <= TU_MOST_BYTES;
}

static bool start_receive(const struct call *call, PyObject *length)
{
	if (!is_length(length) || tu_get(call->connection, TU_CONNECTION_QUIET) != Py_True ||
	    tu_get(call->connection, TU_CONNECTION_TASK) != Py_None)
		return false;
	tu_set(call->connection, TU_CONNECTION_TASK, call->task);
	tu_set(call->connection, TU_CONNECTION_LENGTH, length);
	return true;
}

PyObject *tu_start_receive(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t number)
{
	struct call call;

	if (number != 2) {
		PyErr_SetString(PyExc_TypeError, "start_receive() takes a stream and a length");
		return NULL;
	}
	return answer(&call, begin_call(&call, arguments[0]) && start_receive(&call, arguments[1]));
}

static bool is_free(PyObject *sender)
{
	return PyObject_TypeCheck(sender, tu_known.operation) && tu_get(sender, TU_OPERATION_TASK) == Py_None;
}

/* By a budget, and as streams.py does it. */
static bool sends_at_once(PyObject *run)
{
	return PyLong_AsLong(tu_get(run, TU_RUN_BUDGET)) != 0 &&
	       PyLong_AsLong(tu_get(run, TU_RUN_WOKEN)) <= TU_FEW_WOKEN;
}

static bool is_shut_down(PyObject *socket)
{
	PyObject *value = look_up(socket, tu_names.shut_down);

	Py_XDECREF(value);
	return value != Py_False;
}

/* The stream's conflict detector, held from now on, a new reference; NULL if another holds it. */
static PyObject *hold(PyObject *stream)
{
	PyObject *detector = look_up(stream, tu_names.send_conflict_detector);
	PyObject *held = detector ? look_up(detector, tu_names.held) : NULL;

	Py_XDECREF(held);
	if (held == Py_False && PyObject_SetAttr(detector, tu_names.held, Py_True) == 0)
		return detector;
	Py_XDECREF(detector);
	return NULL;
}

/* `Sender.submit` of bytes, which are held before anything can fail. */
static bool submit(const struct call *call, PyObject *run, PyObject *sender, PyObject *data)
{
	tu_core *core = PyLong_AsVoidPtr(tu_get(run, TU_RUN_CORE_AT));
	int fd = (int)PyLong_AsLong(tu_get(call->connection, TU_CONNECTION_FD));
	PyObject *number;
	int slot;

	slot = tu_known.send(core, fd, PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data), true);
	if (slot < 0)
		return false;
	tu_set(sender, TU_OPERATION_HELD, data);
	tu_set(sender, TU_OPERATION_TASK, call->task);
	number = PyLong_FromLong(slot);
	if (number) {
		tu_set(sender, TU_OPERATION_SLOT, number);
		PyDict_SetItem(tu_get(run, TU_RUN_OPERATIONS), number, sender);
		Py_DECREF(number);
	}
	return true;
}

static bool start_send(const struct call *call, PyObject *stream, PyObject *data)
{
	PyObject *run = tu_get(call->connection, TU_CONNECTION_RUN);
	PyObject *sender = tu_get(call->connection, TU_CONNECTION_SENDER);
	PyObject *detector;
	bool submitted;

	if (tu_get(call->connection, TU_CONNECTION_CLOSED) != Py_False || Py_TYPE(run) != tu_known.run ||
	    !is_free(sender) || sends_at_once(run) || is_shut_down(call->socket) ||
	    PyDict_Contains(tu_get(run, TU_RUN_WRITERS), tu_get(call->connection, TU_CONNECTION_FD)))
		return false;
	detector = hold(stream);
	if (!detector)
		return false;
	submitted = submit(call, run, sender, data);
	if (!submitted)
		PyObject_SetAttr(detector, tu_names.held, Py_False);
	Py_DECREF(detector);
	return submitted;
}

PyObject *tu_start_send(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t number)
{
	struct call call;
	PyObject *data;

	if (number != 2) {
		PyErr_SetString(PyExc_TypeError, "start_send() takes a stream and data");
		return NULL;
	}
	data = arguments[1];
	return answer(&call, begin_call(&call, arguments[0]) && PyBytes_CheckExact(data) && PyBytes_GET_SIZE(data) &&
				     start_send(&call, arguments[0], data));
}
