/* The interrupt: how anybody but the owner wakes an owner that sleeps in the kernel.
 *
 * Two words and an eventfd. `signalled` holds the reasons to wake that nobody
 * has consumed yet; `sleepers` counts who is, or is about to be, in a
 * blocking wait: the owner, or the worker thread of a guest run; both, where the
 * owner closes the run meanwhile.
 *
 *   anyone:  old = signalled |= reason       sleeper:  sleepers++
 *            if (!old && sleepers)                     if (signalled) do not block
 *                write(eventfd)                        block on the eventfd and the ring
 *                                                      sleepers--
 *
 * All four accesses are sequentially consistent, so at least one side sees the
 * other: either the writer sees the sleeper and writes, or the sleeper sees the
 * reason and does not sleep. A burst of signals costs one write, and none while
 * the owner is awake. tests/model tries every order of these steps, and with weaker
 * orders of memory finds the signal that is lost.
 *
 * The eventfd may be closed while others signal. A user of it increments `users` before it reads `fd`,
 * and decrements it when it is done. The closer first sets `fd` to -1, and then waits until `users` is
 * 0. So whoever has read the number was counted before it was taken away, and the eventfd is closed
 * only after that write: no write ever goes to a descriptor that has been given out again. The wait is
 * short, since a user never blocks while it is counted.
 *
 * Only the words say what happened; the eventfd only wakes. The ring watches the eventfd with an
 * edge-triggered poll, which every write wakes, so it need not be drained. The worker thread of a guest
 * run polls it with poll(2), and drains it. */
#ifndef TU_INTERRUPT_H
#define TU_INTERRUPT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "identity.h"

struct tu_interrupt {
	_Atomic uint32_t signalled;
	_Atomic uint32_t sleepers;
	_Atomic uint32_t users; /* how many are using `fd` now */
	_Atomic int fd; /* -1 once closed */
	struct tu_identity identity;
	char padding[64]; /* other threads write to the words: nothing else shares their cache line */
};

/* Owner: opens the eventfd. 0 or -errno. Reasons that were signalled while it was closed are kept. */
int tu_interrupt_open(struct tu_interrupt *interrupt);

/* Owner: closes the eventfd. Not `certain`: somebody may have closed the descriptor before, and another
 * eventfd may have its number. Eventfds cannot be told apart, so it is left open. */
void tu_interrupt_close(struct tu_interrupt *interrupt, bool certain);

/* Forked child, before it closes the eventfd: threads that were using it, or slept, do not exist in the
 * child. */
void tu_interrupt_lose(struct tu_interrupt *interrupt);

/* Any thread, a signal handler or a finaliser: wakes the owner for a reason, a TU_ flag of interface.h.
 * Once the eventfd is closed, the reason is only noted. */
void tu_interrupt_signal(struct tu_interrupt *interrupt, uint32_t reason);

/* Owner: takes the reasons that were signalled since the last call. */
uint32_t tu_interrupt_consume(struct tu_interrupt *interrupt);

/* Whoever is about to block. Non-zero: he must not, since there is a reason already. */
int tu_interrupt_sleep(struct tu_interrupt *interrupt);

/* Whoever waits for the eventfd with poll(2), which would return at once while a write is unread. */
void tu_interrupt_drain(struct tu_interrupt *interrupt);

/* The same, after it has blocked. */
void tu_interrupt_wake(struct tu_interrupt *interrupt);

#endif
