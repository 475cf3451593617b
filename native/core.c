/* The core: a ring, its operations and its interrupt, turned over tick by tick.
 *
 * A tick is one call. With nothing to submit, no deferred work and a timeout of
 * 0 it enters the kernel not at all; otherwise once, unless what came was for
 * us alone and time is left.
 *
 * When io_uring_enter both submits and waits, its result is the number of
 * submissions: that the time is over (ETIME) or that a signal came (EINTR) is
 * hidden. So the clock decides whether the timeout expired. If it did not and
 * there was no completion at all, the wait was interrupted, and Python has to
 * run its signal handlers. */
#include "core.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NANOSECONDS 1000000000
#define RETRY_NS 1000000
#define MOST_BYTES 0x7ffff000U /* that one send takes (MAX_RW_COUNT) */

static int64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (int64_t)time.tv_sec * NANOSECONDS + time.tv_nsec;
}

/* Set-up and end */

int tu_open(tu_core *core, uint32_t entries, uint32_t cq_entries, uint32_t setup_flags, int no_iowait)
{
	int error;

	memset(core, 0, sizeof(*core));
	atomic_init(&core->interrupt.fd, -1);
	core->signal_fd = -1;
	error = tu_interrupt_open(&core->interrupt);
	if (!error)
		error = tu_ring_open(&core->ring, entries, cq_entries, setup_flags);
	if (!error)
		error = tu_operations_open(&core->operations);
	if (!error) {
		core->ring.no_iowait = no_iowait && (core->ring.uring.features & IORING_FEAT_NO_IOWAIT);
		core->events_capacity = core->ring.uring.cq.ring_entries;
		core->events = calloc(core->events_capacity, sizeof(*core->events));
		error = core->events ? 0 : -ENOMEM;
	}
	if (error) {
		tu_release(core);
		tu_close_interrupt(core);
	}
	return error;
}

static void set_notifications(tu_core *core, bool on)
{
	unsigned *flags = core->ring.uring.cq.kflags;

	if (on)
		__atomic_and_fetch(flags, ~IORING_CQ_EVENTFD_DISABLED, __ATOMIC_SEQ_CST);
	else
		__atomic_or_fetch(flags, IORING_CQ_EVENTFD_DISABLED, __ATOMIC_SEQ_CST);
}

/* A guest run's completions signal the eventfd of the interrupt: whatever wakes the
 * worker thread, the words say what it was. */
int tu_start(tu_core *core, int guest)
{
	int result;
	int fd;

	core->started = true;
	core->guest = guest;
	if (!guest)
		return 0;
	fd = atomic_load(&core->interrupt.fd);
	set_notifications(core, false);
	result = tu_ring_register(&core->ring, IORING_REGISTER_EVENTFD, &fd, 1);
	return result < 0 ? result : 0;
}

void tu_watch_signals(tu_core *core, int fd)
{
	core->signal_fd = fd;
}

static void cancel_watches(tu_core *core)
{
	static const uint64_t watches[] = { TU_INTERRUPT_POLL, TU_SIGNAL_POLL };

	for (unsigned index = 0; index < 2; index++) {
		struct io_uring_sqe *sqe = tu_ring_sqe(&core->ring);

		if (!sqe)
			return;
		io_uring_prep_cancel64(sqe, watches[index], 0);
		io_uring_sqe_set_data64(sqe, TU_NOBODY);
	}
}

/* Nanoseconds to wait at most: what could not be cancelled is tried again soon. */
static int64_t patience(const tu_core *core, int64_t timeout_ns)
{
	return core->operations.doomed && timeout_ns > RETRY_NS ? RETRY_NS : timeout_ns;
}

/* The kernel may write to the memory of a caller's operation until that completes,
 * and it cannot cancel what a worker of its has begun. */
static void wait_for_pinned(tu_core *core)
{
	struct io_uring_cqe completion;

	while (core->operations.pinned) {
		while (tu_ring_pop(&core->ring, &completion))
			tu_operations_discard(&core->operations, &completion);
		if (core->operations.pinned && tu_ring_enter(&core->ring, 1, patience(core, NANOSECONDS)) == -EBADF)
			return;
		if (core->operations.doomed)
			tu_operations_retry_doomed(&core->operations, &core->ring);
	}
}

/* A forked child that lives on keeps the ring, and every file that it pins,
 * alive beyond our release of it. So nothing may be left in it. */
void tu_cancel_all(tu_core *core)
{
	if (!core->ring.open || !core->ring.enabled)
		return;
	tu_operations_cancel_all(&core->operations, &core->ring);
	if (core->interrupt_watched || core->signals_watched)
		cancel_watches(core);
	tu_ring_flush(&core->ring);
	wait_for_pinned(core);
}

/* Where the owner has not waited for what is pending, the kernel goes on with it for a
 * while after the ring is closed: its buffers stay mapped for good. */
void tu_release(tu_core *core)
{
	tu_ring_close(&core->ring);
	if (!core->operations.pinned)
		tu_buffers_close(&core->buffers);
	tu_operations_close(&core->operations);
	free(core->events);
	core->events = NULL;
}

/* The interrupt */

const uint32_t *tu_signalled(tu_core *core)
{
	return (const uint32_t *)&core->interrupt.signalled;
}

void tu_signal_woken(tu_core *core)
{
	tu_interrupt_signal(&core->interrupt, TU_WOKEN);
}

void tu_signal_forced(tu_core *core)
{
	tu_interrupt_signal(&core->interrupt, TU_FORCED);
}

void tu_close_interrupt(tu_core *core)
{
	tu_interrupt_close(&core->interrupt);
}

/* A tick */

static void watch(tu_core *core, bool *watched, int fd, uint64_t user_data)
{
	struct io_uring_sqe *sqe;

	if (*watched || fd < 0)
		return;
	sqe = tu_ring_sqe(&core->ring);
	if (!sqe)
		return;
	io_uring_prep_poll_multishot(sqe, fd, POLLIN);
	io_uring_sqe_set_data64(sqe, user_data);
	*watched = true;
}

/* Only before it blocks does the ring need to watch anything for itself. */
static void watch_all(tu_core *core)
{
	watch(core, &core->interrupt_watched, atomic_load(&core->interrupt.fd), TU_INTERRUPT_POLL);
	watch(core, &core->signals_watched, core->signal_fd, TU_SIGNAL_POLL);
}

int tu_reap(tu_core *core)
{
	struct io_uring_cqe completion;
	bool flush = false;
	uint32_t count = 0;
	int outcome = 0;

	if (!core->ring.open)
		return -EBADF;
	while (count < core->events_capacity && tu_ring_pop(&core->ring, &completion)) {
		bool more = completion.flags & IORING_CQE_F_MORE;

		if (completion.user_data == TU_INTERRUPT_POLL) {
			core->interrupt_watched = more;
		} else if (completion.user_data == TU_SIGNAL_POLL) {
			core->signals_watched = more;
			outcome |= TU_SIGNALS;
		} else if (tu_operations_complete(&core->operations, &core->ring, &core->buffers, &completion,
						  &core->events[count], &flush)) {
			count++;
		}
	}
	if (flush)
		tu_ring_flush(&core->ring);
	return outcome | (int)tu_interrupt_consume(&core->interrupt) | (int)count;
}

static bool must_enter(const tu_core *core)
{
	return tu_ring_has_submissions(&core->ring) ||
	       (tu_ring_flags(&core->ring) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW));
}

/* The next tick tries again, with whatever completions there are out of the way. */
static bool passes(int result)
{
	return result == -ETIME || result == -EINTR || tu_ring_is_short(result);
}

static bool something_came(const tu_core *core)
{
	return tu_ring_has_completions(&core->ring) || atomic_load(&core->interrupt.signalled);
}

/* In a forked child: deadlines pass, and the interrupt wakes through an eventfd of
 * the child's own, so that a run can unwind there. */
static int wait_without_ring(tu_core *core, int64_t timeout_ns)
{
	struct timespec timeout = { timeout_ns / NANOSECONDS, timeout_ns % NANOSECONDS };
	struct pollfd interrupt = { .events = POLLIN };
	uint32_t signalled;
	int result = 0;

	if (timeout_ns && atomic_load(&core->interrupt.fd) < 0)
		tu_interrupt_open(&core->interrupt);
	interrupt.fd = atomic_load(&core->interrupt.fd);
	if (timeout_ns && !tu_interrupt_sleep(&core->interrupt)) {
		result = ppoll(&interrupt, 1, &timeout, NULL);
		tu_interrupt_wake(&core->interrupt);
	}
	if (result > 0)
		tu_interrupt_drain(&core->interrupt);
	signalled = tu_interrupt_consume(&core->interrupt);
	return result ? TU_INTERRUPTED | (int)signalled : (int)signalled;
}

int tu_poll(tu_core *core)
{
	int result;

	if (!core->ring.open)
		return wait_without_ring(core, 0);
	if (!core->started)
		return TU_NOT_STARTED;
	tu_buffers_take_back(&core->buffers);
	if (core->operations.doomed)
		tu_operations_retry_doomed(&core->operations, &core->ring);
	if (must_enter(core)) {
		result = tu_ring_enter(&core->ring, 0, -1);
		if (result < 0 && !passes(result))
			return result;
	} else {
		core->skipped++;
	}
	if (core->guest)
		return something_came(core) ? TU_REAP : 0;
	return tu_reap(core);
}

int tu_wait(tu_core *core, int64_t timeout_ns)
{
	int64_t deadline = now() + timeout_ns;
	int64_t left = timeout_ns;
	int outcome;
	int result;

	if (!core->ring.open)
		return wait_without_ring(core, timeout_ns);
	if (!core->started)
		return TU_NOT_STARTED;
	if (something_came(core) || core->operations.doomed) {
		outcome = tu_poll(core);
		if (outcome)
			return outcome;
	}
	tu_buffers_take_back(&core->buffers);
	do {
		bool completed;

		watch_all(core);
		if (tu_interrupt_sleep(&core->interrupt))
			return tu_poll(core);
		/* To watch may have stashed completions, which the kernel no longer counts. */
		result = tu_ring_enter(&core->ring, tu_ring_has_completions(&core->ring) ? 0 : 1, patience(core, left));
		tu_interrupt_wake(&core->interrupt);
		if (result < 0 && !passes(result))
			return result;
		completed = tu_ring_has_completions(&core->ring);
		outcome = tu_reap(core);
		left = deadline - now();
		if (!outcome && !completed && left > 0)
			return TU_INTERRUPTED;
	} while (!outcome && left > 0);
	return outcome;
}

/* Not the owner: looks at shared words and waits for the interrupt's eventfd, which
 * the kernel signals when completions arrive, and for signals. */
int tu_guest_wait(tu_core *core, int64_t timeout_ns)
{
	struct timespec timeout = { timeout_ns / NANOSECONDS, timeout_ns % NANOSECONDS };
	struct pollfd watched[] = {
		{ .fd = atomic_load(&core->interrupt.fd), .events = POLLIN },
		{ .fd = core->signal_fd, .events = POLLIN },
	};
	int result = 1;

	if (!core->ring.open)
		return -EBADF;
	set_notifications(core, true);
	if (!tu_interrupt_sleep(&core->interrupt)) {
		if (!tu_ring_flags(&core->ring) && !tu_ring_has_completions(&core->ring))
			result = ppoll(watched, 2, &timeout, NULL);
		tu_interrupt_wake(&core->interrupt);
	}
	set_notifications(core, false);
	if (watched[0].revents)
		tu_interrupt_drain(&core->interrupt);
	return (result ? TU_REAP : 0) | (watched[1].revents ? TU_SIGNALS : 0);
}

/* Readiness */

int tu_poll_add(tu_core *core, int fd, int kind)
{
	if (fd < 0 || !core->ring.open)
		return -EBADF;
	return tu_operations_poll(&core->operations, &core->ring, fd, (enum tu_kind)kind);
}

int tu_poll_cancel(tu_core *core, int slot, int other_slot)
{
	int flush = 0;

	if (!core->ring.open)
		return 0;
	if (slot)
		flush |= tu_operations_cancel(&core->operations, &core->ring, (uint32_t)slot);
	if (other_slot)
		flush |= tu_operations_cancel(&core->operations, &core->ring, (uint32_t)other_slot);
	return flush ? tu_ring_flush(&core->ring) : 0;
}

/* Callers' operations */

int tu_submit(tu_core *core, int opcode, int fd, void *address, uint32_t length, uint64_t offset, uint32_t flags,
	      int other_fd)
{
	struct tu_submission submission = {
		.opcode = (uint8_t)opcode,
		.entry_flags = (uint8_t)(opcode >> 8),
		.fd = fd,
		.address = (uintptr_t)address,
		.length = length,
		.offset = offset,
		.flags = flags,
		.other_fd = other_fd,
	};

	if (!core->ring.open)
		return -EBADF;
	return tu_operations_submit(&core->operations, &core->ring, &submission);
}

int tu_cancel(tu_core *core, int slot)
{
	return !core->ring.open || tu_operations_withdraw(&core->operations, &core->ring, (uint32_t)slot);
}

int tu_send(tu_core *core, int fd, const char *data, size_t length, int whole)
{
	struct tu_submission submission = {
		.opcode = IORING_OP_SEND,
		.fd = fd,
		.address = (uintptr_t)data,
		.length = length > MOST_BYTES ? MOST_BYTES : (uint32_t)length,
		.flags = MSG_NOSIGNAL | (whole ? MSG_WAITALL : MSG_DONTWAIT),
	};

	if (!core->ring.open)
		return -EBADF;
	return tu_operations_submit(&core->operations, &core->ring, &submission);
}

/* Receiving */

int tu_provide_buffers(tu_core *core, uint32_t count, uint32_t size)
{
	return core->ring.open ? tu_buffers_open(&core->buffers, &core->ring, count, size) : -EBADF;
}

void *tu_buffer_memory(tu_core *core)
{
	return core->buffers.memory;
}

int tu_receive(tu_core *core, int fd, uint32_t length)
{
	if (!core->ring.open)
		return -EBADF;
	return tu_operations_receive(&core->operations, &core->ring, fd, length);
}

int tu_accept(tu_core *core, int fd, int multishot)
{
	if (!core->ring.open)
		return -EBADF;
	return tu_operations_accept(&core->operations, &core->ring, fd, multishot);
}

int tu_flush(tu_core *core)
{
	return core->ring.open ? tu_ring_flush(&core->ring) : 0;
}

/* What there is to see */

tu_event *tu_events(tu_core *core)
{
	return core->events;
}

uint32_t tu_events_capacity(tu_core *core)
{
	return core->events_capacity;
}

void tu_read_statistics(tu_core *core, tu_statistics *statistics)
{
	*statistics = (tu_statistics){
		.setup_flags = core->ring.uring.flags,
		.features = core->ring.uring.features,
		.entries = core->ring.uring.sq.ring_entries,
		.cq_entries = core->ring.uring.cq.ring_entries,
		.entered = core->ring.entered,
		.skipped = core->skipped,
		.in_flight = core->operations.in_flight,
	};
}
