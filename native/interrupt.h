/* The interrupt: how anything but the owner makes a sleeping owner look up.
 *
 * Two words and an eventfd. `signalled` holds the reasons to wake that nobody
 * has consumed yet; `sleeping` says that the owner is, or is about to be, in a
 * blocking wait.
 *
 *   anyone:  old = signalled |= reason       owner:  sleeping = 1
 *            if (!old && sleeping)                   if (signalled) do not block
 *                write(eventfd)                      block on the eventfd and the ring
 *                                                    sleeping = 0
 *
 * All four accesses are sequentially consistent, so at least one side sees the
 * other: either the writer sees the sleeper and writes, or the sleeper sees the
 * reason and does not sleep. A burst of signals costs one write, and none while
 * the owner is awake.
 *
 * The eventfd may be closed while others signal. Who uses it counts himself in `users` before he
 * looks at `fd`, until he is done; who closes it first takes `fd` away, and then waits until
 * nobody is counted. So whoever has seen the number was counted before it was taken away, and it
 * is closed after his write: that never meets a descriptor which something else has got. Nothing
 * that is counted waits for anything.
 *
 * The words are the truth, whatever the eventfd says: the ring
 * watches it with an edge-triggered poll, which every write wakes, and never drains
 * it; a guest run's worker, for which the kernel writes to it too, does. */
#ifndef TU_INTERRUPT_H
#define TU_INTERRUPT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "identity.h"

struct tu_interrupt {
	_Atomic uint32_t signalled;
	_Atomic uint32_t sleeping;
	_Atomic uint32_t users;
	_Atomic int fd; /* -1 once closed */
	struct tu_identity identity;
	char apart[64];  /* other threads write to this cache line: nothing else is in it */
};

/* Owner. 0 or -errno. What has been signalled stays so, if it was closed before. */
int tu_interrupt_open(struct tu_interrupt *interrupt);

/* Owner. `certain`: as far as we know the number is still the eventfd's. Otherwise it is left open,
 * since eventfds cannot be told apart: it may be somebody else's. */
void tu_interrupt_close(struct tu_interrupt *interrupt, bool certain);

/* A forked child, before it closes it: whoever used it at that moment is not there. */
void tu_interrupt_lose(struct tu_interrupt *interrupt);

/* Any thread, a signal handler or a finaliser. Nothing happens once closed. */
void tu_interrupt_signal(struct tu_interrupt *interrupt, uint32_t reason);

/* Owner. The reasons signalled since the last call. */
uint32_t tu_interrupt_consume(struct tu_interrupt *interrupt);

/* Owner, before it blocks. Non-zero: it must not, there is a reason already. */
int tu_interrupt_sleep(struct tu_interrupt *interrupt);

/* For who polls the eventfd as poll(2) does, which an unread write would keep awake. */
void tu_interrupt_drain(struct tu_interrupt *interrupt);

/* Owner, after it blocked. */
void tu_interrupt_wake(struct tu_interrupt *interrupt);

#endif
