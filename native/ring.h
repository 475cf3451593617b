/* The ring: set-up, entering the kernel, and the end.
 *
 * One thread owns a ring. It is set up disabled where the kernel allows that,
 * so that the first thread to enter it, not the set-up, decides which that is.
 * Nobody else may enter it: SINGLE_ISSUER answers EEXIST.
 *
 * `tu_ring_enter` is the only place that enters the kernel for a ring, and it
 * submits whatever is pending on the way. What is pending is what the kernel
 * has not consumed yet (`io_uring_sq_ready`), never a count of our own: the
 * kernel may take fewer submissions than it was offered.
 *
 * What the kernel answers to an enter:
 *
 *   >= 0, ETIME, EINTR      it went as it should
 *   EAGAIN, EBUSY, ENOMEM   refused for a while: it has no memory, or wants room for completions
 *                           first. What is pending stays so, and is submitted again. What the
 *                           queue has no room for meanwhile is put aside
 *   EEXIST                  the thread is not the owner: its mistake, and not the ring's end
 *   anything else           the ring is broken: closed below us, forbidden by a sandbox. It is never
 *                           entered again, since its number may be another ring's by now. So is
 *                           one that has been refused for seconds on end */
#ifndef TU_RING_H
#define TU_RING_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>

#include "identity.h"
#include "kernel.h"

struct tu_ring {
	struct io_uring uring;
	struct tu_identity identity; /* of its descriptor */
	bool open;                   /* mapped */
	bool lost;                   /* its descriptor was closed below us */
	bool enabled;                /* no longer R_DISABLED */
	bool no_iowait;              /* 6.15: a sleeping ring does not count as I/O wait */
	int broken;                  /* 0, or -errno: why it is not entered again */
	int64_t refused_since;       /* nanoseconds of the monotonic clock; 0: it is not */
	uint64_t entered;
	/* A submission names a descriptor, which is only a number: until the kernel takes it, the
	 * file may be closed and the number be another one's. So `check` is called before the kernel
	 * is, with whatever it has not taken yet, to disown what is stale (`fd` -1: EBADF). */
	void (*check)(void *argument); /* NULL: nobody looks */
	void *check_argument;
	uint32_t unchecked; /* something is queued that was not looked at */
	/* Completions taken out of the way of a kernel that refuses submissions
	 * until it has room; the next reap reads these first. */
	struct io_uring_cqe *stash;
	uint32_t stash_head, stash_tail, stash_capacity;
	/* Submissions that the queue had no room for, and the kernel would not take; in their
	 * turn they go into the queue. */
	struct io_uring_sqe *aside;
	uint32_t aside_head, aside_tail, aside_capacity;
};

int tu_ring_open(struct tu_ring *ring, uint32_t entries, uint32_t cq_entries, uint32_t setup_flags);
/* Monotonic, in nanoseconds. */
int64_t tu_now(void);

/* Unmaps and closes without entering the kernel for it: any thread, and a
 * forked child, for which the parent's ring stays as it is. A descriptor that was closed
 * below us is somebody else's by now, and left to him. */
void tu_ring_close(struct tu_ring *ring);

/* Breaks a ring whose descriptor is not its own any more. */
void tu_ring_check(struct tu_ring *ring);

/* io_uring_register with signals held back: Debian's 5.10 first waits some
 * milliseconds for the ring to fall quiet, and a signal ends that with EINTR. Signals
 * that come faster would never let a ring be enabled. */
int tu_ring_register(struct tu_ring *ring, unsigned opcode, void *argument, unsigned count);

/* Submits what is pending, runs deferred work, and waits until `minimum`
 * completions are there or `timeout_ns` is over (< 0: does not wait).
 * -ETIME and -EINTR are results like others. */
int tu_ring_enter(struct tu_ring *ring, unsigned minimum, int64_t timeout_ns);

/* Enters until nothing is pending and no deferred work is left: afterwards the
 * kernel has acted on every submission, cancels among them. */
int tu_ring_flush(struct tu_ring *ring);

/* The same, and waits while the kernel refuses: until it does not, or the ring is broken. */
int tu_ring_flush_patiently(struct tu_ring *ring);

/* Before a multishot is queued that may complete at once: takes completions out of the way, so that
 * there is room for it and for all that is queued. A multishot that finds none is ended. */
void tu_ring_make_room(struct tu_ring *ring);

/* Whether completions signal the eventfd that is registered. */
void tu_ring_set_notifications(struct tu_ring *ring, bool on);

/* A submission entry to fill in at once; enters the kernel if the queue is full, and puts the
 * entry aside if that refuses. NULL if the ring is broken, or there is no memory at all. */
struct io_uring_sqe *tu_ring_sqe(struct tu_ring *ring);

/* The submission with this user data that the kernel has not consumed, which is ours to change;
 * NULL if it has. `last`: it is the newest of the queue, and not published. */
struct io_uring_sqe *tu_ring_find(struct tu_ring *ring, uint64_t user_data, bool *last);

/* True if a completion was there; it is copied out. */
bool tu_ring_pop(struct tu_ring *ring, struct io_uring_cqe *completion);

static inline bool tu_ring_has_completions(const struct tu_ring *ring)
{
	return ring->stash_head != ring->stash_tail || io_uring_cq_ready(&ring->uring);
}

/* One after the other, from 0 on, the completions that were not popped; NULL after the last. */
static inline const struct io_uring_cqe *tu_ring_completion(const struct tu_ring *ring, uint32_t number)
{
	const struct io_uring_cq *cq = &ring->uring.cq;
	uint32_t stashed = ring->stash_tail - ring->stash_head;

	if (number < stashed)
		return &ring->stash[ring->stash_head + number];
	number -= stashed;
	return number < io_uring_cq_ready(&ring->uring) ? &cq->cqes[(*cq->khead + number) & cq->ring_mask] : NULL;
}

/* The mapped flag word. IORING_SQ_TASKRUN: deferred work waits for us to enter.
 * IORING_SQ_CQ_OVERFLOW: completions wait in the kernel for room; there may be
 * no task work then, so that TASKRUN alone would starve them. */
static inline unsigned tu_ring_flags(const struct tu_ring *ring)
{
	return __atomic_load_n(ring->uring.sq.kflags, __ATOMIC_RELAXED);
}

static inline bool tu_ring_has_aside(const struct tu_ring *ring)
{
	return ring->aside_head != ring->aside_tail;
}

static inline bool tu_ring_has_submissions(const struct tu_ring *ring)
{
	return io_uring_sq_ready(&ring->uring) != 0 || tu_ring_has_aside(ring);
}

/* Of an enter: it was refused for a while. */
static inline bool tu_ring_is_refused(const struct tu_ring *ring, int result)
{
	return !ring->broken && (result == -EAGAIN || result == -EBUSY || result == -ENOMEM);
}

/* IOSQE_CQE_SKIP_SUCCESS where the kernel knows it (5.17); elsewhere the answer
 * comes, addressed to nobody. */
static inline unsigned tu_ring_skip_success(const struct tu_ring *ring)
{
	return ring->uring.features & IORING_FEAT_CQE_SKIP ? IOSQE_CQE_SKIP_SUCCESS : 0;
}

/* One after the other, from 0 on, the submissions that the kernel has not consumed, which are ours
 * to change; NULL after the last. */
static inline struct io_uring_sqe *tu_ring_pending(const struct tu_ring *ring, uint32_t number)
{
	const struct io_uring_sq *sq = &ring->uring.sq;
	uint32_t queued = sq->sqe_tail - *sq->khead;

	if (number < queued)
		return &sq->sqes[(*sq->khead + number) & sq->ring_mask];
	number -= queued;
	return number < ring->aside_tail - ring->aside_head ? &ring->aside[ring->aside_head + number] : NULL;
}

#endif
