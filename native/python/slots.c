#include "slots.h"

#include <structmember.h>

struct tu_known tu_known;

static const char *const names[TU_SLOTS] = {
	[TU_TASK_ABORT_FUNC] = "_abort_func",
	[TU_TASK_CORO] = "coro",
	[TU_TASK_CUSTOM_SLEEP_DATA] = "custom_sleep_data",
	[TU_TASK_NEXT_SEND] = "_next_send",
	[TU_TASK_NEXT_SEND_FN] = "_next_send_fn",
	[TU_TASK_RUNNER] = "_runner",
	[TU_RUN_BUDGET] = "budget",
	[TU_RUN_CAPSULE] = "capsule",
	[TU_RUN_EVENTS_OF_TICK] = "events_of_tick",
	[TU_RUN_HANDLERS] = "handlers",
	[TU_RUN_TABLES] = "tables",
	[TU_OPERATION_HELD] = "held",
	[TU_OPERATION_OWNER] = "owner",
	[TU_OPERATION_RESULT] = "result",
	[TU_OPERATION_SLOT] = "slot",
	[TU_OPERATION_TASK] = "task",
	[TU_SOCKET_FD] = "fd",
	[TU_SOCKET_RUN] = "run",
	[TU_SOCKET_SOCK] = "sock",
	[TU_SOCKET_STATE] = "state",
	[TU_SOCKET_WAITER] = "waiter",
	[TU_CONNECTION_BYTES_AHEAD] = "bytes_ahead",
	[TU_CONNECTION_LENGTH] = "length",
	[TU_CONNECTION_RUNNER] = "runner",
	[TU_CONNECTION_SENDER] = "sender",
};

static const struct {
	const char *name;
	enum tu_slot first;
	enum tu_slot last;
} classes[TU_CLASSES] = {
	[TU_TASK] = { "task", TU_TASK_ABORT_FUNC, TU_TASK_RUNNER },
	[TU_RUN] = { "run", TU_RUN_BUDGET, TU_RUN_TABLES },
	[TU_RUN_OPERATION] = { "operation", TU_OPERATION_HELD, TU_OPERATION_TASK },
	[TU_RUN_SOCKET] = { "socket", TU_SOCKET_FD, TU_SOCKET_WAITER },
	[TU_CONNECTION] = { "connection", TU_CONNECTION_BYTES_AHEAD, TU_CONNECTION_SENDER },
};

/* The names of the slots that are read of a class, a new tuple. */
static PyObject *slots_of(enum tu_class class)
{
	PyObject *slots = PyTuple_New(classes[class].last - classes[class].first + 1);

	for (Py_ssize_t index = 0; slots && index < PyTuple_GET_SIZE(slots); index++) {
		PyObject *name = PyUnicode_FromString(names[classes[class].first + index]);

		if (name)
			PyTuple_SET_ITEM(slots, index, name);
		else
			Py_CLEAR(slots);
	}
	return slots;
}

PyObject *tu_read_slots(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(nothing))
{
	PyObject *all = PyDict_New();

	for (enum tu_class class = 0; all && class < TU_CLASSES; class++) {
		PyObject *slots = slots_of(class);

		if (!slots || PyDict_SetItemString(all, classes[class].name, slots) < 0)
			Py_CLEAR(all);
		Py_XDECREF(slots);
	}
	return all;
}

/* The offset of an attribute; -1 if it is no slot. */
static Py_ssize_t find(PyObject *class, const char *name)
{
	PyObject *descriptor = PyObject_GetAttrString(class, name);
	Py_ssize_t offset = -1;

	if (!descriptor) {
		PyErr_Clear();
		return -1;
	}
	if (Py_IS_TYPE(descriptor, &PyMemberDescr_Type)) {
		const PyMemberDef *member = ((PyMemberDescrObject *)descriptor)->d_member;

		if (member->type == T_OBJECT_EX)
			offset = member->offset;
	}
	Py_DECREF(descriptor);
	return offset;
}

/* Those of a class; false if one of them is no slot of it. */
static bool find_all(PyObject *object, enum tu_class class)
{
	for (enum tu_slot slot = classes[class].first; slot <= classes[class].last; slot++) {
		tu_known.offsets[slot] = find(object, names[slot]);
		if (tu_known.offsets[slot] < 0)
			return false;
	}
	return true;
}

/* Whether the class says that these slots are read: 1 or 0; -1 with an exception. */
static int agrees(enum tu_class class, PyObject *listed)
{
	PyObject *slots = slots_of(class);
	int same = slots ? PyObject_RichCompareBool(slots, listed, Py_EQ) : -1;

	Py_XDECREF(slots);
	return same;
}

static int class_named(const char *name)
{
	for (int class = 0; class < TU_CLASSES; class ++)
		if (strcmp(classes[class].name, name) == 0)
			return class;
	return -1;
}

/* Once in a process; what was learnt stays. */
PyObject *tu_learn(PyObject *Py_UNUSED(module), PyObject *arguments)
{
	const char *name;
	PyObject *object;
	PyObject *listed;
	int class;
	int same;

	if (!PyArg_ParseTuple(arguments, "sOO!:learn", &name, &object, &PyTuple_Type, &listed))
		return NULL;
	class = class_named(name);
	same = class < 0 ? 0 : agrees(class, listed);
	if (same < 0)
		return NULL;
	if (same && tu_known.classes[class])
		Py_RETURN_TRUE;
	if (same && PyType_Check(object) && find_all(object, class)) {
		tu_known.classes[class] = (PyTypeObject *)Py_NewRef(object);
		Py_RETURN_TRUE;
	}
	if (class == TU_TASK)
		Py_RETURN_FALSE;
	return PyErr_Format(PyExc_TypeError, "learn(): %R has not the slots that are read of a %s", object, name);
}

PyObject *tu_learn_run(PyObject *Py_UNUSED(module), PyObject *arguments)
{
	PyObject *context;
	PyObject *ready;

	if (!PyArg_ParseTuple(arguments, "OO:learn_run", &context, &ready))
		return NULL;
	if (!tu_known.context) {
		tu_known.context = Py_NewRef(context);
		tu_known.ready = Py_NewRef(ready);
	}
	Py_RETURN_NONE;
}

/* A method without arguments that a class in C has. */
static bool is_method(PyObject *descriptor)
{
	return Py_IS_TYPE(descriptor, &PyMethodDescr_Type) &&
	       ((PyMethodDescrObject *)descriptor)->d_method->ml_flags == METH_NOARGS;
}

PyObject *tu_learn_sockets(PyObject *Py_UNUSED(module), PyObject *arguments)
{
	PyObject *trio_socket;
	PyObject *fileno;
	PyObject *multishot;

	if (!PyArg_ParseTuple(arguments, "OOO:learn_sockets", &trio_socket, &fileno, &multishot))
		return NULL;
	if (!is_method(fileno))
		return PyErr_Format(PyExc_TypeError, "learn_sockets(): %R is no method of C without arguments", fileno);
	if (tu_known.multishot)
		Py_RETURN_NONE;
	tu_known.fileno = ((PyMethodDescrObject *)fileno)->d_method->ml_meth;
	tu_known.base_socket = (PyTypeObject *)Py_NewRef((PyObject *)PyDescr_TYPE(fileno));
	if (PyType_Check(trio_socket)) /* None, if this Trio has no such class */
		tu_known.trio_socket = (PyTypeObject *)Py_NewRef(trio_socket);
	tu_known.multishot = Py_NewRef(multishot);
	Py_RETURN_NONE;
}
