/* Wakes the tasks that a tick's events are for.
 *
 * The kinds of events that a busy program has by the thousand are processed here, as the handlers in
 * Python would process them, in a quarter of the time. Every other event goes to the Python handler of
 * its kind, one call each, in the order of the events.
 *
 * A task is woken as Trio's `Runner.reschedule` does it. Whether that is the one we know, the manager
 * has found out before (`knows_reschedule` in loop/trio_internals.py).
 *
 * Whatever fails, no event is lost. An event that was processed, or given to its handler, becomes
 * TU_NOTHING; after an exception `wake` may be called again for the others. All memory that an event
 * needs is allocated before anything is changed, so that a failed attempt can be repeated. */
#include "operations.h"
#include "tasks.h"

#define TAKEN 1
#define LEFT 0
#define FAILED (-1)

/* The arguments of `wake`, and the run's core. */
struct tick {
	PyObject *run;
	PyObject *append; /* None: all events are for Python */
	const tu_core *core;
};

/* Puts a task into the runner's queue, and gets the `send` of its coroutine for `wake_queued`; 0, or -1
 * with an exception. */
static int queue_task(const struct tick *tick, PyObject *task, PyObject **send)
{
	PyObject *coro = tu_get(task, TU_TASK_CORO);
	PyObject *appended;

	if (!coro || tu_get(task, TU_TASK_NEXT_SEND_FN) != Py_None) {
		PyErr_Format(PyExc_AssertionError, "%R is woken twice", task);
		return -1;
	}
	*send = PyObject_GetAttr(coro, tu_names.send);
	if (!*send)
		return -1;
	appended = PyObject_CallOneArg(tick->append, task);
	if (!appended)
		Py_CLEAR(*send);
	Py_XDECREF(appended);
	return appended ? 0 : -1;
}

/* Wakes a task that is in the queue, with `answer`. Cannot fail. Takes the reference to `send`. */
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

/* Takes what waits for an event out of its table; 0, or -1 with an exception. */
static int forget(const struct tick *tick, const tu_event *event, PyObject *key)
{
	PyObject *table = tu_table(tick->run, event->kind);

	return table ? PyDict_DelItem(table, key) : 0;
}

/* An event of `wait_readable` or `wait_writable`. */
static int take_readiness(const struct tick *tick, const tu_event *event, PyObject *key, PyObject *task)
{
	PyObject *send;

	if (event->result < 0 || !tu_is_exactly(task, TU_CLASS_TASK))
		return LEFT;
	if (queue_task(tick, task, &send) < 0 || forget(tick, event, key) < 0)
		return FAILED;
	return wake_queued(task, send, tu_learnt.ready);
}

/* Whether a task sleeps until this object wakes it: its abort function is then a method of the object.
 * Once a task was cancelled, Trio keeps no abort function. Such a task still sleeps, until the kernel's
 * answer is in, unless its coroutine is over. Nor has one an abort function that is in the queue already:
 * it yields only. */
static bool sleeps_on(PyObject *task, PyObject *object)
{
	PyObject *abort = tu_get(task, TU_TASK_ABORT_FUNC);
	PyObject *coro = tu_get(task, TU_TASK_CORO);
	PyObject *awaited;

	if (abort != Py_None)
		return abort && PyMethod_Check(abort) && PyMethod_GET_SELF(abort) == object;
	if (!coro || tu_get(task, TU_TASK_NEXT_SEND_FN) != Py_None)
		return false;
	awaited = PyObject_GetAttr(coro, tu_names.cr_await);
	if (!awaited)
		PyErr_Clear(); /* it is not a coroutine of Python's */
	Py_XDECREF(awaited);
	return awaited != Py_None;
}

PyObject *tu_sleeps_on(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t number)
{
	if (number != 2) {
		PyErr_SetString(PyExc_TypeError, "sleeps_on() takes a task and an object");
		return NULL;
	}
	return PyBool_FromLong(!tu_is_exactly(arguments[0], TU_CLASS_TASK) || sleeps_on(arguments[0], arguments[1]));
}

/* The task in an attribute of an operation or a connection, a new reference; NULL if there is none. A
 * task that an exception kept from falling asleep is taken out of the attribute. */
static PyObject *take_sleeper(PyObject *object, enum tu_attribute attribute)
{
	PyObject *task = tu_get(object, attribute);

	if (!task || !tu_is_exactly(task, TU_CLASS_TASK))
		return NULL;
	if (!sleeps_on(task, object)) {
		tu_set(object, attribute, Py_None);
		return NULL;
	}
	Py_INCREF(task);
	return task;
}

/* An event of an operation that a task waits for. */
static int take_result(const struct tick *tick, const tu_event *event, PyObject *key, PyObject *operation)
{
	PyObject *task;
	PyObject *result;
	PyObject *send;
	int outcome = FAILED;

	if (!tu_is(operation, TU_CLASS_OPERATION))
		return LEFT;
	task = take_sleeper(operation, TU_OPERATION_TASK);
	if (!task)
		return LEFT;
	result = PyLong_FromLong(event->result);
	if (result && queue_task(tick, task, &send) == 0 && forget(tick, event, key) == 0) {
		tu_set(operation, TU_OPERATION_RESULT, result);
		outcome = wake_queued(task, send, tu_learnt.ready);
	}
	Py_XDECREF(result);
	Py_DECREF(task);
	return outcome;
}

/* Whether the connection's task has asked for that many bytes or more. */
static bool wants(PyObject *connection, int32_t length)
{
	PyObject *most = tu_get(connection, TU_CONNECTION_LENGTH);

	return most && PyLong_CheckExact(most) && PyLong_AsLong(most) >= length;
}

/* Whether an event's data can go to the connection's task as they are. The last event of a receive
 * cannot: what it means is for Python to find out. */
static bool is_data_wanted(const struct tick *tick, const tu_event *event, PyObject *connection)
{
	return event->result > 0 && event->more && event->buffer >= 0 && tu_is_exactly(connection, TU_CLASS_CONNECTION) &&
	       wants(connection, event->result) && (uint32_t)event->result <= tick->core->buffers.size;
}

/* An event of a receive. */
static int take_data(const struct tick *tick, const tu_event *event, PyObject *connection)
{
	const struct tu_buffers *buffers = &tick->core->buffers;
	PyObject *task;
	PyObject *data;
	PyObject *send;
	int outcome = FAILED;

	if (!is_data_wanted(tick, event, connection))
		return LEFT;
	task = take_sleeper(connection, TU_SOCKET_WAITER);
	if (!task)
		return LEFT;
	data = PyBytes_FromStringAndSize((const char *)tu_buffers_data(buffers, event->buffer), event->result);
	if (data && queue_task(tick, task, &send) == 0) {
		tu_set(connection, TU_SOCKET_WAITER, Py_None);
		outcome = wake_queued(task, send, data);
	}
	Py_XDECREF(data);
	Py_DECREF(task);
	return outcome;
}

/* Processes an event: TAKEN, LEFT to Python with nothing changed, or FAILED with an exception. */
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

/* The same; if there was no memory, it is tried once more. */
static int take_patiently(const struct tick *tick, const tu_event *event)
{
	int outcome = take(tick, event);

	if (outcome == FAILED && PyErr_ExceptionMatches(PyExc_MemoryError)) {
		PyErr_Clear();
		outcome = take(tick, event);
	}
	return outcome;
}

/* The Python handler of the events of a kind, borrowed; NULL with an exception. */
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

/* Gives an event to the Python handler of its kind; 0, or -1 with an exception. */
static int leave_to_python(const struct tick *tick, tu_event *event)
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

/* Processes the first `count` events; 0, or -1 with an exception. */
static int process(const struct tick *tick, uint32_t count)
{
	tu_event *event = tick->core->events;

	for (; count > 0; count--, event++) {
		int outcome = event->kind == TU_NOTHING ? TAKEN : take_patiently(tick, event);

		if (outcome == FAILED || (outcome == LEFT && leave_to_python(tick, event) < 0))
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
	tick.append = tu_learnt.classes[TU_CLASS_TASK] ? arguments[2] : Py_None;
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
