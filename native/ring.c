#include "ring.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SECOND_NS 1000000000
#define PATIENCE_NS (2LL * SECOND_NS) /* a kernel that refuses for longer breaks the ring */
#define MOST_BETWEEN_NS (SECOND_NS / 10)

int64_t tu_now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (int64_t)time.tv_sec * SECOND_NS + time.tv_nsec;
}

/* Of liburing only the mapping of the queues is used. Its own set-up, before 2.5, fills in the index array
 * of a NO_SQARRAY ring, which has none, and so overwrites the head of the queue. */
int tu_ring_open(struct tu_ring *ring, uint32_t entries, uint32_t cq_entries, uint32_t setup_flags)
{
	struct io_uring_params params = { .flags = setup_flags, .cq_entries = cq_entries };
	int fd = io_uring_setup(entries, &params);
	int result;

	if (fd < 0)
		return fd;
	result = io_uring_queue_mmap(fd, &params, &ring->uring);
	if (result < 0) {
		close(fd);
		return result;
	}
	if (!(setup_flags & IORING_SETUP_NO_SQARRAY))
		for (unsigned index = 0; index < params.sq_entries; index++)
			ring->uring.sq.array[index] = index;
	/* Which mapping alone does in some releases of liburing, and not from 2.5 to 2.14. */
	ring->uring.ring_fd = ring->uring.enter_ring_fd = fd;
	ring->uring.flags = params.flags;
	ring->uring.features = params.features;
	ring->identity = tu_identify(fd);
	ring->open = true;
	ring->enabled = !(setup_flags & IORING_SETUP_R_DISABLED);
	return 0;
}

void tu_ring_close(struct tu_ring *ring)
{
	if (!ring->open)
		return;
	tu_ring_check_descriptor(ring);
	if (ring->lost)
		ring->uring.ring_fd = -1;
	ring->open = false;
	io_uring_queue_exit(&ring->uring);
	free(ring->stash);
	ring->stash = NULL;
	ring->stash_head = ring->stash_tail = ring->stash_capacity = 0;
	free(ring->aside);
	ring->aside = NULL;
	ring->aside_head = ring->aside_tail = ring->aside_capacity = 0;
}

void tu_ring_check_descriptor(struct tu_ring *ring)
{
	if (!ring->open || tu_identity_is(&ring->identity, tu_identify(ring->uring.ring_fd)))
		return;
	ring->lost = true;
	ring->broken = -EBADF;
}

/* Moves into the queue what was put aside, as far as there is room. */
static void queue_what_is_aside(struct tu_ring *ring)
{
	struct io_uring_sqe *sqe;

	while (tu_ring_has_aside(ring) && (sqe = io_uring_get_sqe(&ring->uring)))
		memcpy(sqe, &ring->aside[ring->aside_head++], sizeof(*sqe));
	if (!tu_ring_has_aside(ring))
		ring->aside_head = ring->aside_tail = 0;
}

/* Whether something is pending that an earlier enter has offered to the kernel. */
static bool is_left_from_before(const struct tu_ring *ring)
{
	return tu_ring_has_aside(ring) || *ring->uring.sq.khead != ring->uring.sq.sqe_head;
}

/* Checks what is queued and publishes it to the kernel. Returns how many submissions are pending, those
 * that an earlier enter has left included. */
static unsigned publish(struct tu_ring *ring)
{
	struct io_uring_sq *sq = &ring->uring.sq;

	if (ring->check && (ring->unchecked || is_left_from_before(ring)))
		ring->check(ring->check_argument);
	ring->unchecked = 0;
	queue_what_is_aside(ring);
	if (sq->sqe_head != sq->sqe_tail) {
		sq->sqe_head = sq->sqe_tail;
		io_uring_smp_store_release(sq->ktail, sq->sqe_tail);
	}
	return io_uring_sq_ready(&ring->uring);
}

int tu_ring_register(struct tu_ring *ring, unsigned opcode, void *argument, unsigned count)
{
	sigset_t all;
	sigset_t before;
	int result;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	result = io_uring_register(ring->uring.ring_fd, opcode, argument, count);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return result;
}

/* Enables the ring, if it was set up disabled. 0 or -errno. */
static int enable(struct tu_ring *ring)
{
	int result = ring->enabled ? 0 : tu_ring_register(ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);

	ring->enabled = result >= 0;
	return result;
}

static int enter(struct tu_ring *ring, unsigned minimum, int64_t timeout_ns)
{
	struct __kernel_timespec timeout = {
		.tv_sec = timeout_ns / SECOND_NS,
		.tv_nsec = timeout_ns % SECOND_NS,
	};
	struct io_uring_getevents_arg argument = { .ts = (uint64_t)(uintptr_t)&timeout };
	unsigned flags = IORING_ENTER_GETEVENTS;

	ring->entered++;
	if (timeout_ns < 0)
		return io_uring_enter2(ring->uring.ring_fd, publish(ring), 0, flags, NULL, 0);
	flags |= IORING_ENTER_EXT_ARG | ring->wait_flags;
	return io_uring_enter2(ring->uring.ring_fd, publish(ring), minimum, flags, (void *)&argument, sizeof(argument));
}

/* Whether a wait has ended by its timeout or by a signal. */
static bool is_cut_short(int result)
{
	return result == -EINTR || result == -ETIME;
}

/* Notes that the kernel has refused. Patience is for time in which it was asked: a process that was stopped
 * between two refusals, or a machine that was suspended, has not asked it. So what lies between two refusals
 * counts for MOST_BETWEEN_NS at most. */
static void note_refusal(struct tu_ring *ring, int result)
{
	int64_t now = tu_now();
	int64_t between = ring->refused_last ? now - ring->refused_last : 0;

	ring->refused_for += between < MOST_BETWEEN_NS ? between : MOST_BETWEEN_NS;
	ring->refused_last = now;
	if (ring->refused_for > PATIENCE_NS)
		ring->broken = result;
}

/* Notes what the result of an enter means for the ring: that it is refused, or broken. */
static void note_result(struct tu_ring *ring, int result)
{
	if (result >= 0 || is_cut_short(result))
		ring->refused_last = ring->refused_for = 0;
	else if (tu_ring_is_refused(ring, result))
		note_refusal(ring, result);
	else if (result != -EEXIST)
		ring->broken = result;
}

/* Whether the kernel says that deferred work is left. Clears the flag that says so: a worker of the
 * kernel's first queues its work and then sets the flag. If the owner has run the work in between, the
 * kernel has nothing to run, and leaves the flag set: a guest run would never sleep. */
static bool take_taskrun(struct tu_ring *ring)
{
	if (!(tu_ring_flags(ring) & IORING_SQ_TASKRUN))
		return false;
	__atomic_and_fetch(ring->uring.sq.kflags, ~IORING_SQ_TASKRUN, __ATOMIC_SEQ_CST);
	return true;
}

/* Gives the flag back after an enter that has not come to running the work. */
static void give_taskrun_back(struct tu_ring *ring)
{
	__atomic_or_fetch(ring->uring.sq.kflags, IORING_SQ_TASKRUN, __ATOMIC_SEQ_CST);
}

int tu_ring_enter(struct tu_ring *ring, unsigned minimum, int64_t timeout_ns)
{
	bool taken = false;
	int result;

	if (ring->broken)
		return ring->broken;
	result = enable(ring);
	if (result >= 0) {
		taken = timeout_ns < 0 && take_taskrun(ring);
		result = enter(ring, minimum, timeout_ns);
	}
	/* The kernel submits first. Where it has not taken all, or fails, it runs nothing. */
	if (taken && (result < 0 || io_uring_sq_ready(&ring->uring)))
		give_taskrun_back(ring);
	/* A kernel submits before it waits. If it did not, a filter has answered, and may do so for ever. */
	if ((!result || is_cut_short(result)) && io_uring_sq_ready(&ring->uring))
		result = -EAGAIN;
	note_result(ring, result);
	return result;
}

/* Moves all completions from the queue into the stash. 0 or -ENOMEM. */
static int stash_completions(struct tu_ring *ring)
{
	uint32_t ready = io_uring_cq_ready(&ring->uring);
	uint32_t needed = ring->stash_tail + ready;
	struct io_uring_cqe *stash;

	if (needed > ring->stash_capacity) {
		stash = realloc(ring->stash, (size_t)2 * needed * sizeof(*stash));
		if (!stash)
			return -ENOMEM;
		ring->stash = stash;
		ring->stash_capacity = 2 * needed;
	}
	for (uint32_t index = 0; index < ready; index++) {
		unsigned at = (*ring->uring.cq.khead + index) & ring->uring.cq.ring_mask;

		memcpy(&ring->stash[ring->stash_tail++], &ring->uring.cq.cqes[at], sizeof(*ring->stash));
	}
	io_uring_cq_advance(&ring->uring, ready);
	return 0;
}

int tu_ring_flush(struct tu_ring *ring)
{
	int result;

	do {
		result = tu_ring_enter(ring, 0, -1);
		if (tu_ring_is_refused(ring, result)) {
			if (!io_uring_cq_ready(&ring->uring))
				return result;
			result = stash_completions(ring);
		}
		if (result < 0 && result != -EINTR)
			return result;
	} while (tu_ring_has_submissions(ring) || (tu_ring_flags(ring) & IORING_SQ_TASKRUN));
	return 0;
}

void tu_ring_make_room(struct tu_ring *ring)
{
	while (io_uring_cq_ready(&ring->uring) + io_uring_sq_ready(&ring->uring) >= ring->uring.cq.ring_entries ||
	       (tu_ring_flags(ring) & IORING_SQ_CQ_OVERFLOW))
		if (tu_ring_flush(ring) < 0 || stash_completions(ring) < 0)
			return;
}

int tu_ring_flush_patiently(struct tu_ring *ring)
{
	static const struct timespec nap = { .tv_nsec = 1000000 };
	int result;

	while (tu_ring_is_refused(ring, result = tu_ring_flush(ring)))
		nanosleep(&nap, NULL);
	return result;
}

/* A new entry outside of the queue; NULL if there is no memory. */
static struct io_uring_sqe *put_aside(struct tu_ring *ring)
{
	uint32_t capacity = ring->aside_capacity ? 2 * ring->aside_capacity : 64;
	struct io_uring_sqe *aside = ring->aside;

	if (ring->aside_tail == ring->aside_capacity) {
		aside = realloc(aside, capacity * sizeof(*aside));
		if (!aside)
			return NULL;
		ring->aside = aside;
		ring->aside_capacity = capacity;
	}
	return memset(&aside[ring->aside_tail++], 0, sizeof(*aside));
}

struct io_uring_sqe *tu_ring_sqe(struct tu_ring *ring)
{
	struct io_uring_sqe *sqe = tu_ring_has_aside(ring) ? NULL : io_uring_get_sqe(&ring->uring);

	if (sqe)
		return sqe;
	tu_ring_flush(ring);
	if (ring->broken)
		return NULL;
	sqe = tu_ring_has_aside(ring) ? NULL : io_uring_get_sqe(&ring->uring);
	return sqe ? sqe : put_aside(ring);
}

struct io_uring_sqe *tu_ring_find(struct tu_ring *ring, uint64_t user_data, bool *last)
{
	const struct io_uring_sq *sq = &ring->uring.sq;
	struct io_uring_sqe *sqe;

	for (uint32_t number = 0; (sqe = tu_ring_pending(ring, number)); number++) {
		*last = *sq->khead + number == sq->sqe_tail - 1 && sq->sqe_head != sq->sqe_tail;
		if (sqe->user_data == user_data)
			return sqe;
	}
	*last = false;
	return NULL;
}

bool tu_ring_pop(struct tu_ring *ring, struct io_uring_cqe *completion)
{
	struct io_uring_cqe *head;

	if (ring->stash_head != ring->stash_tail) {
		memcpy(completion, &ring->stash[ring->stash_head++], sizeof(*completion));
		if (ring->stash_head == ring->stash_tail)
			ring->stash_head = ring->stash_tail = 0;
		return true;
	}
	if (!io_uring_cq_ready(&ring->uring))
		return false;
	head = &ring->uring.cq.cqes[*ring->uring.cq.khead & ring->uring.cq.ring_mask];
	memcpy(completion, head, sizeof(*completion));
	io_uring_cq_advance(&ring->uring, 1);
	return true;
}

void tu_ring_set_notifications(struct tu_ring *ring, bool on)
{
	unsigned *flags = ring->uring.cq.kflags;

	if (on)
		__atomic_and_fetch(flags, ~IORING_CQ_EVENTFD_DISABLED, __ATOMIC_SEQ_CST);
	else
		__atomic_or_fetch(flags, IORING_CQ_EVENTFD_DISABLED, __ATOMIC_SEQ_CST);
}
