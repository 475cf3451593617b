/* The core: a ring, its operations and its interrupt. Its ticks are in tick.c. */
#include "core.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static const struct tu_calls calls = {
	.send = tu_send,
	.cancel = tu_cancel,
	.poll_add = tu_poll_add,
	.poll_cancel = tu_poll_cancel,
};

/* Set-up and end */

int tu_open(tu_core *core, uint32_t entries, uint32_t cq_entries, uint32_t setup_flags)
{
	int error;

	memset(core, 0, sizeof(*core));
	core->calls = &calls;
	atomic_init(&core->interrupt.fd, -1);
	core->signal_fd = -1;
	error = tu_interrupt_open(&core->interrupt);
	if (!error)
		error = tu_ring_open(&core->ring, entries, cq_entries, setup_flags);
	if (!error)
		error = tu_operations_open(&core->operations);
	if (!error) {
		core->events_capacity = core->ring.uring.cq.ring_entries;
		core->events = calloc(core->events_capacity, sizeof(*core->events));
		error = core->events ? 0 : -ENOMEM;
	}
	if (error)
		tu_destroy(core);
	return error;
}

void tu_set_wait_flags(tu_core *core, uint32_t flags)
{
	core->ring.wait_flags = flags;
}

void tu_do_without(tu_core *core, uint32_t features)
{
	core->ring.uring.features &= ~features;
}

/* In a guest run the kernel writes to the interrupt's eventfd when completions arrive. So the worker
 * thread waits for one descriptor, whatever is to wake it, and the shared words say what it was. */
int tu_start(tu_core *core, int guest)
{
	int result;
	int fd;

	core->started = true;
	core->guest = guest;
	if (!guest)
		return 0;
	fd = atomic_load(&core->interrupt.fd);
	tu_ring_set_notifications(&core->ring, false);
	result = tu_ring_register(&core->ring, IORING_REGISTER_EVENTFD, &fd, 1);
	return result < 0 ? result : 0;
}

void tu_watch_signals(tu_core *core, int fd)
{
	core->signal_fd = fd;
}

/* Asks the kernel to end the polls of the interrupt and of the signals. */
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

/* A forked child has the ring too, and keeps it alive after we have released it, with every file that a
 * pending operation refers to. So the owner leaves no operation in it. */
void tu_cancel_all(tu_core *core)
{
	if (!core->ring.open || !core->ring.enabled)
		return;
	tu_operations_cancel_all(&core->operations, &core->ring);
	if (core->interrupt_watched || core->signals_watched)
		cancel_watches(core);
	tu_ring_flush(&core->ring);
}

/* In a guest run the host may queue something, a cancel above all, or have the ring flushed, while the
 * worker thread waits. That one sees neither. So its wait ends, and a tick submits and reaps. */
static void end_wait_elsewhere(tu_core *core)
{
	if (atomic_load(&core->elsewhere))
		tu_interrupt_signal(&core->interrupt, TU_FORCED);
}

uint32_t tu_pinned(tu_core *core)
{
	return core->ring.open ? core->operations.pinned : 0;
}

void tu_check_descriptor(tu_core *core)
{
	tu_ring_check_descriptor(&core->ring);
}

void tu_lose(tu_core *core)
{
	tu_ring_close(&core->ring);
	tu_interrupt_lose(&core->interrupt);
	tu_close_interrupt(core);
}

/* If the owner has not waited for what is pending, the kernel may go on with it for a while after the
 * ring is closed. Then the provided buffers stay mapped for good. */
void tu_release(tu_core *core)
{
	tu_ring_close(&core->ring);
	if (!core->operations.pinned)
		tu_buffers_close(&core->buffers);
	tu_operations_close(&core->operations);
	free(core->events);
	core->events = NULL;
	core->events_count = 0;
}

void tu_destroy(tu_core *core)
{
	tu_release(core);
	tu_close_interrupt(core);
}

/* The interrupt */

const uint32_t *tu_signalled(tu_core *core)
{
	return (const uint32_t *)&core->interrupt.signalled;
}

void tu_signal_posted(tu_core *core)
{
	tu_interrupt_signal(&core->interrupt, TU_POSTED);
}

void tu_signal_forced(tu_core *core)
{
	tu_interrupt_signal(&core->interrupt, TU_FORCED);
}

void tu_close_interrupt(tu_core *core)
{
	tu_interrupt_close(&core->interrupt, !core->ring.lost);
}

/* Readiness */

int tu_poll_add(tu_core *core, int fd, int kind)
{
	if (fd < 0 || !core->ring.open)
		return -EBADF;
	end_wait_elsewhere(core);
	return tu_operations_poll(&core->operations, &core->ring, fd, (enum tu_kind)(kind & ~TU_UNCONFIRMED),
				  !(kind & TU_UNCONFIRMED));
}

int tu_poll_cancel(tu_core *core, int slot, int other_slot)
{
	int flush = 0;

	if (!core->ring.open)
		return 0;
	end_wait_elsewhere(core);
	if (slot)
		flush |= tu_operations_cancel(&core->operations, &core->ring, (uint32_t)slot);
	if (other_slot)
		flush |= tu_operations_cancel(&core->operations, &core->ring, (uint32_t)other_slot);
	return flush ? tu_ring_flush_patiently(&core->ring) : 0;
}

/* Operations of a caller's */

/* Notes that a submission has to be checked before the kernel gets it. Returns `slot`, which may be
 * -errno: then nothing was submitted. */
static int note_unchecked(tu_core *core, int slot)
{
	core->ring.unchecked |= slot > 0;
	return slot;
}

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

	int slot;

	if (!core->ring.open)
		return -EBADF;
	end_wait_elsewhere(core);
	slot = tu_operations_submit(&core->operations, &core->ring, &submission);
	return opcode & TU_CHECKED ? note_unchecked(core, slot) : slot;
}

int tu_cancel(tu_core *core, int slot)
{
	if (!core->ring.open)
		return 1;
	end_wait_elsewhere(core);
	return tu_operations_withdraw(&core->operations, &core->ring, (uint32_t)slot);
}

int tu_send(tu_core *core, int fd, const char *data, size_t length, int whole)
{
	struct tu_submission submission = {
		.opcode = IORING_OP_SEND,
		.fd = fd,
		.address = (uintptr_t)data,
		.length = length > TU_MOST_BYTES ? TU_MOST_BYTES : (uint32_t)length,
		.flags = MSG_NOSIGNAL | (whole ? MSG_WAITALL : MSG_DONTWAIT),
	};

	if (!core->ring.open)
		return -EBADF;
	end_wait_elsewhere(core);
	return note_unchecked(core, tu_operations_submit(&core->operations, &core->ring, &submission));
}

/* Receiving */

int tu_provide_buffers(tu_core *core, uint32_t count, uint32_t size)
{
	int result = core->ring.open ? tu_buffers_open(&core->buffers, &core->ring, count, size) : -EBADF;

	if (!result)
		tu_operations_ask_for_limit(&core->ring);
	return result;
}

void *tu_buffer_memory(tu_core *core)
{
	return core->buffers.memory;
}

int tu_receive(tu_core *core, int fd, uint32_t length, uint32_t most)
{
	if (!core->ring.open)
		return -EBADF;
	end_wait_elsewhere(core);
	most = core->limits ? most : 0;
	return note_unchecked(core, tu_operations_receive(&core->operations, &core->ring, fd, length, most));
}

int tu_accept(tu_core *core, int fd, int multishot)
{
	if (!core->ring.open)
		return -EBADF;
	end_wait_elsewhere(core);
	return note_unchecked(core, tu_operations_accept(&core->operations, &core->ring, fd, multishot));
}

/* Whether a completion says something about its descriptor, and not only that the operation stopped for
 * a while. */
static bool is_conclusive(const struct io_uring_cqe *completion)
{
	return completion->res != -ENOBUFS && completion->res != -ECANCELED && completion->res != -EAGAIN &&
	       completion->res != -EINTR;
}

int tu_has_completed(tu_core *core, int slot)
{
	const struct io_uring_cqe *completion;
	uint64_t identity;

	if (!core->ring.open || (uint32_t)slot >= core->operations.capacity)
		return 0;
	identity = tu_operations_identity(&core->operations, (uint32_t)slot);
	for (uint32_t number = 0; (completion = tu_ring_completion(&core->ring, number)); number++)
		if (completion->user_data == identity && is_conclusive(completion))
			return 1;
	return 0;
}

int tu_flush(tu_core *core)
{
	if (!core->ring.open)
		return 0;
	end_wait_elsewhere(core);
	return tu_ring_flush_patiently(&core->ring);
}

/* Events and statistics */

tu_event *tu_events(tu_core *core)
{
	return core->events;
}

uint32_t tu_events_left(tu_core *core)
{
	for (uint32_t index = 0; index < core->events_count; index++)
		if (core->events[index].kind != TU_NOTHING)
			return core->events_count;
	return 0;
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
