/* The module trio_uring._tasks: what a busy program does most often, written in C.
 *
 * It is an extension module of its own, since the core knows nothing of Python. Its functions hold the
 * GIL throughout, so that no signal handler and no other thread comes between, and so that a call costs
 * a third of a call through cffi. Because they hold the GIL, none of them enters the kernel; only those
 * of datagrams.c do, and let go of it for that. */
#ifndef TU_TASKS_H
#define TU_TASKS_H

#include "attributes.h"

/* Interned names of attributes. */
struct tu_names {
	PyObject *abort_func;
	PyObject *append;
	PyObject *at_once;
	PyObject *cr_await;
	PyObject *data;
	PyObject *deliver_cancel;
	PyObject *deliver_ki;
	PyObject *dict;
	PyObject *held;
	PyObject *recv;
	PyObject *send;
	PyObject *send_conflict_detector;
	PyObject *shut_down;
	PyObject *sock;
	PyObject *socket;
	PyObject *task;
	PyObject *uring;
};

extern struct tu_names tu_names;

/* An attribute, a new reference; NULL if there is none, or with an exception. */
static inline PyObject *tu_look_up(PyObject *object, PyObject *name)
{
	PyObject *value = NULL;

#if PY_VERSION_HEX >= 0x030d0000
	PyObject_GetOptionalAttr(object, name, &value);
#else
	_PyObject_LookupAttr(object, name, &value);
#endif
	return value;
}

/* What `learn_messages` was told; each is NULL before. */
struct tu_messages {
	PyObject *yield;     /* what a task yields that only lets others run */
	PyTypeObject *sleep; /* the class of what a task yields that waits to be rescheduled */
	PyMethodDef *send;   /* the method of Python's coroutines */
	PyObject *one;
};

extern struct tu_messages tu_messages;

/* A tick with more events than this has many sends to come: one system call for all of them then costs
 * less than one for each. */
#define TU_FEW_EVENTS 4

/* The core of a run; NULL with an exception. Any thread that holds the GIL, as for all functions here. */
tu_core *tu_core_of(PyObject *run);

/* The same; also NULL, perhaps without an exception, if its queue is full. To empty it the kernel would have
 * to be entered, which nothing here does with the GIL held. */
tu_core *tu_core_with_room(PyObject *run);

/* Whether a RunSocket's socket still has the descriptor that the run knows it by. Clears any exception. */
bool tu_is_current(PyObject *run_socket);

/* Functions of the module; _tasks.pyi says what each does. */
PyObject *tu_wake(PyObject *module, PyObject *const *arguments, Py_ssize_t number);
PyObject *tu_learn_methods(PyObject *module, PyObject *const *arguments, Py_ssize_t number);
PyObject *tu_sleeps_on(PyObject *module, PyObject *const *arguments, Py_ssize_t number);
PyObject *tu_start_receive(PyObject *module, PyObject *const *arguments, Py_ssize_t number);
PyObject *tu_start_send(PyObject *module, PyObject *const *arguments, Py_ssize_t number);
PyObject *tu_start_reading(PyObject *module, PyObject *const *arguments, Py_ssize_t number);
PyObject *tu_begin_attempt(PyObject *module, PyObject *const *arguments, Py_ssize_t number);
PyObject *tu_begin_sendto(PyObject *module, PyObject *const *arguments, Py_ssize_t number);
PyObject *tu_begin_sendmsg(PyObject *module, PyObject *const *arguments, Py_ssize_t number);
PyObject *tu_answer_resolved(PyObject *module, PyObject *const *arguments, Py_ssize_t number);
PyObject *tu_answer_spend(PyObject *module, PyObject *const *arguments, Py_ssize_t number);
PyObject *tu_receive_many(PyObject *module, PyObject *arguments);
PyObject *tu_send_many(PyObject *module, PyObject *arguments);
PyObject *tu_capsule_of(PyObject *module, PyObject *owner);
PyObject *tu_answer_current(PyObject *module, PyObject *run_socket);
PyObject *tu_check_queued(PyObject *module, PyObject *run);
PyObject *tu_watch_queue(PyObject *module, PyObject *run);
PyObject *tu_uncleared_bytes(PyObject *module, PyObject *length);
PyObject *tu_learn_messages(PyObject *module, PyObject *arguments);
PyObject *tu_run_batch(PyObject *module, PyObject *const *arguments, Py_ssize_t number);
PyObject *tu_keep(PyObject *module, PyObject *memory);

#endif
