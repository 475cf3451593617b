#include "interrupt.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

int tu_interrupt_open(struct tu_interrupt *interrupt)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	atomic_store(&interrupt->fd, fd);
	return fd < 0 ? -errno : 0;
}

void tu_interrupt_close(struct tu_interrupt *interrupt)
{
	int fd = atomic_exchange(&interrupt->fd, -1);

	if (fd >= 0)
		close(fd);
}

void tu_interrupt_signal(struct tu_interrupt *interrupt, uint32_t reason)
{
	static const uint64_t one = 1;
	int fd;

	if (atomic_fetch_or(&interrupt->signalled, reason))
		return;
	if (!atomic_load(&interrupt->sleeping))
		return;
	fd = atomic_load(&interrupt->fd);
	if (fd >= 0 && write(fd, &one, sizeof(one)) < 0) {
		/* EAGAIN: 2^64-2 writes are unread, so the owner has long been woken. */
	}
}

uint32_t tu_interrupt_consume(struct tu_interrupt *interrupt)
{
	if (!atomic_load_explicit(&interrupt->signalled, memory_order_relaxed))
		return 0;
	return atomic_exchange(&interrupt->signalled, 0);
}

int tu_interrupt_sleep(struct tu_interrupt *interrupt)
{
	atomic_store(&interrupt->sleeping, 1);
	if (!atomic_load(&interrupt->signalled))
		return 0;
	tu_interrupt_wake(interrupt);
	return 1;
}

void tu_interrupt_drain(struct tu_interrupt *interrupt)
{
	uint64_t count;

	if (read(atomic_load(&interrupt->fd), &count, sizeof(count)) < 0) {
		/* EAGAIN: drained already. */
	}
}

void tu_interrupt_wake(struct tu_interrupt *interrupt)
{
	atomic_store(&interrupt->sleeping, 0);
}
