/* Provided buffers: memory from which the kernel takes a buffer when data has come. A connection that
 * only waits for data takes no buffer. The functions are for the ring's owner.
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

/* Maps `count` buffers (a power of two) of `size` bytes and tells the kernel of them. 0 or -errno. */
int tu_buffers_open(struct tu_buffers *buffers, struct tu_ring *ring, uint32_t count, uint32_t size);

/* Unmaps the buffers. Only once the ring is closed, since until then the kernel may write to them. */
void tu_buffers_close(struct tu_buffers *buffers);

/* What is in the buffer of this number. */
static inline const uint8_t *tu_buffers_data(const struct tu_buffers *buffers, int32_t buffer)
{
	return buffers->memory + (size_t)buffer * buffers->size;
}

/* The number of the buffer that a completion names, which is lent from now on; -1 if it names none. */
int32_t tu_buffers_lend(struct tu_buffers *buffers, const struct io_uring_cqe *completion);

/* Provides all lent buffers again. Called at the beginning of a tick. */
void tu_buffers_take_back(struct tu_buffers *buffers);

#endif
