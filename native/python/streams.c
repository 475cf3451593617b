/* The first half of a stream's `receive_some` and `send_all`, up to the task's sleep.
 *
 * Only for the case that a busy program nearly always has: the socket has a connection in this run,
 * nothing was read ahead, and no other task receives or sends. In any other case these functions change
 * nothing and return None, and sockets/streams.py does the whole call. */
#include "core.h"
#include "tasks.h"

/* Our methods of Trio's sockets, which Trio's own streams would call. */
static PyObject *our_recv;
static PyObject *our_send;

PyObject *tu_learn_methods(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t number)
{
	if (number != 2) {
		PyErr_SetString(PyExc_TypeError, "learn_methods() takes recv and send");
		return NULL;
	}
	Py_INCREF(arguments[0]);
	Py_XSETREF(our_recv, arguments[0]);
	Py_INCREF(arguments[1]);
	Py_XSETREF(our_send, arguments[1]);
	Py_RETURN_NONE;
}

/* Whether a method of an object is `function`: nobody has wrapped it, in the class or on the object. */
static bool is_ours(PyObject *object, PyObject *name, PyObject *function)
{
	PyObject *method = tu_look_up(object, name);
	bool ours = method && PyMethod_Check(method) && PyMethod_GET_FUNCTION(method) == function;

	Py_XDECREF(method);
	return ours;
}

/* What a call of a stream's method works on; new references, which `end` releases. */
struct call {
	PyObject *task;
	PyObject *socket;
	PyObject *connection;
};

/* Fills `call`. False if the stream's socket has no connection in the calling task's run. */
static bool begin(struct call *call, PyObject *stream)
{
	*call = (struct call){ 0 };
	if (!tu_learnt.classes[TU_CLASS_TASK])
		return false;
	call->socket = tu_look_up(stream, tu_names.socket);
	if (!call->socket || Py_TYPE(call->socket) != tu_learnt.trio_socket)
		return false;
	call->connection = tu_look_up(call->socket, tu_names.uring);
	if (!call->connection || !tu_is_exactly(call->connection, TU_CLASS_CONNECTION))
		return false;
	call->task = tu_look_up(tu_learnt.context, tu_names.task);
	return call->task && tu_is_exactly(call->task, TU_CLASS_TASK) &&
	       tu_get(call->connection, TU_CONNECTION_RUNNER) == tu_get(call->task, TU_TASK_RUNNER);
}

/* What the call returns: the connection if the work is `done`, None if not, NULL with an exception. */
static PyObject *end(struct call *call, bool done)
{
	PyObject *answer = Py_None;

	if (PyErr_Occurred())
		answer = NULL;
	else if (done)
		answer = call->connection;
	Py_XINCREF(answer);
	Py_XDECREF(call->task);
	Py_XDECREF(call->socket);
	Py_XDECREF(call->connection);
	return answer;
}

/* Whether it is an int that a receive may ask for. */
static bool is_length(PyObject *value)
{
	long length = PyLong_CheckExact(value) ? PyLong_AsLong(value) : 0;

	if (length == -1 && PyErr_Occurred())
		PyErr_Clear();
	return 0 < length && length <= TU_MOST_BYTES;
}

/* Whether a multishot is with the kernel, and nothing was read ahead. */
static bool is_quiet(PyObject *connection)
{
	PyObject *ahead = tu_get(connection, TU_CONNECTION_BYTES_AHEAD);

	return tu_get(connection, TU_SOCKET_STATE) == tu_learnt.multishot && ahead && PyLong_CheckExact(ahead) &&
	       PyLong_AsLong(ahead) == 0;
}

/* Makes the task the connection's waiter; false if it has done nothing. No submission is queued for
 * this receive, so nobody will check its descriptor later (checking.c): it is checked here. */
static bool start_receive(const struct call *call, PyObject *length)
{
	if (!is_length(length) || !tu_is_current(call->connection) || !is_quiet(call->connection) ||
	    tu_get(call->connection, TU_SOCKET_WAITER) != Py_None)
		return false;
	tu_set(call->connection, TU_SOCKET_WAITER, call->task);
	tu_set(call->connection, TU_CONNECTION_LENGTH, length);
	return true;
}

PyObject *tu_start_receive(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t number)
{
	struct call call;
	bool done;

	if (number != 2) {
		PyErr_SetString(PyExc_TypeError, "start_receive() takes a stream and a length");
		return NULL;
	}
	done = begin(&call, arguments[0]) && is_ours(call.socket, tu_names.recv, our_recv) &&
	       start_receive(&call, arguments[1]);
	return end(&call, done);
}

/* What a send works on besides; new references, since `hold_detector` may run Python. */
struct sending {
	PyObject *run;
	PyObject *sender;
	PyObject *detector;
};

/* Whether no task is using the sender. */
static bool is_free(PyObject *sender)
{
	return sender && tu_is(sender, TU_CLASS_OPERATION) &&
	       tu_get(sender, TU_OPERATION_TASK) == Py_None;
}

/* Fills in `run` and `sender`; false if there is no run, or the sender is in use. */
static bool find_run_and_sender(const struct call *call, struct sending *sending)
{
	PyObject *run = tu_get(call->connection, TU_SOCKET_RUN);
	PyObject *sender = tu_get(call->connection, TU_CONNECTION_SENDER);

	if (!run || !tu_is(run, TU_CLASS_RUN) || !is_free(sender))
		return false;
	Py_INCREF(run);
	Py_INCREF(sender);
	sending->run = run;
	sending->sender = sender;
	return true;
}

/* Whether the send is to be tried at once, as sockets/streams.py does if there is a budget and the tick
 * had few events. */
static bool sends_at_once(PyObject *run)
{
	PyObject *budget = tu_get(run, TU_RUN_BUDGET);
	PyObject *events = tu_get(run, TU_RUN_EVENTS_OF_TICK);

	return !budget || (PyObject_IsTrue(budget) && (!events || PyLong_AsLong(events) <= TU_FEW_EVENTS));
}

/* Whether a task is in `wait_writable` on this descriptor, or that cannot be told. */
static bool has_writer(PyObject *run, PyObject *fd)
{
	PyObject *writers = tu_table(run, TU_WRITE);

	return !fd || !writers || PyDict_Contains(writers, fd);
}

/* Whether the socket's sending side was shut down, or that cannot be told. */
static bool is_shut_down(PyObject *socket)
{
	PyObject *value = tu_look_up(socket, tu_names.shut_down);

	Py_XDECREF(value);
	return value != Py_False;
}

/* Enters the stream's conflict detector; false if another task is in it, or with an exception. */
static bool hold_detector(struct sending *sending, PyObject *stream)
{
	PyObject *held;

	sending->detector = tu_look_up(stream, tu_names.send_conflict_detector);
	held = sending->detector ? tu_look_up(sending->detector, tu_names.held) : NULL;
	Py_XDECREF(held);
	return held == Py_False && PyObject_SetAttr(sending->detector, tu_names.held, Py_True) == 0;
}

/* Leaves the conflict detector. An exception that is set stays set. */
static void let_go_of_detector(const struct sending *sending)
{
	PyObject *type;
	PyObject *value;
	PyObject *traceback;

	PyErr_Fetch(&type, &value, &traceback);
	if (PyObject_SetAttr(sending->detector, tu_names.held, Py_False) < 0)
		PyErr_Clear();
	PyErr_Restore(type, value, traceback);
}

/* Submits a send of bytes, and enters its sender in the run's operations. Returns the slot as an int
 * object; NULL if nothing was submitted, or with an exception. */
static PyObject *submit_bytes(tu_core *core, const struct sending *sending, PyObject *fd, PyObject *data)
{
	int slot = core->calls->send(core, (int)PyLong_AsLong(fd), PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data),
				 true);
	PyObject *number;

	if (slot < 0)
		return NULL;
	number = PyLong_FromLong(slot);
	if (number && PyDict_SetItem(tu_table(sending->run, TU_OPERATION), number, sending->sender) == 0)
		return number;
	Py_XDECREF(number);
	core->calls->cancel(core, slot); /* succeeds, since the kernel has not seen it */
	return NULL;
}

/* Does what `Sender.submit` does, for bytes; false if nothing was submitted. */
static bool submit(const struct call *call, const struct sending *sending, tu_core *core, PyObject *data)
{
	PyObject *slot = submit_bytes(core, sending, tu_get(call->connection, TU_SOCKET_FD), data);

	if (!slot)
		return false;
	tu_set(sending->sender, TU_OPERATION_HELD, data);
	tu_set(sending->sender, TU_OPERATION_OWNER, call->connection);
	tu_set(sending->sender, TU_OPERATION_TASK, call->task);
	tu_set(sending->sender, TU_OPERATION_SLOT, slot);
	Py_DECREF(slot);
	return true;
}

/* Submits all of `data` for the calling task; false if it has done nothing, or with an exception. */
static bool start_send(const struct call *call, struct sending *sending, PyObject *stream, PyObject *data)
{
	tu_core *core;

	if (!PyBytes_CheckExact(data) || !PyBytes_GET_SIZE(data) || !find_run_and_sender(call, sending) ||
	    !tu_table(sending->run, TU_OPERATION) || sends_at_once(sending->run) ||
	    has_writer(sending->run, tu_get(call->connection, TU_SOCKET_FD)) || is_shut_down(call->socket) ||
	    !hold_detector(sending, stream))
		return false;
	core = tu_core_with_room(sending->run);
	/* Python may have run meanwhile and closed the connection, which then has no sender. */
	if (core && tu_get(call->connection, TU_CONNECTION_SENDER) == sending->sender &&
	    submit(call, sending, core, data))
		return true;
	let_go_of_detector(sending);
	return false;
}

PyObject *tu_start_send(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t number)
{
	struct sending sending = { 0 };
	struct call call;
	bool done;

	if (number != 2) {
		PyErr_SetString(PyExc_TypeError, "start_send() takes a stream and data");
		return NULL;
	}
	done = begin(&call, arguments[0]) && is_ours(call.socket, tu_names.send, our_send) &&
	       start_send(&call, &sending, arguments[0], arguments[1]);
	Py_XDECREF(sending.run);
	Py_XDECREF(sending.sender);
	Py_XDECREF(sending.detector);
	return end(&call, done);
}
