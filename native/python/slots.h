/* The attributes that the functions of trio_uring._tasks work on, where they are in memory.
 *
 * They are slots, whose offsets `tu_learn` finds in their classes. By name each would cost as
 * much as in Python, which remembers the offsets itself. Whoever reads an object of a class
 * that is open to others looks first that it is of the class that was learnt. */
#ifndef TU_SLOTS_H
#define TU_SLOTS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>

#include "core.h"

enum tu_slot {
	TU_TASK_ABORT_FUNC,
	TU_TASK_CORO,
	TU_TASK_CUSTOM_SLEEP_DATA,
	TU_TASK_NEXT_SEND,
	TU_TASK_NEXT_SEND_FN,
	TU_TASK_RUNNER,
	TU_OPERATION_HELD,
	TU_OPERATION_OWNER,
	TU_OPERATION_RESULT,
	TU_OPERATION_SLOT,
	TU_OPERATION_TASK,
	TU_ARMED_FD,
	TU_ARMED_SOCK,
	TU_CONNECTION_CLOSED,
	TU_CONNECTION_LENGTH,
	TU_CONNECTION_QUIET,
	TU_CONNECTION_RUN,
	TU_CONNECTION_RUNNER,
	TU_CONNECTION_SENDER,
	TU_CONNECTION_TASK,
	TU_RUN_ACCEPTORS_BY_SLOT,
	TU_RUN_BUDGET,
	TU_RUN_CORE_AT,
	TU_RUN_OPERATIONS,
	TU_RUN_RECEIVERS,
	TU_RUN_WOKEN,
	TU_RUN_WRITERS,
	TU_SLOTS,
};

/* Functions of the core, which is in another library. */
typedef int tu_send_function(tu_core *core, int fd, const char *data, size_t length, int whole);
typedef int tu_cancel_function(tu_core *core, int slot);

/* What `tu_learn` was given; NULL before it was called. */
struct tu_known {
	PyTypeObject *task; /* NULL, too, if Trio's has other attributes than we know */
	PyTypeObject *operation;
	PyTypeObject *armed;
	PyTypeObject *connection;
	PyTypeObject *run;
	PyTypeObject *socket;
	PyTypeObject *base_socket; /* of the standard library */
	PyCFunction fileno;        /* a method of its */
	PyObject *context;
	tu_send_function *send;
	tu_cancel_function *cancel;
	Py_ssize_t offsets[TU_SLOTS];
};

extern struct tu_known tu_known;

/* A borrowed reference; NULL if it was never set. */
static inline PyObject *tu_get(PyObject *object, enum tu_slot slot)
{
	return *(PyObject **)((char *)object + tu_known.offsets[slot]);
}

static inline void tu_set(PyObject *object, enum tu_slot slot, PyObject *value)
{
	PyObject **place = (PyObject **)((char *)object + tu_known.offsets[slot]);
	PyObject *old = *place;

	Py_INCREF(value);
	*place = value;
	Py_XDECREF(old);
}

PyObject *tu_learn(PyObject *module, PyObject *arguments);

#endif
