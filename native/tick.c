/* A tick is one call. With nothing to submit, no deferred work and a timeout of
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
#include <time.h>

#define NANOSECONDS 1000000000

static int64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (int64_t)time.tv_sec * NANOSECONDS + time.tv_nsec;
}

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
		int64_t timeout;
		unsigned least;
		bool completed;

		watch_all(core);
		if (tu_interrupt_sleep(&core->interrupt))
			return tu_poll(core);
		/* To watch may have stashed completions, which the kernel no longer counts. */
		least = tu_ring_has_completions(&core->ring) ? 0 : 1;
		timeout = tu_operations_patience(&core->operations, left);
		result = tu_ring_enter(&core->ring, least, timeout);
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
	tu_ring_set_notifications(&core->ring, true);
	if (!tu_interrupt_sleep(&core->interrupt)) {
		if (!tu_ring_flags(&core->ring) && !tu_ring_has_completions(&core->ring))
			result = ppoll(watched, 2, &timeout, NULL);
		tu_interrupt_wake(&core->interrupt);
	}
	tu_ring_set_notifications(&core->ring, false);
	if (watched[0].revents)
		tu_interrupt_drain(&core->interrupt);
	return (result ? TU_REAP : 0) | (watched[1].revents ? TU_SIGNALS : 0);
}
