#include "buffers.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* Puts a buffer into the kernel's ring, `at` places behind its tail. The kernel sees it when the tail is
 * advanced. */
static void provide(struct tu_buffers *buffers, uint16_t number, uint32_t at)
{
	io_uring_buf_ring_add(buffers->ring, buffers->memory + (size_t)number * buffers->size, buffers->size, number,
			      io_uring_buf_ring_mask(buffers->count), (int)at);
}

/* The size of the ring of buffers, in whole pages, since the kernel wants it at the start of a page. */
static size_t ring_size(uint32_t count)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	return (count * sizeof(struct io_uring_buf) + page - 1) & ~(page - 1);
}

/* Tells the kernel where the ring of buffers is. 0 or -errno. */
static int announce(const struct tu_buffers *buffers, struct tu_ring *ring)
{
	struct io_uring_buf_reg registration = {
		.ring_addr = (uintptr_t)buffers->ring,
		.ring_entries = buffers->count,
		.bgid = TU_BUFFER_GROUP,
	};

	return tu_ring_register(ring, IORING_REGISTER_PBUF_RING, &registration, 1);
}

int tu_buffers_open(struct tu_buffers *buffers, struct tu_ring *ring, uint32_t count, uint32_t size)
{
	size_t mapped = ring_size(count) + (size_t)count * size;
	void *memory = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int result;

	if (memory == MAP_FAILED)
		return -errno;
	*buffers = (struct tu_buffers){
		.ring = memory,
		.memory = (uint8_t *)memory + ring_size(count),
		.mapped = mapped,
		.count = count,
		.size = size,
		.lent = calloc(count, sizeof(*buffers->lent)),
	};
	result = buffers->lent ? announce(buffers, ring) : -ENOMEM;
	if (result < 0) {
		tu_buffers_close(buffers);
		return result;
	}
	io_uring_buf_ring_init(buffers->ring);
	for (uint32_t number = 0; number < count; number++)
		provide(buffers, (uint16_t)number, number);
	io_uring_buf_ring_advance(buffers->ring, (int)count);
	return 0;
}

void tu_buffers_close(struct tu_buffers *buffers)
{
	if (!buffers->ring)
		return;
	munmap(buffers->ring, buffers->mapped);
	free(buffers->lent);
	*buffers = (struct tu_buffers){ 0 };
}

int32_t tu_buffers_lend(struct tu_buffers *buffers, const struct io_uring_cqe *completion)
{
	uint16_t number = (uint16_t)(completion->flags >> IORING_CQE_BUFFER_SHIFT);

	if (!(completion->flags & IORING_CQE_F_BUFFER))
		return -1;
	buffers->lent[buffers->lent_count++] = number;
	return number;
}

void tu_buffers_take_back(struct tu_buffers *buffers)
{
	if (!buffers->lent_count)
		return;
	for (uint32_t index = 0; index < buffers->lent_count; index++)
		provide(buffers, buffers->lent[index], index);
	io_uring_buf_ring_advance(buffers->ring, (int)buffers->lent_count);
	buffers->lent_count = 0;
}
