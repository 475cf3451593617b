/* Provided buffers: memory from which the kernel takes a buffer when data has come, so
 * that a connection that waits has none.
 *
 *   state of a buffer   who may touch it               next
 *   provided            the kernel                     lent, by a completion that names it
 *   lent                Python, which copies the       provided, by the next tick
 *                       data out when it processes
 *                       the events of this tick
 *
 * The kernel takes the buffers in turn, and touches no page before it has data for it. */
#ifndef TU_BUFFERS_H
#define TU_BUFFERS_H

#include <stdbool.h>
#include <stdint.h>

#include "ring.h"

#define TU_BUFFER_GROUP 0

struct tu_buffers {
	struct io_uring_buf_ring *ring; /* NULL: there are none */
	uint8_t *memory;                /* behind the ring, in the same mapping */
	size_t mapped;
	uint32_t count; /* a power of two */
	uint32_t size;
	uint16_t *lent;
	uint32_t lent_count;
};

int tu_buffers_open(struct tu_buffers *buffers, struct tu_ring *ring, uint32_t count, uint32_t size);

/* When the ring is closed: until then the kernel may write to them. */
void tu_buffers_close(struct tu_buffers *buffers);

/* What the buffer of a number holds. */
static inline const uint8_t *tu_buffers_data(const struct tu_buffers *buffers, int32_t buffer)
{
	return buffers->memory + (size_t)buffer * buffers->size;
}

/* Of a completion: the number of its buffer, lent from now on; -1 if it has none. */
int32_t tu_buffers_lend(struct tu_buffers *buffers, const struct io_uring_cqe *completion);
void tu_buffers_take_back(struct tu_buffers *buffers);

#endif
