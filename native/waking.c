/* The module trio_uring._waking: wakes the tasks that a tick's events are about.
 *
 * The events that a busy program has by the thousand are taken here, each as the same lines of
 * Python would take it, which were a tenth of a server's time for an echo. All others are left
 * to Python, one call each, in their order.
 *
 * A task is woken as by Trio's `Runner.reschedule`, whose names the caller has compared.
 *
 * Attributes are read and written where they are, by the offsets that `learn` finds: by name
 * they cost as much as the Python did. An object of another class than was learnt is left.
 *
 * Not a part of the core, which knows nothing of Python: here the GIL is held throughout, so
 * that no signal handler and no other thread comes between. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include "operations.h"

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

static PyTypeObject *task_class;
static PyTypeObject *operation_class;
static PyTypeObject *connection_class;

/* Of slots, in bytes. */
static struct {
	Py_ssize_t abort_func;
	Py_ssize_t coro;
	Py_ssize_t custom_sleep_data;
	Py_ssize_t next_send;
	Py_ssize_t next_send_fn;
} task_offsets;
static struct {
	Py_ssize_t result;
	Py_ssize_t task;
} operation_offsets;
static struct {
	Py_ssize_t length;
	Py_ssize_t task;
} connection_offsets;

static PyObject *send_name;

/* A borrowed reference; NULL if it was never set. */
static PyObject *get(PyObject *object, Py_ssize_t offset)
{
	return *(PyObject **)((char *)object + offset);
}

static void set(PyObject *object, Py_ssize_t offset, PyObject *value)
{
	PyObject **slot = (PyObject **)((char *)object + offset);
	PyObject *old = *slot;

	Py_INCREF(value);
	*slot = value;
	Py_XDECREF(old);
}

static int wake_task(const struct tick *tick, PyObject *task, PyObject *answer)
{
	PyObject *coro = get(task, task_offsets.coro);
	PyObject *send;
	PyObject *appended;

	if (get(task, task_offsets.next_send_fn) != Py_None) {
		PyErr_Format(PyExc_AssertionError, "%R is woken twice", task);
		return FAILED;
	}
	send = PyObject_GetAttr(coro, send_name);
	if (!send)
		return FAILED;
	set(task, task_offsets.next_send_fn, send);
	set(task, task_offsets.next_send, answer);
	set(task, task_offsets.abort_func, Py_None);
	set(task, task_offsets.custom_sleep_data, Py_None);
	Py_DECREF(send);
	appended = PyObject_CallOneArg(tick->append, task);
	Py_XDECREF(appended);
	return appended ? TAKEN : FAILED;
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

static int nothing_found(void)
{
	return PyErr_Occurred() ? FAILED : LEFT;
}

static int take_readiness(const struct tick *tick, const tu_event *event, PyObject *key, PyObject *task)
{
	if (event->result < 0 || Py_TYPE(task) != task_class)
		return LEFT;
	return forget(tick, event, key) < 0 ? FAILED : wake_task(tick, task, tick->ready);
}

/* The task that an operation or a connection has, a new reference; NULL if it has none. */
static PyObject *task_of(PyObject *object, Py_ssize_t offset)
{
	PyObject *task = get(object, offset);

	if (!task || Py_TYPE(task) != task_class)
		return NULL;
	Py_INCREF(task);
	return task;
}

static int take_result(const struct tick *tick, const tu_event *event, PyObject *key, PyObject *operation)
{
	PyObject *task;
	PyObject *result;
	int outcome = FAILED;

	if (!PyObject_TypeCheck(operation, operation_class))
		return LEFT;
	task = task_of(operation, operation_offsets.task);
	if (!task)
		return LEFT;
	result = PyLong_FromLong(event->result);
	if (result && forget(tick, event, key) == 0) {
		set(operation, operation_offsets.result, result);
		outcome = wake_task(tick, task, tick->ready);
	}
	Py_XDECREF(result);
	Py_DECREF(task);
	return outcome;
}

static bool wants(PyObject *connection, int32_t length)
{
	PyObject *most = get(connection, connection_offsets.length);

	return most && PyLong_CheckExact(most) && PyLong_AsLong(most) >= length;
}

/* Only of a receive that goes on: what its end means is for Python. */
static int take_data(const struct tick *tick, const tu_event *event, PyObject *connection)
{
	Py_ssize_t start = ((event->detail >> 1) - 1) * tick->buffer_size;
	PyObject *task;
	PyObject *data;
	int outcome = FAILED;

	if (event->result <= 0 || !(event->detail & 1) || Py_TYPE(connection) != connection_class ||
	    !wants(connection, event->result) || start < 0 || start + event->result > tick->memory.len)
		return LEFT;
	task = task_of(connection, connection_offsets.task);
	if (!task)
		return LEFT;
	data = PyBytes_FromStringAndSize((const char *)tick->memory.buf + start, event->result);
	if (data) {
		set(connection, connection_offsets.task, Py_None);
		outcome = wake_task(tick, task, data);
		Py_DECREF(data);
	}
	Py_DECREF(task);
	return outcome;
}

static int take(const struct tick *tick, const tu_event *event)
{
	PyObject *key;
	PyObject *found;
	int outcome;

	if (event->kind < TU_READ || event->kind > TU_RECEIVE)
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

static int leave(const struct tick *tick, const tu_event *event)
{
	PyObject *done =
		PyObject_CallFunction(tick->other, "iiii", event->kind, event->key, event->result, event->detail);

	Py_XDECREF(done);
	return done ? 0 : -1;
}

static int process(const struct tick *tick, Py_ssize_t count)
{
	const tu_event *event = tick->events.buf;

	for (; count > 0; count--, event++) {
		int outcome = take(tick, event);

		if (outcome == FAILED || (outcome == LEFT && leave(tick, event) < 0))
			return -1;
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
	tick->append = arguments[6];
	tick->other = arguments[7];
	if (PyErr_Occurred() || PyObject_GetBuffer(arguments[0], &tick->events, PyBUF_SIMPLE) < 0)
		return -1;
	if (*count > tick->events.len / (Py_ssize_t)sizeof(tu_event))
		PyErr_Format(PyExc_IndexError, "there are no %zd events", *count);
	else if (PyObject_GetBuffer(arguments[2], &tick->memory, PyBUF_SIMPLE) == 0)
		return 0;
	PyBuffer_Release(&tick->events);
	return -1;
}

PyDoc_STRVAR(wake_doc, "wake($module, events, count, memory, buffer_size, waiting, ready, append, other, /)\n--\n\n");

static PyObject *wake(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t number)
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

struct slot {
	PyObject *owner;
	const char *name;
	Py_ssize_t *offset;
};

static int find_slot(const struct slot *slot)
{
	PyObject *descriptor = PyObject_GetAttrString(slot->owner, slot->name);
	PyMemberDef *member;
	int found = 0;

	if (!descriptor) {
		PyErr_Clear();
		return 0;
	}
	if (Py_IS_TYPE(descriptor, &PyMemberDescr_Type)) {
		member = ((PyMemberDescrObject *)descriptor)->d_member;
		*slot->offset = member->offset;
		found = member->type == T_OBJECT_EX;
	}
	Py_DECREF(descriptor);
	return found;
}

static void keep_class(PyTypeObject **class, PyObject *value)
{
	Py_INCREF(value);
	Py_XDECREF(*class);
	*class = (PyTypeObject *)value;
}

PyDoc_STRVAR(learn_doc, "learn($module, task_class, operation_class, connection_class, /)\n--\n\n");

static PyObject *learn(PyObject *Py_UNUSED(module), PyObject *arguments)
{
	PyObject *task;
	PyObject *operation;
	PyObject *connection;

	if (!PyArg_ParseTuple(arguments, "O!O!O!:learn", &PyType_Type, &task, &PyType_Type, &operation, &PyType_Type,
			      &connection))
		return NULL;
	{
		const struct slot slots[] = {
			{ task, "_abort_func", &task_offsets.abort_func },
			{ task, "coro", &task_offsets.coro },
			{ task, "custom_sleep_data", &task_offsets.custom_sleep_data },
			{ task, "_next_send", &task_offsets.next_send },
			{ task, "_next_send_fn", &task_offsets.next_send_fn },
			{ operation, "result", &operation_offsets.result },
			{ operation, "task", &operation_offsets.task },
			{ connection, "length", &connection_offsets.length },
			{ connection, "task", &connection_offsets.task },
		};

		for (size_t index = 0; index < sizeof(slots) / sizeof(slots[0]); index++)
			if (!find_slot(&slots[index]))
				Py_RETURN_FALSE;
	}
	keep_class(&task_class, task);
	keep_class(&operation_class, operation);
	keep_class(&connection_class, connection);
	Py_RETURN_TRUE;
}

static PyMethodDef functions[] = {
	{ "learn", learn, METH_VARARGS, learn_doc },
	{ "wake", (PyCFunction)(void (*)(void))wake, METH_FASTCALL, wake_doc },
	{ NULL, NULL, 0, NULL },
};

static struct PyModuleDef definition = {
	.m_base = PyModuleDef_HEAD_INIT,
	.m_name = "trio_uring._waking",
	.m_size = -1,
	.m_methods = functions,
};

PyMODINIT_FUNC PyInit__waking(void)
{
	send_name = PyUnicode_InternFromString("send");
	return send_name ? PyModule_Create(&definition) : NULL;
}
