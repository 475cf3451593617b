/* How a task spends its budget (`Run.spend` in loop/run.py). */
#include <limits.h>

#include "tasks.h"

/* Seconds, by which a tick is taken to be longer than it is. So a few tasks, who make nobody later than
 * the kernel's timers do, may spend most of their budget. */
#define SHORT 20e-6

static double number_of(PyObject *run, enum tu_attribute attribute)
{
	PyObject *value = tu_get(run, attribute);

	return value ? PyFloat_AsDouble(value) : 0;
}

/* Sets an attribute to a new object, which may be NULL with an exception; 0, or -1 with an exception. */
static int set_new(PyObject *run, enum tu_attribute attribute, PyObject *value)
{
	if (!value)
		return -1;
	tu_set(run, attribute, value);
	Py_DECREF(value);
	return 0;
}

/* What is left when the task has spent one call; < 0 if nothing was left. `again` tells whether it has
 * spent others since it yielded. -2 with an exception. */
static long take_one(PyObject *run, PyObject *task, bool *again)
{
	PyObject *points = tu_get(task, TU_TASK_SCHEDULE_POINTS);
	PyObject *spent_at = tu_get(run, TU_RUN_SPENT_AT);
	PyObject *before;
	int too_large = 0; /* a budget may be any number; so large a one is never used up */
	long left;

	*again = tu_get(run, TU_RUN_SPENDER) == task && points && spent_at &&
		 PyLong_AsLong(points) == PyLong_AsLong(spent_at);
	if (!*again) {
		tu_set(run, TU_RUN_SPENDER, task);
		tu_set(run, TU_RUN_SPENT_AT, points ? points : Py_None);
	}
	before = tu_get(run, *again ? TU_RUN_LEFT : TU_RUN_BUDGET);
	left = before ? PyLong_AsLongAndOverflow(before, &too_large) : 0;
	if (too_large)
		left = LONG_MAX;
	left = left > 0 ? left - 1 : -1;
	return PyErr_Occurred() || set_new(run, TU_RUN_LEFT, PyLong_FromLong(left)) < 0 ? -2 : left;
}

/* Looks at the clock: 0, or -1 with an exception. If the task has gone on since the clock was last looked
 * at, that time was taken from others. */
static int look_at_clock(PyObject *run, bool again)
{
	PyObject *clock = tu_get(run, TU_RUN_CLOCK);
	PyObject *now = clock ? PyObject_CallNoArgs(clock) : NULL;
	double passed = now ? PyFloat_AsDouble(now) - number_of(run, TU_RUN_LOOKED_AT) : 0;

	if (again && now &&
	    set_new(run, TU_RUN_TAKEN, PyFloat_FromDouble(number_of(run, TU_RUN_TAKEN) + passed)) < 0)
		Py_CLEAR(now);
	return set_new(run, TU_RUN_LOOKED_AT, now);
}

/* Spends one call of a task's budget: 1, or 0 if the task has to yield now; -1 with an exception. */
static int spend(PyObject *run, PyObject *task)
{
	bool again;
	long left;

	if (!tu_is_exactly(task, TU_CLASS_TASK))
		return 0;
	left = take_one(run, task, &again);
	if (left == -2)
		return -1;
	if (again && left >= 0 && (left & 3) != 3)
		return 1;
	if (look_at_clock(run, again) < 0)
		return -1;
	return left >= 0 && 3 * number_of(run, TU_RUN_TAKEN) <=
				    number_of(run, TU_RUN_LOOKED_AT) - number_of(run, TU_RUN_TICK_BEGAN) + SHORT;
}

PyObject *tu_answer_spend(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t number)
{
	PyObject *task;
	int spent = 0;

	if (number != 2 || !tu_is(arguments[0], TU_CLASS_RUN)) {
		PyErr_SetString(PyExc_TypeError, "spend() takes a run and a task");
		return NULL;
	}
	task = arguments[1] == Py_None ? tu_look_up(tu_learnt.context, tu_names.task) : Py_NewRef(arguments[1]);
	if (task)
		spent = spend(arguments[0], task);
	Py_XDECREF(task);
	return spent < 0 || PyErr_Occurred() ? NULL : PyBool_FromLong(spent);
}
