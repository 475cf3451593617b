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

#define KINDS (TU_RECEIVE - TU_READ + 1)

/* What `wake` is called with. */
struct tick {
	Py_buffer events;
	Py_buffer memory;
	Py_ssize_t buffer_size;
	PyObject *waiting;
	PyObject *ready;
	PyObject *append;
	PyObject *other;
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

/* The value of a key, a new reference; NULL if there is none, or with an exception. */
static PyObject *find(const struct tick *tick, const tu_event *event, PyObject *key)
{
	PyObject *found = PyDict_GetItemWithError(PyTuple_GET_ITEM(tick->waiting, event->kind - TU_READ), key);

	Py_XINCREF(found);
	return found;
}

static int forget(const struct tick *tick, const tu_event *event, PyObject *key)
{
	return PyDict_DelItem(PyTuple_GET_ITEM(tick->waiting, event->kind - TU_READ), key);
}

static int take_readiness(const struct tick *tick, const tu_event *event, PyObject *key, PyObject *task)
{
	PyObject *send;

	if (event->result < 0 || Py_TYPE(task) != tu_known.task)
		return LEFT;
	if (queue(tick, task, &send) < 0 || forget(tick, event, key) < 0)
		return FAILED;
	return wake_queued(task, send, tick->ready);
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
	return PyBool_FromLong(Py_TYPE(arguments[0]) != tu_known.task || sleeps_on(arguments[0], arguments[1]));
}

/* The task that an operation or a connection has, a new reference; NULL if it has none. An exception
 * may have kept it from falling asleep: then nobody waits. */
static PyObject *task_of(PyObject *object, enum tu_slot slot)
{
	PyObject *task = tu_get(object, slot);

	if (!task || Py_TYPE(task) != tu_known.task)
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

	if (!PyObject_TypeCheck(operation, tu_known.operation))
		return LEFT;
	task = task_of(operation, TU_OPERATION_TASK);
	if (!task)
		return LEFT;
	result = PyLong_FromLong(event->result);
	if (result && queue(tick, task, &send) == 0 && forget(tick, event, key) == 0) {
		tu_set(operation, TU_OPERATION_RESULT, result);
		outcome = wake_queued(task, send, tick->ready);
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
static int take_data(const struct tick *tick, const tu_event *event, PyObject *connection)
{
	Py_ssize_t start = ((event->detail >> 1) - 1) * tick->buffer_size;
	PyObject *task;
	PyObject *data;
	PyObject *send;
	int outcome = FAILED;

	if (event->result <= 0 || !(event->detail & 1) || Py_TYPE(connection) != tu_known.connection ||
	    !wants(connection, event->result) || start < 0 || start + event->result > tick->memory.len)
		return LEFT;
	task = task_of(connection, TU_ARMED_WAITER);
	if (!task)
		return LEFT;
	data = PyBytes_FromStringAndSize((const char *)tick->memory.buf + start, event->result);
	if (data && queue(tick, task, &send) == 0) {
		tu_set(connection, TU_ARMED_WAITER, Py_None);
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

static PyObject *arguments_of(const tu_event *event)
{
	return Py_BuildValue("iiii", event->kind, event->key, event->result, event->detail);
}

static int leave(const struct tick *tick, tu_event *event)
{
	PyObject *arguments = arguments_of(event);
	PyObject *done;

	if (!arguments) {
		PyErr_Clear();
		arguments = arguments_of(event);
	}
	if (!arguments)
		return -1;
	event->kind = TU_NOTHING;
	done = PyObject_CallObject(tick->other, arguments);
	Py_DECREF(arguments);
	Py_XDECREF(done);
	return done ? 0 : -1;
}

static int process(const struct tick *tick, Py_ssize_t count)
{
	tu_event *event = tick->events.buf;

	for (; count > 0; count--, event++) {
		int outcome = event->kind == TU_NOTHING ? TAKEN : take_again(tick, event);

		if (outcome == FAILED || (outcome == LEFT && leave(tick, event) < 0))
			return -1;
		event->kind = TU_NOTHING;
	}
	return 0;
}

static int prepare(struct tick *tick, Py_ssize_t *count, PyObject *const *arguments, Py_ssize_t number)
{
	if (number != 8 || !PyTuple_Check(arguments[4]) || PyTuple_GET_SIZE(arguments[4]) != KINDS) {
		PyErr_SetString(PyExc_TypeError, "wake() takes other arguments");
		return -1;
	}
	*count = PyLong_AsSsize_t(arguments[1]);
	tick->buffer_size = PyLong_AsSsize_t(arguments[3]);
	tick->waiting = arguments[4];
	tick->ready = arguments[5];
	tick->append = tu_known.task ? arguments[6] : Py_None;
	tick->other = arguments[7];
	if (PyErr_Occurred() || PyObject_GetBuffer(arguments[0], &tick->events, PyBUF_WRITABLE) < 0)
		return -1;
	if (*count > tick->events.len / (Py_ssize_t)sizeof(tu_event))
		PyErr_Format(PyExc_IndexError, "there are no %zd events", *count);
	else if (PyObject_GetBuffer(arguments[2], &tick->memory, PyBUF_SIMPLE) == 0)
		return 0;
	PyBuffer_Release(&tick->events);
	return -1;
}

PyObject *tu_wake(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t number)
{
	struct tick tick;
	Py_ssize_t count;
	int failed;

	if (prepare(&tick, &count, arguments, number) < 0)
		return NULL;
	failed = process(&tick, count);
	PyBuffer_Release(&tick.memory);
	PyBuffer_Release(&tick.events);
	if (failed)
		return NULL;
	Py_RETURN_NONE;
}
