/* The ring: one thread submits, and what the kernel defers for it is run when it enters
 * the kernel to wait, which is the cheapest there is. Older kernels get less. */
#include "limit.h"

#include <errno.h>
#include <stdio.h>

#define ENTRIES 4096
#define COMPLETIONS 32768

struct io_uring ring;

struct setup {
	unsigned flags;
	const char *name;
};

static const struct setup setups[] = {
#if defined(IORING_SETUP_SINGLE_ISSUER) && defined(IORING_SETUP_DEFER_TASKRUN)
	{ IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, "SINGLE_ISSUER DEFER_TASKRUN" },
#endif
#if defined(IORING_SETUP_SINGLE_ISSUER) && defined(IORING_SETUP_COOP_TASKRUN)
	{ IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN, "SINGLE_ISSUER COOP_TASKRUN" },
#endif
#ifdef IORING_SETUP_COOP_TASKRUN
	{ IORING_SETUP_COOP_TASKRUN, "COOP_TASKRUN" },
#endif
	{ 0, "no flags" },
};

const char *open_ring(void)
{
	static char seen[80];
	const char *registered;
	const struct setup *setup = setups;
	int error;

	for (;; setup++) {
		struct io_uring_params parameters = {
			.flags = setup->flags | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
			.cq_entries = COMPLETIONS,
		};

		error = io_uring_queue_init_params(ENTRIES, &ring, &parameters);
		if (error != -EINVAL || !setup->flags)
			break;
	}
	if (error)
		fail("io_uring_setup", error);
	registered = io_uring_register_ring_fd(&ring) == 1 ? ", registered descriptor" : "";
	snprintf(seen, sizeof(seen), "io_uring: %s%s", setup->name, registered);
	return seen;
}

struct io_uring_sqe *submission(void)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
	int error;

	while (!sqe) {
		error = io_uring_submit(&ring);
		if (error < 0 && error != -EINTR)
			fail("io_uring_enter", error);
		sqe = io_uring_get_sqe(&ring);
	}
	return sqe;
}

void identify(struct io_uring_sqe *submission, enum kind kind, int fd)
{
	io_uring_sqe_set_data64(submission, (uint64_t)fd << 8 | kind);
}
