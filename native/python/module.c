#include "tasks.h"

struct tu_names tu_names;

/* 0, or -1 with an exception. */
static int intern_names(void)
{
	const struct {
		PyObject **name;
		const char *text;
	} all[] = {
		{ &tu_names.abort_func, "abort_func" },
		{ &tu_names.append, "append" },
		{ &tu_names.at_once, "_uring_at_once" },
		{ &tu_names.cr_await, "cr_await" },
		{ &tu_names.data, "data" },
		{ &tu_names.deliver_cancel, "_attempt_delivery_of_any_pending_cancel" },
		{ &tu_names.deliver_ki, "_attempt_delivery_of_pending_ki" },
		{ &tu_names.dict, "__dict__" },
		{ &tu_names.held, "_held" },
		{ &tu_names.recv, "recv" },
		{ &tu_names.send, "send" },
		{ &tu_names.send_conflict_detector, "_send_conflict_detector" },
		{ &tu_names.shut_down, "_did_shutdown_SHUT_WR" },
		{ &tu_names.sock, "_sock" },
		{ &tu_names.socket, "socket" },
		{ &tu_names.task, "task" },
		{ &tu_names.uring, "_uring" },
	};

	for (size_t index = 0; index < sizeof(all) / sizeof(all[0]); index++) {
		*all[index].name = PyUnicode_InternFromString(all[index].text);
		if (!*all[index].name)
			return -1;
	}
	return 0;
}

#define FASTCALL(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef functions[] = {
	{ "learn", tu_learn, METH_VARARGS, NULL },
	{ "learn_run", tu_learn_run, METH_VARARGS, NULL },
	{ "learn_sockets", tu_learn_sockets, METH_VARARGS, NULL },
	{ "attributes_used", tu_attributes_used, METH_NOARGS, NULL },
	{ "capsule_of", tu_capsule_of, METH_O, NULL },
	{ "check_queued", tu_check_queued, METH_O, NULL },
	{ "is_current", tu_answer_current, METH_O, NULL },
	{ "watch_queue", tu_watch_queue, METH_O, NULL },
	{ "learn_methods", FASTCALL(tu_learn_methods), METH_FASTCALL, NULL },
	{ "learn_messages", tu_learn_messages, METH_VARARGS, NULL },
	{ "run_batch", FASTCALL(tu_run_batch), METH_FASTCALL, NULL },
	{ "wake", FASTCALL(tu_wake), METH_FASTCALL, NULL },
	{ "sleeps_on", FASTCALL(tu_sleeps_on), METH_FASTCALL, NULL },
	{ "start_receive", FASTCALL(tu_start_receive), METH_FASTCALL, NULL },
	{ "start_send", FASTCALL(tu_start_send), METH_FASTCALL, NULL },
	{ "start_reading", FASTCALL(tu_start_reading), METH_FASTCALL, NULL },
	{ "begin_attempt", FASTCALL(tu_begin_attempt), METH_FASTCALL, NULL },
	{ "begin_sendto", FASTCALL(tu_begin_sendto), METH_FASTCALL, NULL },
	{ "begin_sendmsg", FASTCALL(tu_begin_sendmsg), METH_FASTCALL, NULL },
	{ "is_resolved", FASTCALL(tu_answer_resolved), METH_FASTCALL, NULL },
	{ "spend", FASTCALL(tu_answer_spend), METH_FASTCALL, NULL },
	{ "receive_many", tu_receive_many, METH_VARARGS, NULL },
	{ "send_many", tu_send_many, METH_VARARGS, NULL },
	{ "uncleared_bytes", tu_uncleared_bytes, METH_O, NULL },
	{ "keep", tu_keep, METH_O, NULL },
	{ NULL, NULL, 0, NULL },
};

/* Sets the module up. What it learns is kept per process, so it works in the main interpreter only. */
static int execute(PyObject *module)
{
	if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
		PyErr_SetString(PyExc_ImportError, "trio_uring works in the main interpreter only, not in a subinterpreter");
		return -1;
	}
	if (intern_names() < 0)
		return -1;
	return PyModule_AddIntConstant(module, "FEW_EVENTS", TU_FEW_EVENTS);
}

/* The functions rely on the GIL: without it two threads could change the attributes of one object. So
 * free-threaded CPython switches the GIL on when it imports this module, and warns. */
static PyModuleDef_Slot slots[] = {
	{ Py_mod_exec, execute },
#if PY_VERSION_HEX >= 0x030c0000
	{ Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED },
#endif
#if PY_VERSION_HEX >= 0x030d0000
	{ Py_mod_gil, Py_MOD_GIL_USED },
#endif
	{ 0, NULL },
};

static struct PyModuleDef definition = {
	.m_base = PyModuleDef_HEAD_INIT,
	.m_name = "trio_uring._tasks",
	.m_methods = functions,
	.m_slots = slots,
};

PyMODINIT_FUNC PyInit__tasks(void)
{
	return PyModuleDef_Init(&definition);
}
