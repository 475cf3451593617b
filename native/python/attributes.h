/* The attributes of Python objects that the functions of trio_uring._tasks read and write, by where
 * they are in memory.
 *
 * Each attribute stands in the `__slots__` of its class, so it has the same offset in every object of
 * the class; `tu_learn` finds that offset. To look an attribute up by its name would take as long as
 * Python's own look-up, and nothing would be gained. An object that a program could have replaced by
 * one of another class is checked with `tu_is` or `tu_is_exactly` before it is used.
 *
 * Each of our classes lists the attributes that C uses in its USED_BY_C; those of Trio's classes are
 * listed in loop/trio_internals.py. `tu_learn` compares these lists with the one below. */
#ifndef TU_ATTRIBUTES_H
#define TU_ATTRIBUTES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>

#include "core.h"

/* In the order of the classes, and in each class in the order of its USED_BY_C. */
enum tu_attribute {
	TU_TASK_ABORT_FUNC,
	TU_TASK_CANCEL_POINTS,
	TU_TASK_CANCEL_STATUS,
	TU_TASK_CONTEXT,
	TU_TASK_CORO,
	TU_TASK_CUSTOM_SLEEP_DATA,
	TU_TASK_NEXT_SEND,
	TU_TASK_NEXT_SEND_FN,
	TU_TASK_RUNNER,
	TU_TASK_SCHEDULE_POINTS,
	TU_RUNNER_INSTRUMENTS,
	TU_RUNNER_IO_MANAGER,
	TU_RUNNER_KI_PENDING,
	TU_RUNNER_MAIN_TASK,
	TU_RUNNER_RUNQ,
	TU_STATUS_EFFECTIVELY_CANCELLED,
	TU_RUN_LEFT,
	TU_RUN_LOOKED_AT,
	TU_RUN_SPENDER,
	TU_RUN_SPENT_AT,
	TU_RUN_TAKEN,
	TU_RUN_TICK_BEGAN,
	TU_RUN_BUDGET,
	TU_RUN_CAPSULE,
	TU_RUN_CLOCK,
	TU_RUN_COMPLETES,
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
	TU_ATTRIBUTES,
};

/* The classes of these attributes, Trio's first. */
enum tu_class {
	TU_CLASS_TASK,
	TU_CLASS_RUNNER,
	TU_CLASS_STATUS,
	TU_CLASS_RUN,
	TU_CLASS_OPERATION,
	TU_CLASS_SOCKET,
	TU_CLASS_CONNECTION,
	TU_CLASSES,
};

/* What `learn`, `learn_run` and `learn_sockets` were told. Each is NULL before, and then stays for the
 * life of the process. */
struct tu_learnt {
	PyTypeObject *classes[TU_CLASSES]; /* a class of Trio's stays NULL if it lacks an attribute */
	Py_ssize_t offsets[TU_ATTRIBUTES];
	PyObject *context;         /* Trio's GLOBAL_RUN_CONTEXT */
	PyObject *ready;           /* READY of loop/checkpoints.py: what most tasks are woken with */
	PyTypeObject *trio_socket; /* the class of Trio's sockets */
	PyTypeObject *base_socket; /* the class of the standard library's sockets */
	PyCFunction fileno;        /* the method of base_socket */
	PyObject *family;          /* the attribute of base_socket, which gives a number */
	PyObject *multishot;       /* the State of a socket that has a multishot with the kernel */
};

extern struct tu_learnt tu_learnt;

/* Whether an object is an instance of the class, or of a subclass. */
static inline bool tu_is(PyObject *object, enum tu_class class)
{
	return tu_learnt.classes[class] && PyObject_TypeCheck(object, tu_learnt.classes[class]);
}

/* Whether an object is of the class itself, and not of a subclass. */
static inline bool tu_is_exactly(PyObject *object, enum tu_class class)
{
	return Py_TYPE(object) == tu_learnt.classes[class];
}

/* The value of an attribute, borrowed; NULL if it was never set. The object has to be of its class. */
static inline PyObject *tu_get(PyObject *object, enum tu_attribute attribute)
{
	return *(PyObject **)((char *)object + tu_learnt.offsets[attribute]);
}

/* Sets an attribute of an object that has to be of its class. The old value is given up last, since
 * that may run Python. */
static inline void tu_set(PyObject *object, enum tu_attribute attribute, PyObject *value)
{
	PyObject **place = (PyObject **)((char *)object + tu_learnt.offsets[attribute]);
	PyObject *old = *place;

	Py_INCREF(value);
	*place = value;
	Py_XDECREF(old);
}

/* A run's table of what waits for events of this kind, borrowed; NULL if it has none. */
static inline PyObject *tu_table(PyObject *run, enum tu_kind kind)
{
	PyObject *tables = tu_get(run, TU_RUN_TABLES);
	PyObject *table = tables && PyTuple_CheckExact(tables) && PyTuple_GET_SIZE(tables) == TU_KINDS ?
				  PyTuple_GET_ITEM(tables, kind) :
				  NULL;

	return table && PyDict_CheckExact(table) ? table : NULL;
}

/* Functions of the module; _tasks.pyi says what each does. */
PyObject *tu_learn(PyObject *module, PyObject *arguments);
PyObject *tu_learn_run(PyObject *module, PyObject *arguments);
PyObject *tu_learn_sockets(PyObject *module, PyObject *arguments);
PyObject *tu_attributes_used(PyObject *module, PyObject *nothing);

#endif
