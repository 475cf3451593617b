/* Operations: what the kernel holds for us, one slot each.
 *
 * The kernel gets a slot and its generation as user_data, never an address. A
 * slot's generation changes when the slot is released, so that a completion
 * that comes late finds nobody and is dropped.
 *
 *   state     what is with the kernel             next
 *   FREE      nothing                             ARMED, by tu_poll_add
 *   ARMED     a one-shot poll                     ASKED, by its completion; FREE, by a cancel
 *   EDGE      a multishot poll                    ASKED, by a completion; FREE, by a cancel
 *   ASKED     nothing, or the multishot poll      FREE, if poll(2) says that the descriptor is
 *                                                 ready; else EDGE. Within one tick
 *   DOOMED    a poll, and no memory to cancel     FREE, by its completion or at the next tick,
 *             it with                             which tries again to cancel it
 *
 * A poll of the ring is a wake-up, not a truth: it completes by what the wake-up says, without
 * asking the file again, which may have been ready for a moment only, or only said so. So poll(2)
 * is asked before a task is woken, once for all that have completed in a tick.
 *
 * Who is not ready is armed again as EDGE. A one-shot poll could complete at once, over and over:
 * once the peer has shut down its sending side, POLLRDHUP is reported whatever was asked for. A
 * multishot poll is edge-triggered and completes on changes only.
 *
 * A caller's operation, a receive and an accept are ARMED as well: the kernel may write to memory
 * for them, or open descriptors. Their last completion alone makes them FREE, and each is an event.
 * A cancel only asks: it leaves them as they are, or DOOMED until the next tick has asked.
 *
 * A pending poll holds its file open. So a cancel is submitted and acted on
 * before the call returns: the caller may go on to close the descriptor, and
 * its peer is waiting for that. */
#ifndef TU_OPERATIONS_H
#define TU_OPERATIONS_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#include "buffers.h"
#include "ring.h"

/* TU_NOTHING: of an event that is over. From TU_OPERATION on: answered, whatever happens, and waited for at the end. */
enum tu_kind { TU_NOTHING, TU_READ, TU_WRITE, TU_OPERATION, TU_RECEIVE, TU_ACCEPT, TU_KINDS };

enum tu_state { TU_FREE, TU_ARMED, TU_EDGE, TU_ASKED, TU_DOOMED };

/* user_data with generation 0: not an operation. */
enum tu_internal { TU_NOBODY, TU_INTERRUPT_POLL, TU_SIGNAL_POLL };

struct tu_operation {
	uint32_t generation; /* > 0 */
	uint8_t kind;        /* enum tu_kind */
	uint8_t state;       /* enum tu_state */
	bool goes_on;        /* ASKED: a multishot poll is with the kernel */
	int32_t fd;
	uint32_t next_free; /* 0: none */
};

struct tu_operations {
	struct tu_operation *slots; /* slot 0 is never given out; its generation tells it from TU_NOBODY */
	uint32_t capacity;
	uint32_t first_free;
	uint32_t in_flight;
	uint32_t doomed;
	uint32_t pinned; /* all that is answered */
};

/* The fields of a submission entry that a caller's operation fills in. */
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

/* The user data of a slot's operation. */
static inline uint64_t tu_operations_identity(const struct tu_operations *operations, uint32_t slot)
{
	return (uint64_t)operations->slots[slot].generation << 32 | slot;
}

/* Whether it is the user data of an operation that has its slot still. */
static inline bool tu_operations_is_current(const struct tu_operations *operations, uint64_t user_data)
{
	uint32_t slot = (uint32_t)user_data;

	return slot < operations->capacity && tu_operations_identity(operations, slot) == user_data;
}

int tu_operations_open(struct tu_operations *operations);
void tu_operations_close(struct tu_operations *operations);

/* The slot of a new readiness operation, or -errno. */
int tu_operations_poll(struct tu_operations *operations, struct tu_ring *ring, int fd, enum tu_kind kind);

/* The slot of a caller's operation, or -errno. */
int tu_operations_submit(struct tu_operations *operations, struct tu_ring *ring, const struct tu_submission *submission);

/* The slot of a receive into a provided buffer, or -errno: of up to `length` bytes, once,
 * or, with length 0, multishot. */
int tu_operations_receive(struct tu_operations *operations, struct tu_ring *ring, int fd, uint32_t length);

/* The slot of an accept, or -errno: of one connection or, multishot, of all that come. */
int tu_operations_accept(struct tu_operations *operations, struct tu_ring *ring, int fd, bool multishot);

/* Whether a caller's operation, a receive or an accept is gone: the kernel never knew of it.
 * Otherwise its last completion will come, cancelled or not, or has come already. */
bool tu_operations_withdraw(struct tu_operations *operations, struct tu_ring *ring, uint32_t slot);

/* Asks the kernel to let go of a slot's operation and releases the slot of a poll. 1 if
 * the kernel has to be flushed for it, 0 if it never knew or is done with it. */
int tu_operations_cancel(struct tu_operations *operations, struct tu_ring *ring, uint32_t slot);

void tu_operations_cancel_all(struct tu_operations *operations, struct tu_ring *ring);
void tu_operations_retry_doomed(struct tu_operations *operations, struct tu_ring *ring);

/* Nanoseconds to wait at most: what could not be cancelled is tried again soon. */
int64_t tu_operations_patience(const struct tu_operations *operations, int64_t timeout_ns);

/* Takes one completion in: true if it is an event. Until `tu_operations_settle` the `buffer` of
 * an event of readiness is its slot. */
bool tu_operations_complete(struct tu_operations *operations, struct tu_buffers *buffers,
			    const struct io_uring_cqe *completion, tu_event *event);

/* For poll(2), what an event of readiness asks about. */
struct pollfd tu_operations_question(const tu_event *event);

/* Takes poll(2)'s answer in: false if the descriptor is not ready, and is waited for again.
 * `*flush` is set if a cancel was left pending that has to be acted on before Python goes on. */
bool tu_operations_settle(struct tu_operations *operations, struct tu_ring *ring, tu_event *event, bool ready,
			  bool *flush);

static inline bool tu_operations_is_readiness(const tu_event *event)
{
	return event->kind < TU_OPERATION;
}

#endif
