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
	[TU_OPERATION_HELD] = "held",
	[TU_OPERATION_OWNER] = "owner",
	[TU_OPERATION_RESULT] = "result",
	[TU_OPERATION_SLOT] = "slot",
	[TU_OPERATION_TASK] = "task",
	[TU_ARMED_FD] = "fd",
	[TU_ARMED_SOCK] = "sock",
	[TU_CONNECTION_CLOSED] = "closed",
	[TU_CONNECTION_LENGTH] = "length",
	[TU_CONNECTION_QUIET] = "quiet",
	[TU_CONNECTION_RUN] = "run",
	[TU_CONNECTION_RUNNER] = "runner",
	[TU_CONNECTION_SENDER] = "sender",
	[TU_CONNECTION_TASK] = "task",
	[TU_RUN_ACCEPTORS_BY_SLOT] = "acceptors_by_slot",
	[TU_RUN_BUDGET] = "budget",
	[TU_RUN_CORE_AT] = "core_at",
	[TU_RUN_OPERATIONS] = "operations",
	[TU_RUN_RECEIVERS] = "receivers",
	[TU_RUN_WOKEN] = "woken",
	[TU_RUN_WRITERS] = "writers",
};

enum { TASK, OPERATION, ARMED, CONNECTION, RUN, SOCKET, CLASSES };

static PyObject *class_of(enum tu_slot slot, PyObject *const *classes)
{
	if (slot <= TU_TASK_RUNNER)
		return classes[TASK];
	if (slot <= TU_OPERATION_TASK)
		return classes[OPERATION];
	if (slot <= TU_ARMED_SOCK)
		return classes[ARMED];
	if (slot <= TU_CONNECTION_TASK)
		return classes[CONNECTION];
	return classes[RUN];
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

static PyTypeObject *kept_class(PyObject *class)
{
	return (PyTypeObject *)Py_NewRef(class);
}

/* Those from `first` to `last`; false if one of them is no slot. */
static bool find_all(PyObject *const *classes, enum tu_slot first, enum tu_slot last)
{
	for (enum tu_slot slot = first; slot <= last; slot++) {
		tu_known.offsets[slot] = find(class_of(slot, classes), names[slot]);
		if (tu_known.offsets[slot] < 0)
			return false;
	}
	return true;
}

/* The function of a method without arguments that a class in C has, and the class. */
static bool find_fileno(PyObject *descriptor)
{
	const PyMethodDescrObject *method = (PyMethodDescrObject *)descriptor;

	if (!Py_IS_TYPE(descriptor, &PyMethodDescr_Type) || method->d_method->ml_flags != METH_NOARGS)
		return false;
	tu_known.fileno = method->d_method->ml_meth;
	tu_known.base_socket = kept_class((PyObject *)PyDescr_TYPE(descriptor));
	return true;
}

/* Once in a process; what was learnt stays. */
PyObject *tu_learn(PyObject *Py_UNUSED(module), PyObject *arguments)
{
	PyObject *classes[CLASSES];
	PyObject *fileno;
	PyObject *context;
	PyObject *send;
	PyObject *cancel;

	if (!PyArg_ParseTuple(arguments, "OOOOOOOOO!O!:learn", &classes[TASK], &classes[OPERATION], &classes[ARMED],
			      &classes[CONNECTION], &classes[RUN], &classes[SOCKET], &fileno, &context, &PyLong_Type, &send,
			      &PyLong_Type, &cancel))
		return NULL;
	if (tu_known.armed)
		return PyBool_FromLong(tu_known.task != NULL);
	if (!find_all(classes, TU_OPERATION_HELD, TU_SLOTS - 1) || !find_fileno(fileno)) {
		PyErr_SetString(PyExc_TypeError, "learn() was given a class without the slots that it has to have");
		return NULL;
	}
	tu_known.send = (tu_send_function *)PyLong_AsVoidPtr(send);
	tu_known.cancel = (tu_cancel_function *)PyLong_AsVoidPtr(cancel);
	tu_known.operation = kept_class(classes[OPERATION]);
	tu_known.armed = kept_class(classes[ARMED]);
	tu_known.connection = kept_class(classes[CONNECTION]);
	tu_known.run = kept_class(classes[RUN]);
	tu_known.context = Py_NewRef(context);
	if (!PyType_Check(classes[SOCKET]) || !find_all(classes, 0, TU_TASK_RUNNER))
		Py_RETURN_FALSE;
	tu_known.socket = kept_class(classes[SOCKET]);
	tu_known.task = kept_class(classes[TASK]);
	Py_RETURN_TRUE;
}
