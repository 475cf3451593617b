#include "interrupt.h"

#include <errno.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

int tu_interrupt_open(struct tu_interrupt *interrupt)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	if (fd < 0)
		return -errno;
	interrupt->identity = tu_identify(fd);
	atomic_store(&interrupt->fd, fd);
	return 0;
}

void tu_interrupt_close(struct tu_interrupt *interrupt, bool certain)
{
	int fd = atomic_exchange(&interrupt->fd, -1);

	while (atomic_load(&interrupt->users))
		sched_yield();
	if (fd >= 0 && certain && tu_identity_is(&interrupt->identity, tu_identify(fd)))
		close(fd);
}

void tu_interrupt_lose(struct tu_interrupt *interrupt)
{
	atomic_store(&interrupt->users, 0);
	atomic_store(&interrupt->sleepers, 0);
}

/* Calls `call` with the eventfd, unless that is closed. */
static void use(struct tu_interrupt *interrupt, ssize_t (*call)(int fd))
{
	int fd;

	atomic_fetch_add(&interrupt->users, 1);
	fd = atomic_load(&interrupt->fd);
	if (fd >= 0)
		call(fd);
	atomic_fetch_sub(&interrupt->users, 1);
}

/* EAGAIN would mean 2^64-2 unread writes: the owner has been woken long before. */
static ssize_t write_one(int fd)
{
	static const uint64_t one = 1;

	return write(fd, &one, sizeof(one));
}

/* EAGAIN means that it is drained already. */
static ssize_t drain(int fd)
{
	uint64_t count;

	return read(fd, &count, sizeof(count));
}

void tu_interrupt_signal(struct tu_interrupt *interrupt, uint32_t reason)
{
	if (!atomic_fetch_or(&interrupt->signalled, reason) && atomic_load(&interrupt->sleepers))
		use(interrupt, write_one);
}

/* The first look may miss what is signalled at this moment, since it is relaxed: the look of whoever sleeps
 * next does not. What woke the owner it does not miss, since the kernel orders the write before the wake. */
uint32_t tu_interrupt_consume(struct tu_interrupt *interrupt)
{
	if (!atomic_load_explicit(&interrupt->signalled, memory_order_relaxed))
		return 0;
	return atomic_exchange(&interrupt->signalled, 0);
}

int tu_interrupt_sleep(struct tu_interrupt *interrupt)
{
	atomic_fetch_add(&interrupt->sleepers, 1);
	if (!atomic_load(&interrupt->signalled))
		return 0;
	tu_interrupt_wake(interrupt);
	return 1;
}

void tu_interrupt_drain(struct tu_interrupt *interrupt)
{
	use(interrupt, drain);
}

void tu_interrupt_wake(struct tu_interrupt *interrupt)
{
	atomic_fetch_sub(&interrupt->sleepers, 1);
}
