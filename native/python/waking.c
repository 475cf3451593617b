/* Wakes the tasks that a tick's events are about.
 *
 * The events that a busy program has by the thousand are taken here, each as the same lines of
 * Python would take it, in a quarter of the time. All others are left to Python, one call each,
 * in their order.
 *
 * A task is woken as by Trio's `Runner.reschedule`, whose names the caller has compared.
 *
 * Whatever fails, no event is lost. One that is taken, or handed to Python, becomes TU_NOTHING; the
 * caller may come again with the others. To take one, all memory that it needs is got first: what
 * follows cannot fail. So where there was none, it is taken once more. */
#include "operations.h"
#include "tasks.h"

#define TAKEN 1
#define LEFT 0
#define FAILED (-1)

/* What `wake` is called with. */
struct tick {
	PyObject *run;
	PyObject *append; /* None: all events are for Python */
	const tu_core *core;
};

/* Puts a task into the runner's queue, and gets what it is woken with; 0 or -1. */
static int queue(const struct tick *tick, PyObject *task, PyObject **send)
{
	PyObject *appended;

	if (tu_get(task, TU_TASK_NEXT_SEND_FN) != Py_None) {
		PyErr_Format(PyExc_AssertionError, "%R is woken twice", task);
		return -1;
	}
	*send = PyObject_GetAttr(tu_get(task, TU_TASK_CORO), tu_names.send);
	if (!*send)
		return -1;
	appended = PyObject_CallOneArg(tick->append, task);
	if (!appended)
		Py_CLEAR(*send);
	Py_XDECREF(appended);
	return appended ? 0 : -1;
}

static int wake_queued(PyObject *task, PyObject *send, PyObject *answer)
{
	tu_set(task, TU_TASK_NEXT_SEND_FN, send);
	tu_set(task, TU_TASK_NEXT_SEND, answer);
	tu_set(task, TU_TASK_ABORT_FUNC, Py_None);
	tu_set(task, TU_TASK_CUSTOM_SLEEP_DATA, Py_None);
	Py_DECREF(send);
	return TAKEN;
}

/* What waits for an event, a new reference; NULL if nothing does, or with an exception. */
static PyObject *find(const struct tick *tick, const tu_event *event, PyObject *key)
{
	PyObject *table = tu_table(tick->run, event->kind);
	PyObject *found = table ? PyDict_GetItemWithError(table, key) : NULL;

	Py_XINCREF(found);
	return found;
}

static int forget(const struct tick *tick, const tu_event *event, PyObject *key)
{
	PyObject *table = tu_table(tick->run, event->kind);

	return table ? PyDict_DelItem(table, key) : 0;
}

static int take_readiness(const struct tick *tick, const tu_event *event, PyObject *key, PyObject *task)
{
	PyObject *send;

	if (event->result < 0 || !tu_is_plain(task, TU_TASK))
		return LEFT;
	if (queue(tick, task, &send) < 0 || forget(tick, event, key) < 0)
		return FAILED;
	return wake_queued(task, send, tu_known.ready);
}

/* Whether a task sleeps until this object wakes it: its abort function is a method of the object's.
 * While a cancelled task waits for the kernel's answer Trio keeps none; one that is over does not wait. */
static bool sleeps_on(PyObject *task, PyObject *object)
{
	PyObject *abort = tu_get(task, TU_TASK_ABORT_FUNC);
	PyObject *awaited;

	if (abort != Py_None)
		return PyMethod_Check(abort) && PyMethod_GET_SELF(abort) == object;
	awaited = PyObject_GetAttr(tu_get(task, TU_TASK_CORO), tu_names.cr_await);
	if (!awaited)
		PyErr_Clear(); /* no coroutine of Python's */
	Py_XDECREF(awaited);
	return awaited != Py_None;
}

PyObject *tu_sleeps_on(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t number)
{
	if (number != 2) {
		PyErr_SetString(PyExc_TypeError, "sleeps_on() takes a task and an object");
		return NULL;
	}
	return PyBool_FromLong(!tu_is_plain(arguments[0], TU_TASK) || sleeps_on(arguments[0], arguments[1]));
}

/* The task that an operation or a connection has, a new reference; NULL if it has none. An exception
 * may have kept it from falling asleep: then nobody waits. */
static PyObject *task_of(PyObject *object, enum tu_slot slot)
{
	PyObject *task = tu_get(object, slot);

	if (!task || !tu_is_plain(task, TU_TASK))
		return NULL;
	if (!sleeps_on(task, object)) {
		tu_set(object, slot, Py_None);
		return NULL;
	}
	Py_INCREF(task);
	return task;
}

static int take_result(const struct tick *tick, const tu_event *event, PyObject *key, PyObject *operation)
{
	PyObject *task;
	PyObject *result;
	PyObject *send;
	int outcome = FAILED;

	if (!tu_is(operation, TU_RUN_OPERATION))
		return LEFT;
	task = task_of(operation, TU_OPERATION_TASK);
	if (!task)
		return LEFT;
	result = PyLong_FromLong(event->result);
	if (result && queue(tick, task, &send) == 0 && forget(tick, event, key) == 0) {
		tu_set(operation, TU_OPERATION_RESULT, result);
		outcome = wake_queued(task, send, tu_known.ready);
	}
	Py_XDECREF(result);
	Py_DECREF(task);
	return outcome;
}

static bool wants(PyObject *connection, int32_t length)
{
	PyObject *most = tu_get(connection, TU_CONNECTION_LENGTH);

	return most && PyLong_CheckExact(most) && PyLong_AsLong(most) >= length;
}

/* Only of a receive that goes on: what its end means is for Python. */
static bool is_data_wanted(const struct tick *tick, const tu_event *event, PyObject *connection)
{
	return event->result > 0 && event->more && event->buffer >= 0 && tu_is_plain(connection, TU_CONNECTION) &&
	       wants(connection, event->result) && (uint32_t)event->result <= tick->core->buffers.size;
}

static int take_data(const struct tick *tick, const tu_event *event, PyObject *connection)
{
	const struct tu_buffers *buffers = &tick->core->buffers;
	PyObject *task;
	PyObject *data;
	PyObject *send;
	int outcome = FAILED;

	if (!is_data_wanted(tick, event, connection))
		return LEFT;
	task = task_of(connection, TU_SOCKET_WAITER);
	if (!task)
		return LEFT;
	data = PyBytes_FromStringAndSize((const char *)tu_buffers_data(buffers, event->buffer), event->result);
	if (data && queue(tick, task, &send) == 0) {
		tu_set(connection, TU_SOCKET_WAITER, Py_None);
		outcome = wake_queued(task, send, data);
	}
	Py_XDECREF(data);
	Py_DECREF(task);
	return outcome;
}

static int take(const struct tick *tick, const tu_event *event)
{
	PyObject *key;
	PyObject *found;
	int outcome;

	if (tick->append == Py_None || event->kind < TU_READ || event->kind > TU_RECEIVE)
		return LEFT;
	key = PyLong_FromLong(event->key);
	if (!key)
		return FAILED;
	found = find(tick, event, key);
	if (!found)
		outcome = PyErr_Occurred() ? FAILED : LEFT;
	else if (event->kind == TU_OPERATION)
		outcome = take_result(tick, event, key, found);
	else if (event->kind == TU_RECEIVE)
		outcome = take_data(tick, event, found);
	else
		outcome = take_readiness(tick, event, key, found);
	Py_XDECREF(found);
	Py_DECREF(key);
	return outcome;
}

static int take_again(const struct tick *tick, const tu_event *event)
{
	int outcome = take(tick, event);

	if (outcome == FAILED && PyErr_ExceptionMatches(PyExc_MemoryError)) {
		PyErr_Clear();
		outcome = take(tick, event);
	}
	return outcome;
}

/* The handler of the events of a kind, borrowed; NULL with an exception. */
static PyObject *handler_of(const struct tick *tick, int kind)
{
	PyObject *handlers = tu_get(tick->run, TU_RUN_HANDLERS);

	if (handlers && PyTuple_CheckExact(handlers) && kind > TU_NOTHING && kind < PyTuple_GET_SIZE(handlers))
		return PyTuple_GET_ITEM(handlers, kind);
	PyErr_Format(PyExc_SystemError, "there is no handler for events of kind %d", kind);
	return NULL;
}

static PyObject *arguments_of(const tu_event *event)
{
	return Py_BuildValue("iiOi", event->key, event->result, event->more ? Py_True : Py_False, event->buffer);
}

static int leave(const struct tick *tick, tu_event *event)
{
	PyObject *handler = handler_of(tick, event->kind);
	PyObject *arguments = handler ? arguments_of(event) : NULL;
	PyObject *done;

	if (handler && !arguments) {
		PyErr_Clear();
		arguments = arguments_of(event);
	}
	if (!arguments)
		return -1;
	event->kind = TU_NOTHING;
	Py_INCREF(handler);
	done = PyObject_CallObject(handler, arguments);
	Py_DECREF(handler);
	Py_DECREF(arguments);
	Py_XDECREF(done);
	return done ? 0 : -1;
}

static int process(const struct tick *tick, uint32_t count)
{
	tu_event *event = tick->core->events;

	for (; count > 0; count--, event++) {
		int outcome = event->kind == TU_NOTHING ? TAKEN : take_again(tick, event);

		if (outcome == FAILED || (outcome == LEFT && leave(tick, event) < 0))
			return -1;
		event->kind = TU_NOTHING;
	}
	return 0;
}

PyObject *tu_wake(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t number)
{
	struct tick tick;
	Py_ssize_t count;

	if (number != 3) {
		PyErr_SetString(PyExc_TypeError, "wake() takes a run, a number of events and a function");
		return NULL;
	}
	tick.run = arguments[0];
	tick.append = tu_known.classes[TU_TASK] ? arguments[2] : Py_None;
	tick.core = tu_core_of(tick.run);
	count = PyLong_AsSsize_t(arguments[1]);
	if (!tick.core || PyErr_Occurred())
		return NULL;
	if (count < 0 || count > tick.core->events_capacity)
		return PyErr_Format(PyExc_IndexError, "there are no %zd events", count);
	if (process(&tick, (uint32_t)count) < 0)
		return NULL;
	Py_RETURN_NONE;
}
