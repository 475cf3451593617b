/* A tick is one call of Python's. With nothing to submit, no deferred work and a timeout of 0 it does not
 * enter the kernel. Otherwise it enters it once; or again, if the first wait has brought only completions
 * that make no event, and time is left.
 *
 * When io_uring_enter both submits and waits, its result is the number of submissions. That hides whether
 * the time was over (ETIME) or a signal came (EINTR). So the clock decides whether the timeout expired. If
 * it did not, and there was no completion at all, the wait was interrupted, and Python has to run its
 * signal handlers. */
#include "core.h"

#include <errno.h>
#include <poll.h>
#include <time.h>

#define NANOSECONDS 1000000000
#define NAP_NS 1000000 /* the pause before a kernel that refuses is asked again */
#define AT_ONCE 64     /* descriptors per poll(2), which fails for more than a process may open */

/* Polls one of the core's own descriptors, unless that is done already. */
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

/* Has the ring watch the interrupt and the signals. Called before it blocks, which alone needs that. */
static void watch_all(tu_core *core)
{
	watch(core, &core->interrupt_watched, atomic_load(&core->interrupt.fd), TU_INTERRUPT_POLL);
	watch(core, &core->signals_watched, core->signal_fd, TU_SIGNAL_POLL);
}

/* Takes in a completion of a watch; true if the watch goes on. If somebody has closed the descriptor, or
 * polls are not allowed, a new watch would fail at once, over and over: then the ring is broken. */
static bool take_watch(tu_core *core, const struct io_uring_cqe *completion)
{
	if (completion->res == -EBADF || tu_ring_is_never_done(completion->res))
		core->ring.broken = completion->res;
	return completion->flags & IORING_CQE_F_MORE;
}

/* poll(2) without a wait; false if the call fails. */
static bool ask(struct pollfd *questions, nfds_t count)
{
	int result;

	do
		result = poll(questions, count, 0);
	while (result < 0 && errno == EINTR);
	return result >= 0;
}

/* Asks poll(2) whether the descriptors of these events are ready. Events of those that are not become
 * TU_NOTHING. If poll(2) cannot be asked, what the ring said counts. */
static void confirm(tu_core *core, tu_event *const *events, uint32_t count, bool *flush)
{
	struct pollfd questions[AT_ONCE];
	bool answered;

	for (uint32_t index = 0; index < count; index++)
		questions[index] = tu_operations_question(events[index]);
	answered = ask(questions, count);
	for (uint32_t index = 0; index < count; index++) {
		bool ready = (!answered && !ask(&questions[index], 1)) || questions[index].revents;

		if (!tu_operations_answer(&core->operations, &core->ring, events[index], ready, flush))
			events[index]->kind = TU_NOTHING;
	}
}

/* Confirms all events that are to be confirmed, and closes the gaps of those that were not.
 * Returns how many events are left. */
static uint32_t confirm_all(tu_core *core, uint32_t count, bool *flush)
{
	tu_event *asked[AT_ONCE];
	uint32_t number = 0;
	uint32_t kept = 0;

	for (uint32_t index = 0; index < count; index++) {
		if (tu_operations_is_to_be_confirmed(&core->events[index]))
			asked[number++] = &core->events[index];
		if (number == AT_ONCE || (number && index == count - 1)) {
			confirm(core, asked, number, flush);
			number = 0;
		}
	}
	for (uint32_t index = 0; index < count; index++)
		if (core->events[index].kind != TU_NOTHING)
			core->events[kept++] = core->events[index];
	return kept;
}

int tu_reap(tu_core *core)
{
	struct io_uring_cqe completion;
	bool flush = false;
	bool asks = false;
	uint32_t count = 0;
	int outcome = 0;

	if (!core->ring.open)
		return -EBADF;
	while (count < core->events_capacity && tu_ring_pop(&core->ring, &completion)) {
		if (completion.user_data == TU_INTERRUPT_POLL) {
			core->interrupt_watched = take_watch(core, &completion);
		} else if (completion.user_data == TU_SIGNAL_POLL) {
			core->signals_watched = take_watch(core, &completion);
			outcome |= TU_SIGNALS;
		} else if (completion.user_data == TU_LIMIT_QUESTION) {
			core->limits = completion.res == -EBADF;
		} else if (tu_operations_is_refused_cancel(&completion)) {
			core->ring.broken = completion.res;
		} else if (tu_operations_complete(&core->operations, &core->buffers, &completion,
						  &core->events[count])) {
			asks |= tu_operations_is_to_be_confirmed(&core->events[count++]);
		}
	}
	if (asks)
		count = confirm_all(core, count, &flush);
	core->events_count = count;
	if (flush)
		tu_ring_flush(&core->ring);
	return outcome | (int)tu_interrupt_consume(&core->interrupt) | (int)count;
}

/* Whether a tick with a timeout of 0 has to enter the kernel. */
static bool must_enter(const tu_core *core)
{
	return tu_ring_has_submissions(&core->ring) ||
	       (tu_ring_flags(&core->ring) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW));
}

/* Whether a tick may go on after this result of an enter: it was no error, or the next tick tries again. */
static bool may_go_on_after(const tu_core *core, int result)
{
	return result == -ETIME || result == -EINTR || tu_ring_is_refused(&core->ring, result);
}

/* Whether there are completions or signalled reasons to process. */
static bool something_came(const tu_core *core)
{
	return tu_ring_has_completions(&core->ring) || atomic_load(&core->interrupt.signalled);
}

/* A tick in a forked child, so that the run can unwind there: it waits for the timeout, and for the interrupt
 * by an eventfd of the child's own. */
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
		if (result < 0 && !may_go_on_after(core, result))
			return result;
	} else {
		core->skipped++;
	}
	if (!core->guest)
		return tu_reap(core);
	core->refused = core->operations.doomed || tu_ring_has_submissions(&core->ring);
	atomic_store(&core->elsewhere, !something_came(core));
	return atomic_load(&core->elsewhere) ? 0 : TU_REAP;
}

/* Sleeps briefly; false if a signal has ended that. */
static bool nap(int64_t time_ns)
{
	struct timespec time = { .tv_nsec = time_ns < NAP_NS ? time_ns : NAP_NS };

	return nanosleep(&time, NULL) == 0;
}

/* Waits once: for completions; or, while the kernel refuses submissions, until it is to be asked again. */
static int wait_once(tu_core *core, int64_t left)
{
	unsigned least;
	int result = tu_ring_has_aside(&core->ring) ? tu_ring_flush(&core->ring) : 0;

	if (result >= 0) {
		/* `watch_all` and the flush may have stashed completions: the kernel would not count them. */
		least = tu_ring_has_completions(&core->ring) ? 0 : 1;
		result = tu_ring_enter(&core->ring, least, tu_operations_patience(&core->operations, left));
	}
	if (tu_ring_is_refused(&core->ring, result) && !tu_ring_has_completions(&core->ring))
		return nap(left) ? 0 : -EINTR;
	return result;
}

int tu_wait(tu_core *core, int64_t timeout_ns)
{
	int64_t deadline = tu_now() + timeout_ns;
	int64_t left = timeout_ns;
	bool interrupted;
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
		watch_all(core);
		if (tu_interrupt_sleep(&core->interrupt))
			return tu_poll(core);
		result = wait_once(core, left);
		tu_interrupt_wake(&core->interrupt);
		if (result < 0 && !may_go_on_after(core, result))
			return result;
		interrupted = !core->ring.refused_last && !tu_ring_has_completions(&core->ring);
		interrupted |= result == -EINTR;
		outcome = tu_reap(core);
		left = deadline - tu_now();
		if (!outcome && interrupted && left > 0)
			return TU_INTERRUPTED;
	} while (!outcome && left > 0);
	return outcome;
}

/* Called on a thread that is not the owner, which may cancel and flush meanwhile. It only looks at words that
 * are for any thread, and waits for the signals and for the interrupt's eventfd, to which the kernel writes
 * when completions arrive. */
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
	if (core->refused && timeout_ns > NAP_NS)
		timeout = (struct timespec){ .tv_nsec = NAP_NS };
	tu_ring_set_notifications(&core->ring, true);
	if (!tu_interrupt_sleep(&core->interrupt)) {
		if (!tu_ring_flags(&core->ring) && !tu_ring_has_arrivals(&core->ring))
			result = ppoll(watched, 2, &timeout, NULL);
		tu_interrupt_wake(&core->interrupt);
	}
	tu_ring_set_notifications(&core->ring, false);
	if (watched[0].revents)
		tu_interrupt_drain(&core->interrupt);
	atomic_store(&core->elsewhere, false);
	return (result || core->refused ? TU_REAP : 0) | (watched[1].revents ? TU_SIGNALS : 0);
}
