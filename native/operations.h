/* Operations: what is with the kernel, or queued for it, each in a slot of a table.
 *
 * The kernel gets a slot's number and generation as user_data, never an address. The generation changes
 * when the slot is released. So a completion that comes late does not match, and is dropped.
 *
 * The states of a wait for readiness:
 *
 *   state     what is with the kernel             next
 *   FREE      nothing; the slot can be given out  ARMED, by tu_poll_add
 *   ARMED     a one-shot poll                     ASKED, by its completion; FREE, by a cancel, or by
 *                                                 its completion if that is not to be confirmed
 *   EDGE      a multishot poll                    ASKED, by a completion; FREE, by a cancel
 *   ASKED     nothing, or the multishot poll      FREE, if poll(2) says that the descriptor is
 *                                                 ready; else EDGE. Within one tick
 *   DOOMED    a poll; to cancel it has failed,    FREE, by its completion or at the next tick,
 *             or there was no memory for that     which tries again to cancel it
 *
 * That a poll of the ring has completed does not mean that the descriptor is ready. The kernel completes
 * the poll by what a wake-up says, and does not ask the file again, which may have been ready for a
 * moment only. So before tasks are woken, one call of poll(2) asks for all polls that have completed in
 * the tick.
 *
 * A descriptor that is not ready is polled again, now as EDGE. A one-shot poll could complete at once,
 * over and over: once the peer has shut down its sending side, the kernel reports POLLRDHUP, whatever was
 * asked for. A multishot poll is edge-triggered, and completes on changes only.
 *
 * An operation of tu_submit or tu_send, a receive and an accept are `pinned`: the kernel may write to
 * memory for them, or open descriptors. They are ARMED, and only their last completion makes them FREE.
 * Each completion is an event. A cancel leaves them ARMED; or, for want of memory, DOOMED until the next
 * tick has submitted it.
 *
 * A pending poll keeps its file open. So a call that cancels a poll returns only when the kernel has
 * acted on it: the caller may be about to close the descriptor, and the peer to wait for that.
 *
 * All functions are for the ring's owner. */
#ifndef TU_OPERATIONS_H
#define TU_OPERATIONS_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#include "buffers.h"
#include "ring.h"

/* The kinds of operations, and of their events; interface.h describes them. From TU_OPERATION on they are
 * pinned. TU_NOTHING is only a kind of events. */
enum tu_kind { TU_NOTHING, TU_READ, TU_WRITE, TU_OPERATION, TU_RECEIVE, TU_ACCEPT, TU_KINDS };

enum tu_state { TU_FREE, TU_ARMED, TU_EDGE, TU_ASKED, TU_DOOMED };

/* user_data of the core's own submissions: the generation is 0, which no operation has. */
enum tu_internal { TU_NOBODY, TU_INTERRUPT_POLL, TU_SIGNAL_POLL, TU_LIMIT_QUESTION };

struct tu_operation {
	uint32_t generation; /* > 0 */
	uint8_t kind;        /* enum tu_kind */
	uint8_t state;       /* enum tu_state */
	bool goes_on;        /* ASKED: a multishot poll is with the kernel */
	bool confirm;        /* a wait: poll(2) is to confirm that the descriptor is ready */
	int32_t fd;
	uint32_t next_free; /* of a FREE slot; 0: there is none */
};

struct tu_operations {
	struct tu_operation *slots; /* slot 0 is never given out, and its generation is not 0 either */
	uint32_t capacity;
	uint32_t first_free;
	uint32_t in_flight;
	uint32_t doomed;
	uint32_t pinned; /* operations whose last completion is still to come */
};

/* What tu_submit and tu_send fill in of a submission entry. */
struct tu_submission {
	uint8_t opcode;
	uint8_t entry_flags;
	int fd;
	uint64_t address;
	uint32_t length;
	uint64_t offset;
	uint32_t flags;
	int other_fd;
};

typedef struct {
	int16_t kind;
	int16_t more;
	int32_t key;
	int32_t result;
	int32_t buffer;
} tu_event;

/* The user_data of the operation in a slot. */
static inline uint64_t tu_operations_identity(const struct tu_operations *operations, uint32_t slot)
{
	return (uint64_t)operations->slots[slot].generation << 32 | slot;
}

/* Whether `user_data` is that of an operation that still has its slot. */
static inline bool tu_operations_is_current(const struct tu_operations *operations, uint64_t user_data)
{
	uint32_t slot = (uint32_t)user_data;

	return slot < operations->capacity && tu_operations_identity(operations, slot) == user_data;
}

int tu_operations_open(struct tu_operations *operations);
void tu_operations_close(struct tu_operations *operations);

/* Polls a descriptor once for a wait of kind TU_READ or TU_WRITE, which poll(2) has to `confirm` or not. Returns
 * its slot, or -errno. */
int tu_operations_poll(struct tu_operations *operations, struct tu_ring *ring, int fd, enum tu_kind kind,
		       bool confirm);

/* Submits any operation. Returns its slot, or -errno. */
int tu_operations_submit(struct tu_operations *operations, struct tu_ring *ring, const struct tu_submission *submission);

/* Submits a receive into a provided buffer: of up to `length` bytes, once; or, with length 0, a
 * multishot, of `most` bytes (0: of any number). Returns its slot, or -errno. */
int tu_operations_receive(struct tu_operations *operations, struct tu_ring *ring, int fd, uint32_t length,
			  uint32_t most);

/* Asks whether a multishot receive may be of `most` bytes, by one that has no file. A kernel before Linux
 * 6.17 answers EINVAL before it looks for the file. The answer's user_data is TU_LIMIT_QUESTION. */
void tu_operations_ask_for_limit(struct tu_ring *ring);

/* Submits an accept, of one connection or, multishot, of all that come. Returns its slot, or -errno. */
int tu_operations_accept(struct tu_operations *operations, struct tu_ring *ring, int fd, bool multishot);

/* Takes a pinned operation back. True if the kernel had not seen it: its slot is free. Otherwise the
 * kernel is asked to cancel it, and its last completion will come, or has come already. */
bool tu_operations_withdraw(struct tu_operations *operations, struct tu_ring *ring, uint32_t slot);

/* Asks the kernel to cancel the operation in a slot, and releases the slot if it is a poll's. Returns 1
 * if the kernel acts on that only when the ring is flushed, else 0. */
int tu_operations_cancel(struct tu_operations *operations, struct tu_ring *ring, uint32_t slot);

/* Asks the kernel to cancel every operation. */
void tu_operations_cancel_all(struct tu_operations *operations, struct tu_ring *ring);

/* Tries again to cancel what is DOOMED. */
void tu_operations_retry_doomed(struct tu_operations *operations, struct tu_ring *ring);

/* How long a tick may wait, in nanoseconds: briefly if something is DOOMED, else `timeout_ns`. */
int64_t tu_operations_patience(const struct tu_operations *operations, int64_t timeout_ns);

/* Takes a completion in. True if it has made an event. An event that is to be confirmed has to be passed to
 * `tu_operations_answer`, and has its slot in `buffer` until then. */
bool tu_operations_complete(struct tu_operations *operations, struct tu_buffers *buffers,
			    const struct io_uring_cqe *completion, tu_event *event);

/* Whether it says that cancels are not allowed. What is with the kernel could only be waited for then, and
 * a wait for a receive may never end. */
bool tu_operations_is_refused_cancel(const struct io_uring_cqe *completion);

/* What poll(2) is to be asked for an event that is to be confirmed. */
struct pollfd tu_operations_question(const tu_event *event);

/* Takes in what poll(2) answered. False if the descriptor is not ready: it is polled again, and there is
 * no event. Sets `*flush` if a cancel was queued that the kernel has to act on before Python goes on. */
bool tu_operations_answer(struct tu_operations *operations, struct tu_ring *ring, tu_event *event, bool ready,
			  bool *flush);

static inline bool tu_operations_is_to_be_confirmed(const tu_event *event)
{
	return event->kind < TU_OPERATION && event->buffer >= 0;
}

#endif
