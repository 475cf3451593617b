#include "attributes.h"

#include <structmember.h>

struct tu_learnt tu_learnt;

static const char *const names[TU_ATTRIBUTES] = {
	[TU_TASK_ABORT_FUNC] = "_abort_func",
	[TU_TASK_CANCEL_POINTS] = "_cancel_points",
	[TU_TASK_CANCEL_STATUS] = "_cancel_status",
	[TU_TASK_CONTEXT] = "context",
	[TU_TASK_CORO] = "coro",
	[TU_TASK_CUSTOM_SLEEP_DATA] = "custom_sleep_data",
	[TU_TASK_NEXT_SEND] = "_next_send",
	[TU_TASK_NEXT_SEND_FN] = "_next_send_fn",
	[TU_TASK_RUNNER] = "_runner",
	[TU_TASK_SCHEDULE_POINTS] = "_schedule_points",
	[TU_RUNNER_INSTRUMENTS] = "instruments",
	[TU_RUNNER_IO_MANAGER] = "io_manager",
	[TU_RUNNER_KI_PENDING] = "ki_pending",
	[TU_RUNNER_MAIN_TASK] = "main_task",
	[TU_RUNNER_RUNQ] = "runq",
	[TU_STATUS_EFFECTIVELY_CANCELLED] = "effectively_cancelled",
	[TU_RUN_LEFT] = "_left",
	[TU_RUN_LOOKED_AT] = "_looked_at",
	[TU_RUN_SPENDER] = "_spender",
	[TU_RUN_SPENT_AT] = "_spent_at",
	[TU_RUN_TAKEN] = "_taken",
	[TU_RUN_TICK_BEGAN] = "_tick_began",
	[TU_RUN_BUDGET] = "budget",
	[TU_RUN_CAPSULE] = "capsule",
	[TU_RUN_CLOCK] = "clock",
	[TU_RUN_COMPLETES] = "completes",
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
	enum tu_attribute first;
	enum tu_attribute last;
} classes[TU_CLASSES] = {
	[TU_CLASS_TASK] = { "task", TU_TASK_ABORT_FUNC, TU_TASK_SCHEDULE_POINTS },
	[TU_CLASS_RUNNER] = { "runner", TU_RUNNER_INSTRUMENTS, TU_RUNNER_RUNQ },
	[TU_CLASS_STATUS] = { "cancel status", TU_STATUS_EFFECTIVELY_CANCELLED, TU_STATUS_EFFECTIVELY_CANCELLED },
	[TU_CLASS_RUN] = { "run", TU_RUN_LEFT, TU_RUN_TABLES },
	[TU_CLASS_OPERATION] = { "operation", TU_OPERATION_HELD, TU_OPERATION_TASK },
	[TU_CLASS_SOCKET] = { "socket", TU_SOCKET_FD, TU_SOCKET_WAITER },
	[TU_CLASS_CONNECTION] = { "connection", TU_CONNECTION_BYTES_AHEAD, TU_CONNECTION_SENDER },
};

/* The names of the attributes of a class that C uses, as a new tuple; NULL with an exception. */
static PyObject *names_of(enum tu_class class)
{
	PyObject *used = PyTuple_New(classes[class].last - classes[class].first + 1);

	for (Py_ssize_t index = 0; used && index < PyTuple_GET_SIZE(used); index++) {
		PyObject *name = PyUnicode_FromString(names[classes[class].first + index]);

		if (name)
			PyTuple_SET_ITEM(used, index, name);
		else
			Py_CLEAR(used);
	}
	return used;
}

PyObject *tu_attributes_used(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(nothing))
{
	PyObject *all = PyDict_New();

	for (enum tu_class class = 0; all && class < TU_CLASSES; class++) {
		PyObject *used = names_of(class);

		if (!used || PyDict_SetItemString(all, classes[class].name, used) < 0)
			Py_CLEAR(all);
		Py_XDECREF(used);
	}
	return all;
}

/* The offset of an attribute; -1 if it is not in the `__slots__` of the class. */
static Py_ssize_t find_offset(PyObject *class, const char *name)
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

/* Finds the offsets of all attributes of a class; false if the class lacks one of them. */
static bool find_offsets(PyObject *object, enum tu_class class)
{
	for (enum tu_attribute attribute = classes[class].first; attribute <= classes[class].last; attribute++) {
		tu_learnt.offsets[attribute] = find_offset(object, names[attribute]);
		if (tu_learnt.offsets[attribute] < 0)
			return false;
	}
	return true;
}

/* Whether `listed`, the USED_BY_C of a class, has the names that C uses: 1 or 0; -1 with an exception. */
static int agrees(enum tu_class class, PyObject *listed)
{
	PyObject *used = names_of(class);
	int same = used ? PyObject_RichCompareBool(used, listed, Py_EQ) : -1;

	Py_XDECREF(used);
	return same;
}

/* The class that `learn` knows by this name; -1 if there is none. */
static int class_named(const char *name)
{
	for (int class = 0; class < TU_CLASSES; class ++)
		if (strcmp(classes[class].name, name) == 0)
			return class;
	return -1;
}

/* Learns a class when it is called for it first; later calls only compare the list. */
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
	if (same && tu_learnt.classes[class])
		Py_RETURN_TRUE;
	if (same && PyType_Check(object) && find_offsets(object, class)) {
		tu_learnt.classes[class] = (PyTypeObject *)Py_NewRef(object);
		Py_RETURN_TRUE;
	}
	if (class >= 0 && class < TU_CLASS_RUN)
		Py_RETURN_FALSE;
	return PyErr_Format(PyExc_TypeError, "learn(): %R has not the attributes that C uses of a %s", object, name);
}

PyObject *tu_learn_run(PyObject *Py_UNUSED(module), PyObject *arguments)
{
	PyObject *context;
	PyObject *ready;

	if (!PyArg_ParseTuple(arguments, "OO:learn_run", &context, &ready))
		return NULL;
	if (!tu_learnt.context) {
		tu_learnt.context = Py_NewRef(context);
		tu_learnt.ready = Py_NewRef(ready);
	}
	Py_RETURN_NONE;
}

/* Whether it is a method without arguments, of a class that is written in C. */
static bool is_method(PyObject *descriptor)
{
	return Py_IS_TYPE(descriptor, &PyMethodDescr_Type) &&
	       ((PyMethodDescrObject *)descriptor)->d_method->ml_flags == METH_NOARGS;
}

PyObject *tu_learn_sockets(PyObject *Py_UNUSED(module), PyObject *arguments)
{
	PyObject *trio_socket;
	PyObject *fileno;
	PyObject *family;
	PyObject *multishot;

	if (!PyArg_ParseTuple(arguments, "OOOO:learn_sockets", &trio_socket, &fileno, &family, &multishot))
		return NULL;
	if (!is_method(fileno))
		return PyErr_Format(PyExc_TypeError, "learn_sockets(): %R is no method of C without arguments", fileno);
	if (!Py_IS_TYPE(family, &PyMemberDescr_Type))
		return PyErr_Format(PyExc_TypeError, "learn_sockets(): %R is no attribute of C", family);
	if (tu_learnt.multishot)
		Py_RETURN_NONE;
	tu_learnt.fileno = ((PyMethodDescrObject *)fileno)->d_method->ml_meth;
	tu_learnt.base_socket = (PyTypeObject *)Py_NewRef((PyObject *)PyDescr_TYPE(fileno));
	if (PyType_Check(trio_socket)) /* None, if this Trio has no such class */
		tu_learnt.trio_socket = (PyTypeObject *)Py_NewRef(trio_socket);
	tu_learnt.family = Py_NewRef(family);
	tu_learnt.multishot = Py_NewRef(multishot);
	Py_RETURN_NONE;
}
