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
	[TU_OPERATION_RESULT] = "result",
	[TU_OPERATION_SLOT] = "slot",
	[TU_OPERATION_TASK] = "task",
	[TU_CONNECTION_CLOSED] = "closed",
	[TU_CONNECTION_FD] = "fd",
	[TU_CONNECTION_LENGTH] = "length",
	[TU_CONNECTION_QUIET] = "quiet",
	[TU_CONNECTION_RUN] = "run",
	[TU_CONNECTION_RUNNER] = "runner",
	[TU_CONNECTION_SENDER] = "sender",
	[TU_CONNECTION_TASK] = "task",
	[TU_RUN_BUDGET] = "budget",
	[TU_RUN_CORE_AT] = "core_at",
	[TU_RUN_OPERATIONS] = "operations",
	[TU_RUN_WOKEN] = "woken",
	[TU_RUN_WRITERS] = "writers",
};

static PyObject *class_of(enum tu_slot slot, PyObject *const *classes)
{
	if (slot <= TU_TASK_RUNNER)
		return classes[0];
	if (slot <= TU_OPERATION_TASK)
		return classes[1];
	if (slot <= TU_CONNECTION_TASK)
		return classes[2];
	return classes[3];
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
	Py_INCREF(class);
	return (PyTypeObject *)class;
}

static bool find_all(PyObject *const *classes)
{
	for (enum tu_slot slot = 0; slot < TU_SLOTS; slot++) {
		tu_known.offsets[slot] = find(class_of(slot, classes), names[slot]);
		if (tu_known.offsets[slot] < 0)
			return false;
	}
	return true;
}

/* Once in a process; what was learnt stays. */
PyObject *tu_learn(PyObject *Py_UNUSED(module), PyObject *arguments)
{
	PyObject *classes[5];
	PyObject *context;
	PyObject *address;

	if (!PyArg_ParseTuple(arguments, "OOOOOOO!:learn", &classes[0], &classes[1], &classes[2], &classes[3],
			      &classes[4], &context, &PyLong_Type, &address))
		return NULL;
	if (tu_known.task)
		Py_RETURN_TRUE;
	if (!find_all(classes) || !PyType_Check(classes[4]))
		Py_RETURN_FALSE;
	tu_known.send = (tu_send_function *)PyLong_AsVoidPtr(address);
	tu_known.task = kept_class(classes[0]);
	tu_known.operation = kept_class(classes[1]);
	tu_known.connection = kept_class(classes[2]);
	tu_known.run = kept_class(classes[3]);
	tu_known.socket = kept_class(classes[4]);
	Py_INCREF(context);
	tu_known.context = context;
	Py_RETURN_TRUE;
}
