/* What the core makes of completions, for libFuzzer: of any results, flags and order, between calls
 * that submit, cancel and answer.
 *
 * The input is a program: each step is an opcode and what it needs. There is no kernel. The queues lie in
 * memory of this program, and it takes what is submitted out of one and puts completions into the other. As
 * every kernel it completes what was submitted, once or as a multishot, and names a provided buffer only if
 * it has it. */
#include "core.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define ENTRIES 8
#define COMPLETIONS 16
#define PENDING 64
#define BUFFERS 4
#define BUFFER_SIZE 64

struct input {
	const uint8_t *data;
	size_t left;
};

static uint32_t take(struct input *input, size_t size)
{
	uint32_t value = 0;

	if (size > input->left)
		size = input->left;
	memcpy(&value, input->data, size);
	input->data += size;
	input->left -= size;
	return value;
}

struct pending {
	uint64_t user_data;
	bool goes_on; /* a multishot */
	bool pinned;
};

/* What a kernel has: the queues, which it shares with us, what is pending, and buffers, one bit for each. */
struct kernel {
	unsigned sq_head, sq_tail, sq_mask, sq_entries, sq_flags, sq_dropped;
	unsigned cq_head, cq_tail, cq_mask, cq_entries, cq_flags, cq_overflow;
	struct io_uring_sqe sqes[ENTRIES];
	struct io_uring_cqe cqes[COMPLETIONS];
	struct pending pending[PENDING];
	uint32_t count;
	uint32_t buffers;
};

static void set_up(tu_core *core, struct kernel *kernel)
{
	struct io_uring *uring = &core->ring.uring;

	memset(core, 0, sizeof(*core));
	memset(kernel, 0, sizeof(*kernel));
	kernel->sq_mask = ENTRIES - 1;
	kernel->cq_mask = COMPLETIONS - 1;
	kernel->sq_entries = ENTRIES;
	kernel->cq_entries = COMPLETIONS;
	uring->sq = (struct io_uring_sq){
		.khead = &kernel->sq_head, .ktail = &kernel->sq_tail, .kring_mask = &kernel->sq_mask,
		.kring_entries = &kernel->sq_entries, .kflags = &kernel->sq_flags, .kdropped = &kernel->sq_dropped,
		.sqes = kernel->sqes, .ring_mask = ENTRIES - 1, .ring_entries = ENTRIES,
	};
	uring->cq = (struct io_uring_cq){
		.khead = &kernel->cq_head, .ktail = &kernel->cq_tail, .kring_mask = &kernel->cq_mask,
		.kring_entries = &kernel->cq_entries, .kflags = &kernel->cq_flags, .koverflow = &kernel->cq_overflow,
		.cqes = kernel->cqes, .ring_mask = COMPLETIONS - 1, .ring_entries = COMPLETIONS,
	};
	kernel->buffers = (1U << BUFFERS) - 1;
	uring->ring_fd = -1;
	uring->features = IORING_FEAT_CQE_SKIP;
	core->ring.open = core->ring.enabled = true;
	core->signal_fd = -1;
	atomic_init(&core->interrupt.fd, -1);
	assert(tu_operations_open(&core->operations) == 0);
	core->events_capacity = COMPLETIONS;
	core->events = calloc(COMPLETIONS, sizeof(*core->events));
	core->buffers.mapped = 8192;
	core->buffers.ring = mmap(NULL, core->buffers.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	core->buffers.memory = (uint8_t *)core->buffers.ring + 4096;
	core->buffers.count = BUFFERS;
	core->buffers.size = BUFFER_SIZE;
	core->buffers.lent = calloc(BUFFERS, sizeof(*core->buffers.lent));
	assert(core->events && core->buffers.lent && core->buffers.ring != MAP_FAILED);
}

/* The kernel's side: takes all submissions, so that there is room again. */
static void consume(tu_core *core, struct kernel *kernel)
{
	struct io_uring_sq *sq = &core->ring.uring.sq;

	for (; sq->sqe_head != sq->sqe_tail; sq->sqe_head++) {
		const struct io_uring_sqe *sqe = &kernel->sqes[sq->sqe_head & (ENTRIES - 1)];
		bool goes_on = sqe->opcode == IORING_OP_POLL_ADD ? sqe->len & IORING_POLL_ADD_MULTI :
			       sqe->opcode == IORING_OP_RECV || sqe->opcode == IORING_OP_ACCEPT ? sqe->ioprio : false;

		bool pinned = sqe->opcode != IORING_OP_POLL_ADD && sqe->opcode != IORING_OP_ASYNC_CANCEL;

		if (kernel->count < PENDING && sqe->opcode != IORING_OP_NOP)
			kernel->pending[kernel->count++] = (struct pending){ sqe->user_data, goes_on, pinned };
	}
	kernel->sq_head = kernel->sq_tail = sq->sqe_tail;
}

/* Adds a completion: of what is pending, cancelled or not; or one that comes late, for an operation that
 * has gone. */
static void complete(tu_core *core, struct kernel *kernel, struct input *input)
{
	struct io_uring_cqe *cqe = &kernel->cqes[kernel->cq_tail & (COMPLETIONS - 1)];
	uint32_t flags = take(input, 1);
	uint32_t number = flags >> 2 & (BUFFERS - 1);
	uint32_t which = take(input, 1);

	if (kernel->cq_tail - kernel->cq_head == COMPLETIONS)
		return;
	*cqe = (struct io_uring_cqe){ .res = (int32_t)(take(input, flags & 0x80 ? 4 : 1) - (flags & 0x40 ? 256 : 0)) };
	if (which < kernel->count) {
		struct pending *pending = &kernel->pending[which];

		cqe->user_data = pending->user_data;
		cqe->flags = pending->goes_on ? flags & IORING_CQE_F_MORE : 0;
		if (flags & IORING_CQE_F_BUFFER && kernel->buffers & 1U << number) {
			cqe->flags |= IORING_CQE_F_BUFFER | number << IORING_CQE_BUFFER_SHIFT;
			kernel->buffers &= ~(1U << number);
		}
		if (!(cqe->flags & IORING_CQE_F_MORE))
			*pending = kernel->pending[--kernel->count];
	} else {
		cqe->user_data = (uint64_t)take(input, 4) << 32 | take(input, 1);
		if (tu_operations_is_current(&core->operations, cqe->user_data & ~(1ULL << 63)))
			return;
	}
	kernel->cq_tail++;
}

/* What has to be so after each step. */
static void check(const tu_core *core, const struct kernel *kernel)
{
	const struct tu_operations *operations = &core->operations;
	uint32_t used = 0;
	uint32_t doomed = 0;
	uint32_t pinned = 0;
	uint32_t free_slots = 0;

	for (uint32_t slot = 1; slot < operations->capacity; slot++) {
		const struct tu_operation *operation = &operations->slots[slot];

		assert(operation->generation);
		used += operation->state != TU_FREE;
		doomed += operation->state == TU_DOOMED;
		pinned += operation->state != TU_FREE && operation->kind >= TU_OPERATION;
	}
	for (uint32_t slot = operations->first_free; slot; slot = operations->slots[slot].next_free) {
		assert(slot < operations->capacity && operations->slots[slot].state == TU_FREE);
		free_slots++;
		assert(free_slots < operations->capacity);
	}
	assert(used == operations->in_flight && doomed == operations->doomed && pinned == operations->pinned);
	assert(used + free_slots == operations->capacity - 1);
	for (uint32_t index = 0; index < kernel->count; index++) /* or its result would be dropped */
		assert(!kernel->pending[index].pinned ||
		       tu_operations_is_current(operations, kernel->pending[index].user_data));
	assert(core->buffers.lent_count <= BUFFERS);
	assert(core->events_count <= core->events_capacity);
	for (uint32_t index = 0; index < core->events_count; index++)
		assert(core->events[index].buffer >= -1 && core->events[index].buffer < BUFFERS);
}

/* Takes completions in, as a tick does, but asks nobody whether descriptors are ready. */
static void reap(tu_core *core, struct input *input)
{
	struct io_uring_cqe completion;
	bool flush = false;
	uint32_t count = 0;
	uint32_t kept = 0;

	while (count < core->events_capacity && tu_ring_pop(&core->ring, &completion))
		count += tu_operations_complete(&core->operations, &core->buffers, &completion, &core->events[count]);
	for (uint32_t index = 0; index < count; index++) {
		tu_event *event = &core->events[index];

		if (!tu_operations_is_to_be_confirmed(event) ||
		    tu_operations_answer(&core->operations, &core->ring, event, take(input, 1) & 1, &flush))
			core->events[kept++] = *event;
	}
	core->events_count = kept;
}

/* The kernel gets the buffers that the core has, and not those that completions name which it has not taken. */
static void take_back(tu_core *core, struct kernel *kernel)
{
	for (uint32_t index = 0; index < core->buffers.lent_count; index++)
		kernel->buffers |= 1U << core->buffers.lent[index];
	tu_buffers_take_back(&core->buffers);
}

static void step(tu_core *core, struct kernel *kernel, struct input *input)
{
	uint32_t choice = take(input, 1);
	uint32_t slot = choice >> 4;
	bool has_room = io_uring_sq_space_left(&core->ring.uring) > 1;

	switch (choice & 15) {
	case 0:
	case 1:
		if (has_room)
			tu_poll_add(core, (int)slot, choice & 1 ? TU_READ : TU_WRITE);
		break;
	case 2:
		if (has_room)
			tu_submit(core, IORING_OP_READ, (int)slot, NULL, 1, 0, 0, 0);
		break;
	case 3:
	case 4:
		if (has_room)
			tu_receive(core, (int)slot, choice & 1, choice & 2 ? 100 : 0);
		break;
	case 5:
		if (has_room)
			tu_accept(core, (int)slot, true);
		break;
	case 6:
		if (has_room && slot)
			tu_cancel(core, (int)slot);
		break;
	case 7:
		tu_has_completed(core, (int)take(input, 4) & 0x7fffffff);
		break;
	case 8:
		reap(core, input);
		break;
	case 9:
		take_back(core, kernel);
		break;
	case 10:
		consume(core, kernel);
		if (core->operations.doomed < ENTRIES - 1)
			tu_operations_retry_doomed(&core->operations, &core->ring);
		break;
	default:
		complete(core, kernel, input);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static tu_core core;
	static struct kernel kernel;
	struct input input = { data, size };

	set_up(&core, &kernel);
	while (input.left) {
		if (io_uring_sq_space_left(&core.ring.uring) <= ENTRIES / 2)
			consume(&core, &kernel);
		step(&core, &kernel, &input);
		check(&core, &kernel);
	}
	tu_buffers_close(&core.buffers);
	tu_operations_close(&core.operations);
	free(core.events);
	free(core.ring.stash);
	free(core.ring.aside);
	return 0;
}
