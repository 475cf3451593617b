/* Provided buffers: the kernel takes one from a ring of them when there is something to
 * receive, so that only connections with data hold memory. */
#include "limit.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

static void *map(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);

	if (memory == MAP_FAILED)
		fail("mmap", -errno);
	return memory;
}

static void add(struct pool *pool, unsigned index)
{
	io_uring_buf_ring_add(pool->ring, pool->memory + (size_t)index * pool->size, pool->size,
			      (unsigned short)index, io_uring_buf_ring_mask(pool->count), 0);
	io_uring_buf_ring_advance(pool->ring, 1);
}

void pool_open(struct pool *pool, unsigned short group, unsigned count, unsigned size)
{
	struct io_uring_buf_reg registration = { .ring_entries = count, .bgid = group };
	int error;

	pool->group = group;
	pool->count = count;
	pool->size = size;
	pool->memory = map((size_t)count * size);
	pool->pieces = map(count * sizeof(*pool->pieces));
	pool->ring = map(count * sizeof(struct io_uring_buf));
	registration.ring_addr = (uintptr_t)pool->ring;
	error = io_uring_register_buf_ring(&ring, &registration, 0);
	if (error)
		fail("registering provided buffers, which needs Linux 5.19", error);
	io_uring_buf_ring_init(pool->ring);
	for (unsigned index = 0; index < count; index++)
		add(pool, index);
}

struct piece *pool_take(struct pool *pool, const struct io_uring_cqe *completion)
{
	unsigned index = completion->flags >> IORING_CQE_BUFFER_SHIFT;
	struct piece *piece = &pool->pieces[index];

	pool->taken++;
	piece->next = NULL;
	piece->pool = pool;
	piece->data = pool->memory + (size_t)index * pool->size;
	piece->size = (size_t)completion->res;
	return piece;
}

void pool_give(struct piece *piece)
{
	piece->pool->taken--;
	add(piece->pool, (unsigned)(piece - piece->pool->pieces));
}
