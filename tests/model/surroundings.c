/* What the model of the interrupt has beside the C of native/: the kernel, Trio, and the Python of
 * trio_uring/loop/, each as far as it has to do with waking. It is translated together with that C, and
 * takes the place of the functions there that it defines too.
 *
 * Words that threads share are used by atomic operations only; the other fields belong to one thread at a
 * time. `jobs` and what else the GIL protects is used with it. */

#define EFD_CLOEXEC 1
#define EFD_NONBLOCK 2
#define EINTR 4
#define EAGAIN 11
#define ENOMEM 12
#define EBUSY 16
#define EEXIST 17
#define EBADF 9
#define ENOTCONN 107
#define ETIME 62
#define IORING_SQ_CQ_OVERFLOW 2
#define IORING_SQ_TASKRUN 4
#define IORING_CQ_EVENTFD_DISABLED 1

#define GIL 1
#define GUEST 2 /* UringManager._guest_lock */

/* What a host's callback does */
#define CANCEL 1
#define FLUSH 2
#define WAKE_AND_REAP 3
#define CLOSE 4

/* The ring of the kernel's */

static unsigned io_uring_sq_ready(const struct io_uring *ring)
{
	return core->ring.submissions;
}

static bool tu_ring_has_submissions(const struct tu_ring *ring)
{
	return core->ring.submissions;
}

static bool tu_ring_has_completions(const struct tu_ring *ring)
{
	return __atomic_load_n(core->ring.tail, __ATOMIC_ACQUIRE) != core->ring.head;
}

static unsigned io_uring_cq_ready(const struct io_uring *ring)
{
	return tu_ring_has_completions(ring);
}

/* This kernel never refuses. */
static int stash_completions(struct tu_ring *ring)
{
	return 0;
}

/* A completion. As on x86, whose loads may pass earlier stores. */
static void complete(void)
{
	core->ring.posted++;
	__atomic_store_n(core->ring.tail, core->ring.posted, __ATOMIC_RELEASE);
	if (core->guest && !(__atomic_load_n(core->ring.uring.cq.kflags, __ATOMIC_RELAXED) & IORING_CQ_EVENTFD_DISABLED))
		notify();
}

/* io_req_local_work_add: another processor has something for the owner to do. The kernel owes it that the
 * flag is seen before it looks at the other one: on x86, atomic_or is a barrier. */
static void add_work(void)
{
	if (push_work())
		return;
	__atomic_or_fetch(core->ring.uring.sq.kflags, IORING_SQ_TASKRUN, __ATOMIC_SEQ_CST);
	if (core->guest && !(__atomic_load_n(core->ring.uring.cq.kflags, __ATOMIC_SEQ_CST) & IORING_CQ_EVENTFD_DISABLED))
		notify();
}

/* io_uring_enter. The kernel answers a cancel at once. */
static int enter(struct tu_ring *ring, unsigned minimum, int64_t timeout_ns)
{
	while (core->ring.submissions) {
		core->ring.submissions--;
		complete();
	}
	if (has_work()) {
		__atomic_and_fetch(core->ring.uring.sq.kflags, ~IORING_SQ_TASKRUN, __ATOMIC_SEQ_CST);
		take_work();
		complete();
	}
	return 0;
}

static int enable(struct tu_ring *ring)
{
	return 0;
}

static void note_result(struct tu_ring *ring, int result)
{
}

static int tu_ring_flush_patiently(struct tu_ring *ring)
{
	return tu_ring_flush(ring);
}

/* The core */

static int64_t tu_now(void)
{
	return 0;
}

static void tu_buffers_take_back(struct tu_buffers *buffers)
{
}

static void tu_operations_retry_doomed(struct tu_operations *operations, struct tu_ring *ring)
{
}

static bool tu_operations_withdraw(struct tu_operations *operations, struct tu_ring *ring, uint32_t slot)
{
	core->ring.submissions++;
	return 0;
}

static void watch_all(tu_core *core)
{
}

/* The multishot poll of the eventfd goes to the kernel with the first wait. A write that comes then, or has
 * come, ends the wait, by a completion. */
static int wait_once(tu_core *core, int64_t left)
{
	arm();
	wait_for_write();
	complete();
	return 0;
}

int tu_reap(tu_core *core)
{
	if (!core->ring.open)
		return -EBADF;
	core->ring.head = __atomic_load_n(core->ring.tail, __ATOMIC_ACQUIRE);
	return (int)tu_interrupt_consume(&core->interrupt);
}

void tu_release(tu_core *core)
{
	core->ring.open = 0;
}

/* Python */

/* loop/manager.py: signaller */
static void signal(void)
{
	if (!(atomic_load_explicit(&core->interrupt.signalled, memory_order_relaxed) & TU_POSTED)) {
		release(GIL);
		tu_signal_posted(core);
		acquire(GIL);
	}
}

/* TrioToken.run_sync_soon */
static void run_sync_soon(void)
{
	acquire(GIL);
	python.jobs++;
	signal();
	release(GIL);
}

/* GuestState.force_guest_tick_asap, which Runner.reschedule calls */
static void reschedule(void)
{
	python.runnable = 1;
	if (python.scheduled)
		return;
	python.scheduled = 1;
	tu_signal_forced(core);
}

/* process_events: the task of the entry queue takes all jobs as it runs. */
static void process_events(int events)
{
	if (events & TU_POSTED || python.entry) {
		python.entry = 0;
		acquire(GIL);
		python.jobs = 0;
		release(GIL);
	}
}

/* loop/closing.py: reap, as the host of a guest run calls it */
static void reap(void)
{
	int events = tu_reap(core);

	if (events & TU_FORCED)
		tu_signal_forced(core);
	if (events & TU_POSTED) {
		python.entry = 1;
		reschedule();
	}
}

/* loop/manager.py: _get_events_elsewhere */
static int get_events_elsewhere(void)
{
	int events;

	acquire(GUEST);
	if (manager.closed) {
		release(GUEST);
		return TU_REAP;
	}
	manager.guest_waiting = 1;
	release(GUEST);
	events = tu_guest_wait(core, 1);
	acquire(GUEST);
	manager.guest_waiting = 0;
	if (manager.closed) {
		tu_release(core);
		tu_close_interrupt(core);
	}
	release(GUEST);
	return events;
}

/* loop/manager.py: close_interrupt */
static void close_interrupt(void)
{
	acquire(GUEST);
	if (!manager.guest_waiting)
		tu_close_interrupt(core);
	release(GUEST);
}

/* loop/closing.py: _give_back */
static void give_back(void)
{
	acquire(GUEST);
	if (manager.guest_waiting)
		tu_signal_forced(core);
	else
		tu_release(core);
	release(GUEST);
}

/* loop/closing.py: close, on the owner's thread. What it waits for may end at once, by an error. */
static void close_manager(void)
{
	acquire(GUEST);
	manager.closed = 1;
	release(GUEST);
	reap();
	if (!tu_interrupt_sleep(&core->interrupt))
		tu_interrupt_wake(&core->interrupt);
	give_back();
	close_interrupt();
}

/* The threads */

static void owner(void)
{
	for (;;)
		process_events(tu_wait(core, 1));
}

static void poster(void)
{
	run_sync_soon();
	run_sync_soon();
}

static void post_once(void)
{
	run_sync_soon();
}

static void forcer(void)
{
	tu_signal_forced(core);
}

static void closer(void)
{
	tu_signal_posted(core);
	tu_close_interrupt(core);
	tu_signal_forced(core);
}

static void device(void)
{
	add_work();
	add_work();
}

/* GuestState.guest_tick, and between the ticks what a host's callbacks do */
static void host(void)
{
	int events = 0;
	int call;

	for (;;) {
		if (events & TU_REAP)
			events = tu_reap(core);
		process_events(events);
		python.runnable = 0;
		events = tu_poll(core);
		if (events)
			continue;
		python.scheduled = 0;
		python.worker = 1;
		for (;;) {
			call = next_call();
			if (!call)
				break;
			if (call == CANCEL)
				tu_cancel(core, 1);
			if (call == FLUSH)
				tu_flush(core);
			if (call == WAKE_AND_REAP) {
				reschedule();
				reap();
			}
			if (call == CLOSE) {
				close_manager();
				return;
			}
		}
		python.scheduled = 1;
		events = python.events;
	}
}

static void worker(void)
{
	for (;;) {
		wait_for_tick();
		python.events = get_events_elsewhere();
		python.worker = 3;
	}
}

/* A forked child, which has the parent's words as they were. What runs before our own callback may signal. */
static void child(void)
{
	tu_signal_forced(core);
	tu_interrupt_lose(&core->interrupt);
	tu_close_interrupt(core);
	core->forked = 1;
	for (;;)
		process_events(wait_without_ring(core, 1));
}

static void child_thread(void)
{
	wait_for_fork();
	run_sync_soon();
}

static void device_once(void)
{
	add_work();
}
