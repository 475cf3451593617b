/* The attributes that the functions of trio_uring._tasks work on, where they are in memory.
 *
 * They are slots, whose offsets `tu_learn` finds in their classes. By name each would cost as
 * much as in Python, which remembers the offsets itself. Whoever reads an object of a class
 * that is open to others looks first that it is of the class that was learnt.
 *
 * Each of our classes lists those of its slots that are read here in its READ_BY_C; the slots of
 * Trio's tasks are in loop/trio_internals.py. `tu_learn` compares that with the list below. */
#ifndef TU_SLOTS_H
#define TU_SLOTS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>

#include "core.h"

/* In the order of the classes, and of their READ_BY_C. */
enum tu_slot {
	TU_TASK_ABORT_FUNC,
	TU_TASK_CORO,
	TU_TASK_CUSTOM_SLEEP_DATA,
	TU_TASK_NEXT_SEND,
	TU_TASK_NEXT_SEND_FN,
	TU_TASK_RUNNER,
	TU_RUN_BUDGET,
	TU_RUN_CAPSULE,
	TU_RUN_EVENTS_OF_TICK,
	TU_RUN_HANDLERS,
	TU_RUN_TABLES,
	TU_OPERATION_HELD,
	TU_OPERATION_OWNER,
	TU_OPERATION_RESULT,
	TU_OPERATION_SLOT,
	TU_OPERATION_TASK,
	TU_SOCKET_FD,
	TU_SOCKET_RUN,
	TU_SOCKET_SOCK,
	TU_SOCKET_STATE,
	TU_SOCKET_WAITER,
	TU_CONNECTION_BYTES_AHEAD,
	TU_CONNECTION_LENGTH,
	TU_CONNECTION_RUNNER,
	TU_CONNECTION_SENDER,
	TU_SLOTS,
};

/* The classes that have slots; their names are those of the first argument of `learn`. */
enum tu_class { TU_TASK, TU_RUN, TU_RUN_OPERATION, TU_RUN_SOCKET, TU_CONNECTION, TU_CLASSES };

/* What was learnt; NULL before. */
struct tu_known {
	PyTypeObject *classes[TU_CLASSES]; /* of TU_TASK it stays NULL if Trio's has other attributes than we know */
	Py_ssize_t offsets[TU_SLOTS];
	PyObject *context;         /* of Trio's run */
	PyObject *ready;           /* the answer that wakes a task */
	PyTypeObject *trio_socket; /* the class of Trio's sockets */
	PyTypeObject *base_socket; /* of the standard library's */
	PyCFunction fileno;        /* a method of its */
	PyObject *multishot;       /* the state of a socket whose receive is one */
};

extern struct tu_known tu_known;

/* Whether an object is of a class that was learnt, or of one made of it. */
static inline bool tu_is(PyObject *object, enum tu_class class)
{
	return tu_known.classes[class] && PyObject_TypeCheck(object, tu_known.classes[class]);
}

/* Whether it is of that very class. */
static inline bool tu_is_plain(PyObject *object, enum tu_class class)
{
	return Py_TYPE(object) == tu_known.classes[class];
}

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

/* A run's table of what waits for events of a kind, borrowed; NULL if it has none. */
static inline PyObject *tu_table(PyObject *run, enum tu_kind kind)
{
	PyObject *tables = tu_get(run, TU_RUN_TABLES);
	PyObject *table = tables && PyTuple_CheckExact(tables) && PyTuple_GET_SIZE(tables) == TU_KINDS ?
				  PyTuple_GET_ITEM(tables, kind) :
				  NULL;

	return table && PyDict_CheckExact(table) ? table : NULL;
}

/* _tasks.pyi says what these do. */
PyObject *tu_learn(PyObject *module, PyObject *arguments);
PyObject *tu_learn_run(PyObject *module, PyObject *arguments);
PyObject *tu_learn_sockets(PyObject *module, PyObject *arguments);
PyObject *tu_read_slots(PyObject *module, PyObject *nothing);

#endif
