/* Runs the steps of a batch of tasks, as the inner loop of Trio's `unrolled_run` does.
 *
 * Only what is frequent is done here: a task that is a coroutine of Python's, is sent an answer, and then
 * yields or sleeps. All else is for Trio's own code. Where that shows before the step, the task is left in
 * the batch. Where it shows afterwards, as when the task has ended or raised, Trio's code makes the step
 * (`finish`), but in the place of the coroutine's `send` it calls a function that repeats what the step has
 * come to. A program may set the attributes of its tasks as it likes, within a step as well.
 *
 * Between two steps Trio's loop could be interrupted by a signal's handler, and so can this. Which Trio is
 * known, accelerate/known.py says. */
#include "tasks.h"

#define GO_ON 0
#define TO_TRIO 1
#define FAILED (-1)

struct tu_messages tu_messages;

struct batch {
	PyObject *runner;
	PyObject *tasks;   /* a list, from whose end they are taken */
	PyObject *finish;  /* Trio's code: finishes the step of a task */
	PyObject *current; /* the dictionary of GLOBAL_RUN_CONTEXT in this thread, for the current task */
	PyObject *hooks;   /* what instruments are asked for: a dictionary that always has `_all` */
};

static PyObject *repeat_yield(PyObject *message, PyObject *Py_UNUSED(sent))
{
	return Py_NewRef(message);
}

static PyObject *repeat_return(PyObject *value, PyObject *Py_UNUSED(sent))
{
	/* `PyErr_SetObject` would take the items of a tuple for arguments. */
	PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, value);

	if (stop)
		PyErr_SetObject(PyExc_StopIteration, stop);
	Py_XDECREF(stop);
	return NULL;
}

/* Raises it as it is: with its traceback, and without a new __context__. */
static PyObject *repeat_raise(PyObject *exception, PyObject *Py_UNUSED(sent))
{
#if PY_VERSION_HEX >= 0x030c0000
	PyErr_SetRaisedException(Py_NewRef(exception));
#else
	PyErr_Restore(Py_NewRef((PyObject *)Py_TYPE(exception)), Py_NewRef(exception),
		      PyException_GetTraceback(exception));
#endif
	return NULL;
}

static PyMethodDef repeat_of_yield = { "repeat", repeat_yield, METH_O, NULL };
static PyMethodDef repeat_of_return = { "repeat", repeat_return, METH_O, NULL };
static PyMethodDef repeat_of_raise = { "repeat", repeat_raise, METH_O, NULL };

/* The exception that is set, a new reference with its traceback; clears it. */
static PyObject *take_exception(void)
{
#if PY_VERSION_HEX >= 0x030c0000
	return PyErr_GetRaisedException();
#else
	PyObject *type;
	PyObject *exception;
	PyObject *traceback;

	PyErr_Fetch(&type, &exception, &traceback);
	PyErr_NormalizeException(&type, &exception, &traceback);
	if (traceback)
		PyException_SetTraceback(exception, traceback);
	Py_XDECREF(type);
	Py_XDECREF(traceback);
	return exception;
#endif
}

/* The value of an attribute, borrowed; None if somebody has deleted it. */
static PyObject *get(PyObject *object, enum tu_attribute attribute)
{
	PyObject *value = tu_get(object, attribute);

	return value ? value : Py_None;
}

/* Has Trio's code finish the step of a task, which came to `result`. Takes the reference to it. */
static int finish(const struct batch *batch, PyObject *task, PyMethodDef *repeat, PyObject *result)
{
	PyObject *send = result ? PyCFunction_New(repeat, result) : NULL;
	PyObject *done = NULL;

	Py_XDECREF(result);
	if (send)
		done = PyObject_CallFunctionObjArgs(batch->finish, batch->runner, task, send, Py_None, NULL);
	Py_XDECREF(send);
	Py_XDECREF(done);
	return done ? GO_ON : FAILED;
}

/* Adds one to an attribute that is a number; 0, or -1 with an exception. */
static int count(PyObject *task, enum tu_attribute attribute)
{
	PyObject *next = PyNumber_Add(get(task, attribute), tu_messages.one);

	if (!next)
		return -1;
	tu_set(task, attribute, next);
	Py_DECREF(next);
	return 0;
}

/* Calls a method without arguments, and drops the result; 0, or -1 with an exception. */
static int call(PyObject *object, PyObject *name)
{
	PyObject *done = PyObject_CallMethodNoArgs(object, name);

	Py_XDECREF(done);
	return done ? 0 : -1;
}

/* Whether there are instruments. What happens to tasks is then for Trio's own code. */
static bool has_instruments(const struct batch *batch)
{
	return PyDict_GET_SIZE(batch->hooks) > 1;
}

/* The `send` of a task's coroutine, a new reference: the one that its step was made by, unless the task has
 * another coroutine since then, as greenback gives it one. NULL with an exception. */
static PyObject *send_of(PyObject *task, PyObject *send)
{
	PyObject *coroutine = get(task, TU_TASK_CORO);

	return PyCFunction_GET_SELF(send) == coroutine ? Py_NewRef(send) : PyObject_GetAttr(coroutine, tu_names.send);
}

/* Puts a task that has only yielded into the queue again; 0, or -1 with an exception. */
static int queue_again(PyObject *runner, PyObject *task, PyObject *sent_by)
{
	PyObject *send = send_of(task, sent_by);
	PyObject *queue = get(runner, TU_RUNNER_RUNQ);
	PyObject *appended = send ? PyObject_CallMethodOneArg(queue, tu_names.append, task) : NULL;

	if (appended) {
		tu_set(task, TU_TASK_NEXT_SEND_FN, send);
		tu_set(task, TU_TASK_NEXT_SEND, tu_learnt.ready);
		tu_set(task, TU_TASK_ABORT_FUNC, Py_None);
		tu_set(task, TU_TASK_CUSTOM_SLEEP_DATA, Py_None);
	}
	Py_XDECREF(appended);
	Py_XDECREF(send);
	return appended ? 0 : -1;
}

/* Whether the task's scope is cancelled: 1 or 0; -1 with an exception. */
static int is_cancelled(PyObject *task)
{
	PyObject *status = get(task, TU_TASK_CANCEL_STATUS);

	if (!tu_is_exactly(status, TU_CLASS_STATUS))
		return 1; /* Python looks again */
	return PyObject_IsTrue(get(status, TU_STATUS_EFFECTIVELY_CANCELLED));
}

/* Has a task sleep until it is rescheduled; 0, or -1 with an exception. */
static int sleep_on(PyObject *runner, PyObject *task, PyObject *message)
{
	PyObject *abort = PyObject_GetAttr(message, tu_names.abort_func);
	int cancelled;

	if (!abort)
		return -1;
	tu_set(task, TU_TASK_ABORT_FUNC, abort);
	Py_DECREF(abort);
	if (count(task, TU_TASK_CANCEL_POINTS) < 0)
		return -1;
	/* Ctrl-C is outside of all scopes, and comes first. */
	if (get(runner, TU_RUNNER_KI_PENDING) != Py_False && task == get(runner, TU_RUNNER_MAIN_TASK) &&
	    call(task, tu_names.deliver_ki) < 0)
		return -1;
	cancelled = is_cancelled(task);
	return cancelled > 0 ? call(task, tu_names.deliver_cancel) : cancelled;
}

/* What Trio's `reschedule` asserts of a task. It may have been rescheduled within its step. */
static bool may_be_queued(PyObject *runner, PyObject *task)
{
	return get(task, TU_TASK_RUNNER) == runner && get(task, TU_TASK_NEXT_SEND_FN) == Py_None;
}

/* Deals with what a task has yielded. `send` is the method by which it was sent. Takes the reference to
 * `message`. */
static int take_message(const struct batch *batch, PyObject *task, PyObject *send, PyObject *message)
{
	bool sleeps = Py_TYPE(message) == tu_messages.sleep;
	bool yields = message == tu_messages.yield && may_be_queued(batch->runner, task);
	int outcome;

	if ((!sleeps && !yields) || has_instruments(batch))
		return finish(batch, task, &repeat_of_yield, message);
	outcome = count(task, TU_TASK_SCHEDULE_POINTS);
	if (outcome == GO_ON)
		outcome = sleeps ? sleep_on(batch->runner, task, message) : queue_again(batch->runner, task, send);
	Py_DECREF(message);
	return outcome;
}

/* Makes a task's step. `send` is the method by which it is sent. A context that cannot be entered, or was not
 * left as it was entered, is an error of the task, as it is with `Context.run`. */
static int step(const struct batch *batch, PyObject *task, PyObject *send)
{
	PyObject *context = Py_NewRef(get(task, TU_TASK_CONTEXT));
	PyObject *answer = Py_NewRef(get(task, TU_TASK_NEXT_SEND));
	PyObject *result = NULL;
	PySendResult sent = PYGEN_ERROR;

	tu_set(task, TU_TASK_NEXT_SEND_FN, Py_None);
	tu_set(task, TU_TASK_NEXT_SEND, Py_None);
	if (PyContext_Enter(context) == 0) {
		sent = PyIter_Send(PyCFunction_GET_SELF(send), answer, &result);
		if (PyContext_Exit(context) < 0) {
			Py_CLEAR(result);
			sent = PYGEN_ERROR;
		}
	}
	Py_DECREF(answer);
	Py_DECREF(context);
	if (sent == PYGEN_NEXT)
		return take_message(batch, task, send, result);
	if (sent == PYGEN_RETURN)
		return finish(batch, task, &repeat_of_return, result);
	return finish(batch, task, &repeat_of_raise, take_exception());
}

/* Whether a task's next step is of the frequent kind: it sends to a coroutine of Python's. */
static bool is_usual(PyObject *task)
{
	PyObject *send;

	if (!tu_is_exactly(task, TU_CLASS_TASK))
		return false;
	send = get(task, TU_TASK_NEXT_SEND_FN);
	return PyCFunction_CheckExact(send) && ((PyCFunctionObject *)send)->m_ml == tu_messages.send &&
	       PyCFunction_GET_SELF(send) == get(task, TU_TASK_CORO) &&
	       PyContext_CheckExact(get(task, TU_TASK_CONTEXT));
}

/* Makes the step of the last task of the batch, which it takes out. */
static int step_of_last(const struct batch *batch)
{
	Py_ssize_t last = PyList_GET_SIZE(batch->tasks) - 1;
	PyObject *task = PyList_GET_ITEM(batch->tasks, last);
	PyObject *send;
	int outcome = FAILED;

	if (!is_usual(task))
		return TO_TRIO;
	Py_INCREF(task);
	send = Py_NewRef(get(task, TU_TASK_NEXT_SEND_FN));
	if (PyList_SetSlice(batch->tasks, last, last + 1, NULL) == 0 &&
	    PyDict_SetItem(batch->current, tu_names.task, task) == 0)
		outcome = step(batch, task, send);
	Py_DECREF(send);
	Py_DECREF(task);
	return outcome;
}

/* Makes the steps of the batch until it is empty, or something is for Trio's code. */
static int run_batch(const struct batch *batch)
{
	int outcome = GO_ON;

	while (outcome == GO_ON && PyList_GET_SIZE(batch->tasks)) {
		outcome = has_instruments(batch) ? TO_TRIO : step_of_last(batch);
		if (outcome == GO_ON && PyErr_CheckSignals() < 0)
			outcome = FAILED;
	}
	if (outcome == GO_ON && PyDict_DelItem(batch->current, tu_names.task) < 0)
		PyErr_Clear(); /* `finish` has made the last step, and deleted it */
	return outcome;
}

/* An attribute that is a dictionary, a new reference; NULL without an exception if it is none. */
static PyObject *dictionary_in(PyObject *object, PyObject *name)
{
	PyObject *found = PyObject_GetAttr(object, name);

	if (!found)
		PyErr_Clear();
	else if (!PyDict_CheckExact(found))
		Py_CLEAR(found);
	return found;
}

/* The hooks of an object of Trio's class Instruments. In Trio 0.29 the object is a dictionary itself. */
static PyObject *hooks_of(PyObject *instruments)
{
	return PyDict_Check(instruments) ? Py_NewRef(instruments) : dictionary_in(instruments, tu_names.data);
}

PyObject *tu_run_batch(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t number)
{
	struct batch batch;
	int outcome = TO_TRIO;

	if (number != 3 || !tu_is_exactly(arguments[1], TU_CLASS_RUNNER) || !PyList_CheckExact(arguments[2])) {
		PyErr_SetString(PyExc_TypeError, "run_batch() takes a function, a runner and a list of tasks");
		return NULL;
	}
	batch.finish = arguments[0];
	batch.runner = arguments[1];
	batch.tasks = arguments[2];
	batch.hooks = hooks_of(get(batch.runner, TU_RUNNER_INSTRUMENTS));
	batch.current = dictionary_in(tu_learnt.context, tu_names.dict);
	if (tu_messages.send && batch.hooks && batch.current)
		outcome = run_batch(&batch);
	Py_XDECREF(batch.hooks);
	Py_XDECREF(batch.current);
	return outcome == FAILED ? NULL : PyBool_FromLong(outcome == TO_TRIO);
}

/* What tasks yield, and Python's method `send` of coroutines. Once per process. */
PyObject *tu_learn_messages(PyObject *Py_UNUSED(module), PyObject *arguments)
{
	PyObject *yield;
	PyObject *sleep;
	PyObject *send;

	if (!PyArg_ParseTuple(arguments, "OO!:learn_messages", &yield, &PyType_Type, &sleep))
		return NULL;
	if (tu_messages.send)
		Py_RETURN_NONE;
	send = PyObject_GetAttr((PyObject *)&PyCoro_Type, tu_names.send);
	if (!send)
		return NULL;
	tu_messages.one = PyLong_FromLong(1);
	if (tu_messages.one && Py_IS_TYPE(send, &PyMethodDescr_Type)) {
		tu_messages.yield = Py_NewRef(yield);
		tu_messages.sleep = (PyTypeObject *)Py_NewRef(sleep);
		tu_messages.send = ((PyMethodDescrObject *)send)->d_method;
	}
	Py_DECREF(send);
	Py_RETURN_NONE;
}
