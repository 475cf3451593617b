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
 * the owner is awake. The words are the truth, whatever the eventfd says: the ring
 * watches it with an edge-triggered poll, which every write wakes, and never drains
 * it; a guest run's worker, for which the kernel writes to it too, does. */
#ifndef TU_INTERRUPT_H
#define TU_INTERRUPT_H

#include <stdatomic.h>
#include <stdint.h>

struct tu_interrupt {
	_Atomic uint32_t signalled;
	_Atomic uint32_t sleeping;
	_Atomic int fd;  /* -1 once closed */
	char apart[64];  /* other threads write to this cache line: nothing else is in it */
};

/* Owner. 0 or -errno. What has been signalled stays so, if it was closed before. */
int tu_interrupt_open(struct tu_interrupt *interrupt);

/* Owner, with signallers locked out: a late write must not meet a descriptor
 * number that something else has got in the meantime. */
void tu_interrupt_close(struct tu_interrupt *interrupt);

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
