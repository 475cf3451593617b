/* The module trio_uring._tasks: what a busy program's tasks do with the core, without a line of
 * Python for each.
 *
 * Apart from the core, which knows nothing of Python. Here the GIL is held throughout: no signal
 * handler and no other thread comes between, and a call costs a third of one through cffi. So
 * nothing here enters the kernel. */
#ifndef TU_TASKS_H
#define TU_TASKS_H

#include "slots.h"

/* Interned. */
struct tu_names {
	PyObject *cr_await;
	PyObject *held;
	PyObject *recv;
	PyObject *send;
	PyObject *send_conflict_detector;
	PyObject *shut_down;
	PyObject *socket;
	PyObject *task;
	PyObject *uring;
};

extern struct tu_names tu_names;

/* Of a tick: with more, one system call for all their sends costs less than one for each. */
#define TU_FEW_EVENTS 4

/* The core of a run; NULL with an exception. */
tu_core *tu_core_of(PyObject *run);

/* Whether a socket still has the descriptor that it has in a run. */
bool tu_is_current(PyObject *run_socket);

/* _tasks.pyi says what they do. */
PyObject *tu_wake(PyObject *module, PyObject *const *arguments, Py_ssize_t number);
PyObject *tu_learn_methods(PyObject *module, PyObject *const *arguments, Py_ssize_t number);
PyObject *tu_sleeps_on(PyObject *module, PyObject *const *arguments, Py_ssize_t number);
PyObject *tu_start_receive(PyObject *module, PyObject *const *arguments, Py_ssize_t number);
PyObject *tu_start_send(PyObject *module, PyObject *const *arguments, Py_ssize_t number);
PyObject *tu_capsule_of(PyObject *module, PyObject *owner);
PyObject *tu_tell_current(PyObject *module, PyObject *run_socket);
PyObject *tu_check_queued(PyObject *module, PyObject *run);
PyObject *tu_watch_queue(PyObject *module, PyObject *run);
PyObject *tu_uncleared_bytes(PyObject *module, PyObject *length);
PyObject *tu_keep(PyObject *module, PyObject *memory);

#endif
