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
/* In the user data of a cancel, with the identity of what it is to cancel. */
#define CANCEL (1ULL << 63)

static uint64_t identity(const struct tu_operations *operations, uint32_t slot)
{
	return (uint64_t)operations->slots[slot].generation << 32 | slot;
}

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

static bool is_answered(uint8_t kind)
{
	return kind >= TU_OPERATION;
}

static void release(struct tu_operations *operations, uint32_t slot)
{
	struct tu_operation *operation = &operations->slots[slot];

	operations->doomed -= operation->state == TU_DOOMED;
	operations->pinned -= is_answered(operation->kind);
	operation->generation = (operation->generation + 1) & GENERATION_MASK;
	operation->generation += !operation->generation;
	operation->state = TU_FREE;
	operation->next_free = operations->first_free;
	operations->first_free = slot;
	operations->in_flight--;
}

static void prepare_poll(struct io_uring_sqe *sqe, const struct tu_operation *operation, uint64_t user_data)
{
	unsigned mask = operation->kind == TU_READ ? POLLIN : POLLOUT;

	if (operation->state == TU_EDGE)
		io_uring_prep_poll_multishot(sqe, operation->fd, mask);
	else
		io_uring_prep_poll_add(sqe, operation->fd, mask);
	io_uring_sqe_set_data64(sqe, user_data);
}

/* A slot and the submission entry to fill in for it, or -errno. */
static int acquire(struct tu_operations *operations, struct tu_ring *ring, enum tu_kind kind, int fd,
		   struct io_uring_sqe **sqe)
{
	struct tu_operation *operation;
	uint32_t slot;

	if (!operations->first_free && grow(operations) < 0)
		return -ENOMEM;
	*sqe = tu_ring_sqe(ring);
	if (!*sqe)
		return -ENOMEM;
	slot = operations->first_free;
	operation = &operations->slots[slot];
	operations->first_free = operation->next_free;
	operations->in_flight++;
	operations->pinned += is_answered(kind);
	operation->kind = kind;
	operation->state = TU_ARMED;
	operation->fd = fd;
	return (int)slot;
}

int tu_operations_poll(struct tu_operations *operations, struct tu_ring *ring, int fd, enum tu_kind kind)
{
	struct io_uring_sqe *sqe;
	int slot = acquire(operations, ring, kind, fd, &sqe);

	if (slot > 0)
		prepare_poll(sqe, &operations->slots[slot], identity(operations, (uint32_t)slot));
	return slot;
}

int tu_operations_submit(struct tu_operations *operations, struct tu_ring *ring, const struct tu_submission *submission)
{
	struct io_uring_sqe *sqe;
	int slot = acquire(operations, ring, TU_OPERATION, submission->fd, &sqe);

	if (slot < 0)
		return slot;
	memset(sqe, 0, sizeof(*sqe));
	operations->slots[slot].opcode = submission->opcode;
	sqe->opcode = submission->opcode;
	sqe->flags = submission->entry_flags;
	sqe->fd = submission->fd;
	sqe->addr = submission->address;
	sqe->len = submission->length;
	sqe->off = submission->offset;
	sqe->rw_flags = (int)submission->flags;
	sqe->splice_fd_in = submission->other_fd;
	io_uring_sqe_set_data64(sqe, identity(operations, (uint32_t)slot));
	return slot;
}

int tu_operations_receive(struct tu_operations *operations, struct tu_ring *ring, int fd, uint32_t length)
{
	struct io_uring_sqe *sqe;
	int slot = acquire(operations, ring, TU_RECEIVE, fd, &sqe);

	if (slot < 0)
		return slot;
	if (length)
		io_uring_prep_recv(sqe, fd, NULL, length, 0);
	else
		io_uring_prep_recv_multishot(sqe, fd, NULL, 0, 0);
	sqe->flags |= IOSQE_BUFFER_SELECT;
	sqe->buf_group = TU_BUFFER_GROUP;
	io_uring_sqe_set_data64(sqe, identity(operations, (uint32_t)slot));
	return slot;
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
	io_uring_sqe_set_data64(sqe, identity(operations, (uint32_t)slot));
	return slot;
}

static void prepare_nothing(struct tu_ring *ring, struct io_uring_sqe *sqe)
{
	memset(sqe, 0, sizeof(*sqe));
	io_uring_prep_nop(sqe);
	io_uring_sqe_set_data64(sqe, TU_NOBODY);
	sqe->flags = tu_ring_skip_success(ring);
}

/* A submission that the kernel has not consumed is ours to change. */
static bool withdraw(struct tu_ring *ring, uint64_t user_data)
{
	struct io_uring_sq *sq = &ring->uring.sq;
	struct io_uring_sqe *sqe = tu_ring_find(ring, user_data);

	if (!sqe)
		return false;
	if (sqe == &sq->sqes[(sq->sqe_tail - 1) & sq->ring_mask] && sq->sqe_head != sq->sqe_tail)
		sq->sqe_tail--; /* the last one, and not published yet: as if it had never been */
	else
		prepare_nothing(ring, sqe);
	return true;
}

void tu_operations_disown(struct tu_operations *operations, struct tu_ring *ring, uint32_t slot)
{
	struct io_uring_sqe *sqe;

	if (slot >= operations->capacity || operations->slots[slot].state == TU_FREE)
		return;
	sqe = tu_ring_find(ring, identity(operations, slot));
	if (sqe)
		sqe->fd = -1;
}

/* Without CQE_SKIP_SUCCESS, and when it fails, the answer comes all the same. */
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
	if (withdraw(ring, identity(operations, slot))) {
		release(operations, slot);
		return 0;
	}
	if (submit_cancel(ring, identity(operations, slot))) {
		if (!is_answered(operation->kind))
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
		if (!submit_cancel(ring, identity(operations, slot)))
			return;
		operations->doomed--;
		operations->slots[slot].state = TU_ARMED;
		if (!is_answered(operations->slots[slot].kind))
			release(operations, slot);
	}
}

int64_t tu_operations_patience(const struct tu_operations *operations, int64_t timeout_ns)
{
	return operations->doomed && timeout_ns > RETRY_NS ? RETRY_NS : timeout_ns;
}

static bool says_writable(int32_t result)
{
	return result & (POLLOUT | POLLERR | POLLHUP | POLLNVAL);
}

static bool is_current(const struct tu_operations *operations, uint64_t user_data)
{
	uint32_t slot = (uint32_t)user_data;

	return slot < operations->capacity && identity(operations, slot) == user_data;
}

/* A cancel fails (ENOENT, EALREADY) also where its target is between two attempts: as task
 * work, or with a worker of the kernel's that is not waiting at this moment. What is then
 * tried again, and polled, would wait for ever. So while it has not completed it is told again. */
static void take_answer(struct tu_operations *operations, const struct io_uring_cqe *completion)
{
	uint64_t target = completion->user_data & ~CANCEL;
	struct tu_operation *operation;

	if (completion->res >= 0 || !is_current(operations, target))
		return;
	operation = &operations->slots[(uint32_t)target];
	operations->doomed += operation->state != TU_DOOMED;
	operation->state = TU_DOOMED;
}

bool tu_operations_complete(struct tu_operations *operations, struct tu_ring *ring, struct tu_buffers *buffers,
			    const struct io_uring_cqe *completion, tu_event *event, bool *flush)
{
	uint32_t slot = (uint32_t)completion->user_data;
	bool more = completion->flags & IORING_CQE_F_MORE;
	struct tu_operation *operation;
	struct io_uring_sqe *sqe;

	if (completion->user_data & CANCEL)
		take_answer(operations, completion);
	if (!is_current(operations, completion->user_data))
		return false;
	operation = &operations->slots[slot];
	if (is_answered(operation->kind)) {
		int32_t buffer = tu_buffers_lend(buffers, completion);

		*event = (tu_event){ operation->kind, (int32_t)slot, completion->res, (buffer + 1) << 1 | more };
		if (!more)
			release(operations, slot);
		return true;
	}
	if (operation->state == TU_DOOMED) {
		release(operations, slot);
		return false;
	}
	if (operation->kind == TU_WRITE && completion->res >= 0 && !says_writable(completion->res)) {
		if (more)
			return false;
		operation->state = TU_EDGE;
		sqe = tu_ring_sqe(ring);
		if (sqe) {
			prepare_poll(sqe, operation, completion->user_data);
			return false;
		}
		/* No room to wait any longer: wake the task, which will try again. */
	}
	*event = (tu_event){ operation->kind, operation->fd, completion->res, 0 };
	if (more) {
		*flush = true;
		tu_operations_cancel(operations, ring, slot);
	} else {
		release(operations, slot);
	}
	return true;
}

static bool opens(const struct tu_operation *operation)
{
	return operation->kind == TU_ACCEPT ||
	       (operation->kind == TU_OPERATION && operation->opcode == IORING_OP_OPENAT);
}

void tu_operations_discard(struct tu_operations *operations, const struct io_uring_cqe *completion)
{
	uint32_t slot = (uint32_t)completion->user_data;

	if (completion->user_data & CANCEL)
		take_answer(operations, completion);
	if (!is_current(operations, completion->user_data) || !is_answered(operations->slots[slot].kind))
		return;
	if (opens(&operations->slots[slot]) && completion->res >= 0)
		close(completion->res);
	if (!(completion->flags & IORING_CQE_F_MORE))
		release(operations, slot);
}
