/* The first steps of a call that is made at once, and waits by readiness if it would block
 * (sockets/attempts.py).
 *
 * Only for the case that a busy program nearly always has. In any other case these functions change
 * nothing, and Python does the whole call. */
#include <arpa/inet.h>
#include <string.h>

#include "tasks.h"

/* Whether the socket is one of Trio's that has no connection in any run: it is of another kind. */
static bool works_at_once(PyObject *trio_socket)
{
	PyObject *mark = Py_TYPE(trio_socket) == tu_learnt.trio_socket ? tu_look_up(trio_socket, tu_names.at_once) : NULL;
	bool marked = mark == Py_True;

	Py_XDECREF(mark);
	return marked;
}

/* The run that a task is of, borrowed; NULL if sockets do not work by completions there, or if the task
 * was cancelled or has to be told of Ctrl-C. */
static PyObject *run_of(PyObject *task)
{
	PyObject *status = tu_get(task, TU_TASK_CANCEL_STATUS);
	PyObject *runner = tu_get(task, TU_TASK_RUNNER);
	PyObject *run;

	if (!status || !tu_is_exactly(status, TU_CLASS_STATUS) || !runner || !tu_is_exactly(runner, TU_CLASS_RUNNER) ||
	    tu_get(status, TU_STATUS_EFFECTIVELY_CANCELLED) != Py_False ||
	    tu_get(runner, TU_RUNNER_KI_PENDING) != Py_False)
		return NULL;
	run = tu_get(runner, TU_RUNNER_IO_MANAGER);
	return run && tu_is(run, TU_CLASS_RUN) && tu_get(run, TU_RUN_COMPLETES) == Py_True ? run : NULL;
}

/* Counts a cancel point of a task; false if it has done nothing, or with an exception. */
static bool count_cancel_point(PyObject *task)
{
	PyObject *points = tu_get(task, TU_TASK_CANCEL_POINTS);
	PyObject *more = points && PyLong_CheckExact(points) ? PyLong_FromLong(PyLong_AsLong(points) + 1) : NULL;

	if (!more)
		return false;
	tu_set(task, TU_TASK_CANCEL_POINTS, more);
	Py_DECREF(more);
	return true;
}

/* Begins a call on a socket; see `begin_attempt` in _tasks.pyi. */
static PyObject *begin(PyObject *trio_socket)
{
	PyObject *task = works_at_once(trio_socket) ? tu_look_up(tu_learnt.context, tu_names.task) : NULL;
	PyObject *run = task && tu_is_exactly(task, TU_CLASS_TASK) ? run_of(task) : NULL;
	PyObject *answer = run && count_cancel_point(task) ? run : Py_None;

	Py_INCREF(answer);
	Py_XDECREF(task);
	if (PyErr_Occurred())
		Py_CLEAR(answer);
	return answer;
}

/* The family of one of Trio's sockets; -1 if it cannot be told. */
static long family_of(PyObject *trio_socket)
{
	PyObject *sock = Py_TYPE(trio_socket) == tu_learnt.trio_socket ? tu_look_up(trio_socket, tu_names.sock) : NULL;
	PyObject *number = NULL;
	long family = -1;

	if (sock && PyObject_TypeCheck(sock, tu_learnt.base_socket))
		number = Py_TYPE(tu_learnt.family)->tp_descr_get(tu_learnt.family, sock, (PyObject *)Py_TYPE(sock));
	if (number)
		family = PyLong_AsLong(number);
	if (PyErr_Occurred())
		PyErr_Clear();
	Py_XDECREF(number);
	Py_XDECREF(sock);
	return family;
}

/* Whether it is a numeric host of this family. */
static bool is_numeric(int family, PyObject *host)
{
	struct in6_addr found;
	Py_ssize_t length;
	const char *text = PyUnicode_CheckExact(host) ? PyUnicode_AsUTF8AndSize(host, &length) : NULL;

	if (PyErr_Occurred())
		PyErr_Clear(); /* it has lone surrogates */
	return text && strlen(text) == (size_t)length && inet_pton(family, text, &found) == 1;
}

/* Whether Trio would send to an address as it stands, without looking up a name. */
static bool is_resolved(PyObject *trio_socket, PyObject *address)
{
	long family = family_of(trio_socket);
	Py_ssize_t size = PyTuple_CheckExact(address) ? PyTuple_GET_SIZE(address) : 0;

	if (family == AF_UNIX)
		return PyUnicode_CheckExact(address) || PyBytes_CheckExact(address);
	if (!(family == AF_INET && size == 2) && !(family == AF_INET6 && 2 <= size && size <= 4))
		return false;
	return PyLong_CheckExact(PyTuple_GET_ITEM(address, 1)) && is_numeric((int)family, PyTuple_GET_ITEM(address, 0));
}

/* Checks the arguments of a call of `begin_*`: 0, or -1 with an exception. */
static int check_arguments(PyObject *const *arguments, Py_ssize_t number)
{
	if (number == 2 && PyTuple_CheckExact(arguments[1]))
		return 0;
	PyErr_SetString(PyExc_TypeError, "it takes a socket and a tuple of arguments");
	return -1;
}

PyObject *tu_begin_attempt(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t number)
{
	return check_arguments(arguments, number) < 0 ? NULL : begin(arguments[0]);
}

PyObject *tu_begin_sendto(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t number)
{
	Py_ssize_t count;

	if (check_arguments(arguments, number) < 0)
		return NULL;
	count = PyTuple_GET_SIZE(arguments[1]);
	if ((count != 2 && count != 3) || !is_resolved(arguments[0], PyTuple_GET_ITEM(arguments[1], count - 1)))
		Py_RETURN_NONE;
	return begin(arguments[0]);
}

PyObject *tu_begin_sendmsg(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t number)
{
	PyObject *address;

	if (check_arguments(arguments, number) < 0)
		return NULL;
	address = PyTuple_GET_SIZE(arguments[1]) == 4 ? PyTuple_GET_ITEM(arguments[1], 3) : Py_None;
	if (address != Py_None && !is_resolved(arguments[0], address))
		Py_RETURN_NONE;
	return begin(arguments[0]);
}

PyObject *tu_answer_resolved(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t number)
{
	if (number == 2)
		return PyBool_FromLong(is_resolved(arguments[0], arguments[1]));
	PyErr_SetString(PyExc_TypeError, "is_resolved() takes a socket and an address");
	return NULL;
}
