/* The ring: set-up, entering the kernel, and the end.
 *
 * One thread owns a ring: the first one that enters it. So that this need not be the thread that sets it
 * up, it is set up disabled, where the kernel allows that. If another thread enters it, a kernel with
 * SINGLE_ISSUER answers EEXIST. Functions are for the owner, unless their comment says otherwise.
 *
 * `tu_ring_enter` is the only place that enters the kernel for a ring, and it submits whatever is pending.
 * Pending is what the kernel has not consumed yet, by its own head of the queue (`io_uring_sq_ready`).
 * We keep no count of our own, since the kernel may take fewer submissions than it was offered.
 *
 * What the kernel may answer:
 *
 *   >= 0, ETIME, EINTR      the call went well
 *   EAGAIN, EBUSY, ENOMEM   refused for a while: it has no memory, or no room for completions. What is
 *                           pending stays pending. New submissions that the queue has no room for
 *                           are put aside meanwhile
 *   EEXIST                  the calling thread is not the owner. The ring is as good as before
 *   anything else           the ring is broken: somebody has closed its descriptor, or a sandbox forbids
 *                           the call. It is never entered again, since the descriptor may be another
 *                           ring's by now. A ring whose enters were refused for seconds on end is
 *                           broken, too: seconds in which it was entered again and again */
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
	bool lost;                   /* somebody else has closed its descriptor */
	bool enabled;                /* no longer R_DISABLED */
	uint32_t wait_flags;         /* flags of io_uring_enter that its waits have besides */
	int broken;                  /* 0, or the -errno for which it is not entered again */
	int64_t refused_last;        /* when the kernel refused last, by tu_now(); 0: it does not refuse */
	int64_t refused_for;         /* how long it was asked since it began to refuse, in nanoseconds */
	uint64_t entered;            /* how often the kernel was entered */
	/* A submission names a descriptor, which is only a number. Before the kernel takes the submission,
	 * the descriptor may be closed, and the number be given to another file. So `check` is called before
	 * the kernel is entered. Where a pending submission is stale it sets `fd` to -1 (EBADF). */
	void (*check)(void *argument); /* NULL: nothing is checked */
	void *check_argument;
	uint32_t unchecked; /* not 0: something is queued that was not checked yet */
	/* Completions that were copied out of the queue for a kernel that refuses submissions until it has
	 * room for completions. The next reap takes these first. */
	struct io_uring_cqe *stash;
	uint32_t stash_head, stash_tail, stash_capacity;
	/* Submissions for which the queue had no room while the kernel refused. They go into the queue, in
	 * their order, as soon as there is room. */
	struct io_uring_sqe *aside;
	uint32_t aside_head, aside_tail, aside_capacity;
};

/* Any thread: sets a ring up. 0 or -errno. */
int tu_ring_open(struct tu_ring *ring, uint32_t entries, uint32_t cq_entries, uint32_t setup_flags);

/* Any thread: the monotonic clock, in nanoseconds. */
int64_t tu_now(void);

/* Any thread, also in a forked child, where the parent's ring stays as it is: unmaps and closes the ring
 * without entering it. If somebody else has closed the descriptor, its number is left alone. */
void tu_ring_close(struct tu_ring *ring);

/* Any thread: marks the ring as broken if its descriptor does not refer to it any more. */
void tu_ring_check_descriptor(struct tu_ring *ring);

/* io_uring_register, with all signals blocked. The kernel of Debian (5.10) first waits some milliseconds
 * for the ring to be idle, and a signal ends that wait with EINTR: a program with frequent signals could
 * never enable its ring. */
int tu_ring_register(struct tu_ring *ring, unsigned opcode, void *argument, unsigned count);

/* Submits what is pending, runs deferred work, and waits until there are `minimum` completions or
 * `timeout_ns` is over (< 0: it does not wait). Returns what the kernel answers; see the table above.
 * TASKRUN is set after an enter that does not wait only if work is left, or came since. */
int tu_ring_enter(struct tu_ring *ring, unsigned minimum, int64_t timeout_ns);

/* Enters the kernel until nothing is pending and no deferred work is left. Then the kernel has acted on
 * every submission, cancels among them. 0 or -errno. */
int tu_ring_flush(struct tu_ring *ring);

/* The same; while the kernel refuses, it sleeps and tries again, until the ring is broken. */
int tu_ring_flush_patiently(struct tu_ring *ring);

/* Called before a multishot poll is queued, which may complete at once. The kernel ends a multishot whose
 * completion finds no room. So completions are stashed until there is room for one, and for those of all
 * that is queued. */
void tu_ring_make_room(struct tu_ring *ring);

/* Has completions write to the registered eventfd, or not. Also called by the thread of tu_guest_wait. */
void tu_ring_set_notifications(struct tu_ring *ring, bool on);

/* A new submission entry, to be filled in at once. If the queue is full, the kernel is entered; if it
 * refuses, the entry is one that is put aside. NULL if the ring is broken, or there is no memory. */
struct io_uring_sqe *tu_ring_sqe(struct tu_ring *ring);

/* The pending submission with this user_data, which the caller may change; NULL if there is none.
 * `*last`: it is the newest in the queue, and its place was not published to the kernel. */
struct io_uring_sqe *tu_ring_find(struct tu_ring *ring, uint64_t user_data, bool *last);

/* Takes the oldest completion out of the ring; false if there is none. */
bool tu_ring_pop(struct tu_ring *ring, struct io_uring_cqe *completion);

static inline bool tu_ring_has_stash(const struct tu_ring *ring)
{
	return ring->stash_head != ring->stash_tail;
}

static inline bool tu_ring_has_completions(const struct tu_ring *ring)
{
	return tu_ring_has_stash(ring) || io_uring_cq_ready(&ring->uring);
}

/* Whether there are completions in the queue. Any thread. */
static inline bool tu_ring_has_arrivals(const struct tu_ring *ring)
{
	return __atomic_load_n(ring->uring.cq.ktail, __ATOMIC_ACQUIRE) !=
	       __atomic_load_n(ring->uring.cq.khead, __ATOMIC_RELAXED);
}

/* The completion of this number among those that were not popped, the oldest being 0; NULL after the last. */
static inline const struct io_uring_cqe *tu_ring_completion(const struct tu_ring *ring, uint32_t number)
{
	const struct io_uring_cq *cq = &ring->uring.cq;
	uint32_t stashed = ring->stash_tail - ring->stash_head;

	if (number < stashed)
		return &ring->stash[ring->stash_head + number];
	number -= stashed;
	return number < io_uring_cq_ready(&ring->uring) ? &cq->cqes[(*cq->khead + number) & cq->ring_mask] : NULL;
}

/* The flags that the kernel sets in shared memory. IORING_SQ_TASKRUN: there is deferred work for the next
 * enter. IORING_SQ_CQ_OVERFLOW: completions wait in the kernel until there is room, and only an enter
 * brings them; TASKRUN need not be set then. Any thread; sequentially consistent, as the
 * worker thread of a guest run looks at them after it has switched notifications on. */
static inline unsigned tu_ring_flags(const struct tu_ring *ring)
{
	return __atomic_load_n(ring->uring.sq.kflags, __ATOMIC_SEQ_CST);
}

static inline bool tu_ring_has_aside(const struct tu_ring *ring)
{
	return ring->aside_head != ring->aside_tail;
}

static inline bool tu_ring_has_submissions(const struct tu_ring *ring)
{
	return io_uring_sq_ready(&ring->uring) != 0 || tu_ring_has_aside(ring);
}

/* Whether a result of an enter means that the kernel refuses for a while. */
static inline bool tu_ring_is_refused(const struct tu_ring *ring, int result)
{
	return !ring->broken && (result == -EAGAIN || result == -EBUSY || result == -ENOMEM);
}

/* Whether a completion says that an operation is not allowed here, or not known: as often as it is submitted,
 * it would be answered so. */
static inline bool tu_ring_is_never_done(int result)
{
	return result == -EACCES || result == -EPERM || result == -EINVAL || result == -ENOSYS || result == -EOPNOTSUPP;
}

/* The flag of an entry that needs no completion if it succeeds: IOSQE_CQE_SKIP_SUCCESS (Linux 5.17).
 * Before, it is 0, and the completion comes and is ignored. */
static inline unsigned tu_ring_skip_success(const struct tu_ring *ring)
{
	return ring->uring.features & IORING_FEAT_CQE_SKIP ? IOSQE_CQE_SKIP_SUCCESS : 0;
}

/* The pending submission of this number, the oldest being 0, which the caller may change; NULL after the
 * last. */
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
