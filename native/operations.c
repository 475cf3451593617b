#include "operations.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FIRST_CAPACITY 64
#define GENERATION_MASK 0x7fffffffU
#define RETRY_NS 1000000
/* A bit in the user_data of a cancel; the other bits are the user_data of the operation to be cancelled. */
#define CANCEL (1ULL << 63)

/* Doubles the number of slots. All new ones are free. 0 or -ENOMEM. */
static int grow(struct tu_operations *operations)
{
	uint32_t old = operations->capacity;
	uint32_t new = old ? 2 * old : FIRST_CAPACITY;
	struct tu_operation *slots = realloc(operations->slots, new * sizeof(*slots));

	if (!slots)
		return -ENOMEM;
	for (uint32_t slot = old; slot < new; slot++)
		slots[slot] = (struct tu_operation){ .generation = 1, .next_free = slot + 1 < new ? slot + 1 : 0 };
	operations->slots = slots;
	operations->capacity = new;
	operations->first_free = old ? old : 1;
	return 0;
}

int tu_operations_open(struct tu_operations *operations)
{
	*operations = (struct tu_operations){ 0 };
	return grow(operations);
}

void tu_operations_close(struct tu_operations *operations)
{
	free(operations->slots);
	*operations = (struct tu_operations){ 0 };
}

/* Whether an operation's slot is released by its last completion only. */
static bool is_pinned(uint8_t kind)
{
	return kind >= TU_OPERATION;
}

static void release(struct tu_operations *operations, uint32_t slot)
{
	struct tu_operation *operation = &operations->slots[slot];

	operations->doomed -= operation->state == TU_DOOMED;
	operations->pinned -= is_pinned(operation->kind);
	operation->generation = (operation->generation + 1) & GENERATION_MASK;
	operation->generation += !operation->generation;
	operation->state = TU_FREE;
	operation->next_free = operations->first_free;
	operations->first_free = slot;
	operations->in_flight--;
}

static short mask_of(int32_t kind)
{
	return kind == TU_READ ? POLLIN : POLLOUT;
}

static void prepare_poll(struct io_uring_sqe *sqe, const struct tu_operation *operation, uint64_t user_data)
{
	unsigned mask = mask_of(operation->kind);

	if (operation->state == TU_EDGE)
		io_uring_prep_poll_multishot(sqe, operation->fd, mask);
	else
		io_uring_prep_poll_add(sqe, operation->fd, mask);
	io_uring_sqe_set_data64(sqe, user_data);
}

/* Gives out a slot, and a submission entry to be filled in for it. Returns the slot, or -errno. */
static int acquire(struct tu_operations *operations, struct tu_ring *ring, enum tu_kind kind, int fd,
		   struct io_uring_sqe **sqe)
{
	struct tu_operation *operation;
	uint32_t slot;

	if (!operations->first_free && grow(operations) < 0)
		return -ENOMEM;
	*sqe = tu_ring_sqe(ring);
	if (!*sqe)
		return ring->broken ? ring->broken : -ENOMEM;
	slot = operations->first_free;
	operation = &operations->slots[slot];
	operations->first_free = operation->next_free;
	operations->in_flight++;
	operations->pinned += is_pinned(kind);
	operation->kind = kind;
	operation->state = TU_ARMED;
	operation->fd = fd;
	return (int)slot;
}

int tu_operations_poll(struct tu_operations *operations, struct tu_ring *ring, int fd, enum tu_kind kind,
		       bool confirm)
{
	struct io_uring_sqe *sqe;
	int slot = acquire(operations, ring, kind, fd, &sqe);

	if (slot < 0)
		return slot;
	operations->slots[slot].confirm = confirm;
	prepare_poll(sqe, &operations->slots[slot], tu_operations_identity(operations, (uint32_t)slot));
	return slot;
}

int tu_operations_submit(struct tu_operations *operations, struct tu_ring *ring, const struct tu_submission *submission)
{
	struct io_uring_sqe *sqe;
	int slot = acquire(operations, ring, TU_OPERATION, submission->fd, &sqe);

	if (slot < 0)
		return slot;
	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = submission->opcode;
	sqe->flags = submission->entry_flags;
	sqe->fd = submission->fd;
	sqe->addr = submission->address;
	sqe->len = submission->length;
	sqe->off = submission->offset;
	sqe->rw_flags = (int)submission->flags;
	sqe->splice_fd_in = submission->other_fd;
	io_uring_sqe_set_data64(sqe, tu_operations_identity(operations, (uint32_t)slot));
	return slot;
}

/* The limit is in the field `optlen`, which headers before Linux 6.7 know only by its other names. */
static void prepare_multishot_receive(struct io_uring_sqe *sqe, int fd, uint32_t most)
{
	io_uring_prep_recv_multishot(sqe, fd, NULL, 0, 0);
	sqe->file_index = most;
}

int tu_operations_receive(struct tu_operations *operations, struct tu_ring *ring, int fd, uint32_t length,
			  uint32_t most)
{
	struct io_uring_sqe *sqe;
	int slot = acquire(operations, ring, TU_RECEIVE, fd, &sqe);

	if (slot < 0)
		return slot;
	if (length)
		io_uring_prep_recv(sqe, fd, NULL, length, 0);
	else
		prepare_multishot_receive(sqe, fd, most);
	sqe->flags |= IOSQE_BUFFER_SELECT;
	sqe->buf_group = TU_BUFFER_GROUP;
	io_uring_sqe_set_data64(sqe, tu_operations_identity(operations, (uint32_t)slot));
	return slot;
}

void tu_operations_ask_for_limit(struct tu_ring *ring)
{
	struct io_uring_sqe *sqe = tu_ring_sqe(ring);

	if (!sqe)
		return;
	prepare_multishot_receive(sqe, -1, 1);
	sqe->flags |= IOSQE_BUFFER_SELECT;
	sqe->buf_group = TU_BUFFER_GROUP;
	io_uring_sqe_set_data64(sqe, TU_LIMIT_QUESTION);
}

int tu_operations_accept(struct tu_operations *operations, struct tu_ring *ring, int fd, bool multishot)
{
	struct io_uring_sqe *sqe;
	int slot = acquire(operations, ring, TU_ACCEPT, fd, &sqe);

	if (slot < 0)
		return slot;
	if (multishot)
		io_uring_prep_multishot_accept(sqe, fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	else
		io_uring_prep_accept(sqe, fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	io_uring_sqe_set_data64(sqe, tu_operations_identity(operations, (uint32_t)slot));
	return slot;
}

/* Turns an entry into one that does nothing, and whose completion nobody waits for. */
static void prepare_nothing(struct tu_ring *ring, struct io_uring_sqe *sqe)
{
	memset(sqe, 0, sizeof(*sqe));
	io_uring_prep_nop(sqe);
	io_uring_sqe_set_data64(sqe, TU_NOBODY);
	sqe->flags = tu_ring_skip_success(ring);
}

/* Takes a submission out of the queue. False if it is not there: the kernel has it, or has had it. */
static bool withdraw(struct tu_ring *ring, uint64_t user_data)
{
	bool last;
	struct io_uring_sqe *sqe = tu_ring_find(ring, user_data, &last);

	if (!sqe)
		return false;
	if (last)
		ring->uring.sq.sqe_tail--; /* as if it had never been */
	else
		prepare_nothing(ring, sqe);
	return true;
}

/* Queues a cancel; false if there is no memory for it. Its completion comes only if the cancel fails, or if
 * the kernel has no CQE_SKIP_SUCCESS. */
static bool submit_cancel(struct tu_ring *ring, uint64_t user_data)
{
	struct io_uring_sqe *sqe = tu_ring_sqe(ring);

	if (!sqe)
		return false;
	io_uring_prep_cancel64(sqe, user_data, 0);
	io_uring_sqe_set_data64(sqe, CANCEL | user_data);
	sqe->flags = tu_ring_skip_success(ring);
	return true;
}

int tu_operations_cancel(struct tu_operations *operations, struct tu_ring *ring, uint32_t slot)
{
	struct tu_operation *operation = &operations->slots[slot];

	if (operation->state == TU_FREE)
		return 0;
	if (withdraw(ring, tu_operations_identity(operations, slot))) {
		release(operations, slot);
		return 0;
	}
	if (submit_cancel(ring, tu_operations_identity(operations, slot))) {
		if (!is_pinned(operation->kind))
			release(operations, slot);
		return 1;
	}
	operations->doomed += operation->state != TU_DOOMED;
	operation->state = TU_DOOMED;
	return 0;
}

bool tu_operations_withdraw(struct tu_operations *operations, struct tu_ring *ring, uint32_t slot)
{
	if (operations->slots[slot].state == TU_FREE)
		return false;
	tu_operations_cancel(operations, ring, slot);
	return operations->slots[slot].state == TU_FREE;
}

void tu_operations_cancel_all(struct tu_operations *operations, struct tu_ring *ring)
{
	for (uint32_t slot = 1; slot < operations->capacity && operations->in_flight; slot++)
		if (operations->slots[slot].state != TU_FREE)
			tu_operations_cancel(operations, ring, slot);
}

void tu_operations_retry_doomed(struct tu_operations *operations, struct tu_ring *ring)
{
	for (uint32_t slot = 1; slot < operations->capacity && operations->doomed; slot++) {
		if (operations->slots[slot].state != TU_DOOMED)
			continue;
		if (!submit_cancel(ring, tu_operations_identity(operations, slot)))
			return;
		operations->doomed--;
		operations->slots[slot].state = TU_ARMED;
		if (!is_pinned(operations->slots[slot].kind))
			release(operations, slot);
	}
}

int64_t tu_operations_patience(const struct tu_operations *operations, int64_t timeout_ns)
{
	return operations->doomed && timeout_ns > RETRY_NS ? RETRY_NS : timeout_ns;
}

/* Takes in the completion of a cancel. A cancel also fails (ENOENT, EALREADY) if its target is between
 * two attempts at that moment: it is task work, or a worker of the kernel's has it and is not waiting. The
 * kernel would then go on with the operation, and might wait for ever. So the cancel is repeated until
 * the operation has completed. */
static void take_cancel_result(struct tu_operations *operations, const struct io_uring_cqe *completion)
{
	uint64_t target = completion->user_data & ~CANCEL;
	struct tu_operation *operation;

	if (completion->res >= 0 || !tu_operations_is_current(operations, target))
		return;
	operation = &operations->slots[(uint32_t)target];
	operations->doomed += operation->state != TU_DOOMED;
	operation->state = TU_DOOMED;
}

/* Takes in a completion of a poll; true if it has made a new event. A multishot poll may complete several
 * times in one tick: the last completion says whether the poll goes on. */
static bool take_wakeup(struct tu_operations *operations, uint32_t slot, const struct io_uring_cqe *completion,
			tu_event *event)
{
	struct tu_operation *operation = &operations->slots[slot];
	bool asked = operation->state == TU_ASKED;
	bool more = completion->flags & IORING_CQE_F_MORE;

	if (operation->state == TU_DOOMED) {
		if (!more)
			release(operations, slot);
		return false;
	}
	if (!operation->confirm && completion->res >= 0) {
		*event = (tu_event){ operation->kind, false, operation->fd, 0, -1 };
		release(operations, slot);
		return true;
	}
	operation->state = TU_ASKED;
	operation->goes_on = more;
	*event = (tu_event){ operation->kind, false, operation->fd, completion->res, (int32_t)slot };
	return !asked;
}

bool tu_operations_complete(struct tu_operations *operations, struct tu_buffers *buffers,
			    const struct io_uring_cqe *completion, tu_event *event)
{
	uint32_t slot = (uint32_t)completion->user_data;
	bool more = completion->flags & IORING_CQE_F_MORE;
	struct tu_operation *operation;
	int32_t buffer;

	if (completion->user_data & CANCEL)
		take_cancel_result(operations, completion);
	if (!tu_operations_is_current(operations, completion->user_data))
		return false;
	operation = &operations->slots[slot];
	if (!is_pinned(operation->kind))
		return take_wakeup(operations, slot, completion, event);
	buffer = tu_buffers_lend(buffers, completion);
	*event = (tu_event){ operation->kind, more, (int32_t)slot, completion->res, buffer };
	if (!more)
		release(operations, slot);
	return true;
}

bool tu_operations_is_refused_cancel(const struct io_uring_cqe *completion)
{
	return completion->user_data & CANCEL && tu_ring_is_never_done(completion->res);
}

struct pollfd tu_operations_question(const tu_event *event)
{
	return (struct pollfd){ .fd = event->key, .events = mask_of(event->kind) };
}

/* Waits for a descriptor again, by a multishot poll; false if there is no memory for that. */
static bool arm_again(struct tu_operations *operations, struct tu_ring *ring, uint32_t slot)
{
	struct tu_operation *operation = &operations->slots[slot];
	struct io_uring_sqe *sqe;

	operation->state = TU_EDGE;
	if (operation->goes_on)
		return true;
	tu_ring_make_room(ring);
	sqe = tu_ring_sqe(ring);
	if (!sqe)
		return false;
	prepare_poll(sqe, operation, tu_operations_identity(operations, slot));
	return true;
}

/* Whether an error says only that the kernel gave up the poll, and nothing about the descriptor. */
static bool is_passing(int32_t result)
{
	return result == -ECANCELED || result == -EINTR || result == -EAGAIN;
}

bool tu_operations_answer(struct tu_operations *operations, struct tu_ring *ring, tu_event *event, bool ready,
			  bool *flush)
{
	uint32_t slot = (uint32_t)event->buffer;
	bool failed = event->result < 0 && !is_passing(event->result);

	if (!ready && !failed) {
		if (arm_again(operations, ring, slot))
			return false;
		event->result = -ENOMEM;
		failed = true;
	}
	if (operations->slots[slot].goes_on) {
		*flush = true;
		tu_operations_cancel(operations, ring, slot);
	} else {
		release(operations, slot);
	}
	event->result = failed ? event->result : 0;
	event->buffer = -1;
	return true;
}
