/* All threads that may meet in a core, for ThreadSanitizer to watch: the owner, the worker thread of a guest
 * run, and others that signal the interrupt.
 *
 *   threads SECONDS
 *
 * Each signaller has a reason and a word of its own. It writes the word, signals, and writes the word again
 * only when the owner has read it. Nothing but the interrupt puts the write before the read. So the
 * sanitizer reports an interrupt that has lost its order; a wake-up that is lost is a wait whose time is
 * over, and ends the program too. So does a write to a descriptor that was closed and given out again. */
#include "core.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define SIGNALLERS 3
#define ROUNDS 500                /* of a core's life */
#define PATIENCE_NS 30000000000LL /* a wait that takes so long was not woken */
#define NEWEST \
	(IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG)

struct signaller {
	pthread_t thread;
	uint32_t reason;
	uint64_t word; /* what the interrupt protects */
	_Atomic uint64_t read;
};

/* What the owner asks its worker thread, handed over as Trio does: under a lock. */
struct worker {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool asked;
	bool answered;
	int answer;
};

static tu_core core;
static _Atomic bool over;
static struct signaller signallers[SIGNALLERS] = {
	{ .reason = TU_POSTED },
	{ .reason = 1 << 29 }, /* which the core does not know */
	{ .reason = 1 << 30 },
};
static struct worker worker = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

static void expect(bool well, const char *what)
{
	if (well)
		return;
	fprintf(stderr, "%s\n", what);
	exit(1);
}

/* Up to 63 microseconds, or nothing: so that threads meet in other places each time. */
static void nap(uint64_t *state)
{
	struct timespec time = { 0 };

	*state = *state * 6364136223846793005 + 1442695040888963407;
	time.tv_nsec = (long)(*state >> 58) * 1000;
	if (*state >> 40 & 1)
		nanosleep(&time, NULL);
}

static void *signal_with_word(void *argument)
{
	struct signaller *signaller = argument;
	uint64_t chance = signaller->reason;

	for (uint64_t number = 1; !over; number++) {
		signaller->word = number;
		tu_interrupt_signal(&core.interrupt, signaller->reason);
		while (signaller->read != number && !over)
			sched_yield();
		nap(&chance);
	}
	return NULL;
}

/* Without a word: its signals are as many as they can be. */
static void *force(void *argument)
{
	uint64_t chance = 1;

	while (!over) {
		tu_signal_forced(&core);
		nap(&chance);
	}
	return argument;
}

/* Owner: reads the words of those who have signalled. */
static void acknowledge(int outcome)
{
	expect(outcome >= 0, "a tick has failed");
	for (int index = 0; index < SIGNALLERS; index++)
		if ((uint32_t)outcome & signallers[index].reason)
			signallers[index].read = signallers[index].word;
}

static void *wait_for_owner(void *argument)
{
	pthread_mutex_lock(&worker.lock);
	for (;;) {
		while (!worker.asked && !over)
			pthread_cond_wait(&worker.changed, &worker.lock);
		if (!worker.asked)
			break;
		worker.asked = false;
		pthread_mutex_unlock(&worker.lock);
		int answer = tu_guest_wait(&core, PATIENCE_NS);
		pthread_mutex_lock(&worker.lock);
		worker.answer = answer;
		worker.answered = true;
		pthread_cond_signal(&worker.changed);
	}
	pthread_mutex_unlock(&worker.lock);
	return argument;
}

static void ask_worker(void)
{
	pthread_mutex_lock(&worker.lock);
	worker.asked = true;
	pthread_cond_signal(&worker.changed);
	pthread_mutex_unlock(&worker.lock);
}

static void take_answer(void)
{
	pthread_mutex_lock(&worker.lock);
	while (!worker.answered)
		pthread_cond_wait(&worker.changed, &worker.lock);
	worker.answered = false;
	pthread_mutex_unlock(&worker.lock);
	expect(worker.answer, "the worker thread was not woken");
}

/* What the host of a guest run does while the worker thread waits: cancels a wait, cancels a read, or has
 * something arrive. `file` is an empty pipe. */
static void be_the_host(const int file[2], int poll, int read_slot, uint64_t *chance)
{
	nap(chance);
	switch (*chance >> 50 & 3) {
	case 0:
		tu_poll_cancel(&core, poll, 0);
		tu_signal_forced(&core); /* as Trio does for the task that was waiting */
		break;
	case 1:
		tu_cancel(&core, read_slot);
		break;
	case 2:
		expect(write(file[1], "x", 1) == 1, "a pipe has no room");
		break;
	default:
		tu_signal_forced(&core);
	}
}

/* Processes all events of a tick, and stops what is still pending. */
static void settle(int outcome)
{
	acknowledge(outcome);
	while (core.operations.in_flight) {
		tu_cancel_all(&core);
		acknowledge(tu_reap(&core));
	}
}

static void guest_tick(const int file[2], uint64_t *chance)
{
	static char memory;
	int poll = tu_poll_add(&core, file[0], TU_READ);
	int read_slot = tu_submit(&core, IORING_OP_READ, file[0], &memory, 1, (uint64_t)-1, 0, 0);
	int outcome = tu_poll(&core);

	expect(poll > 0 && read_slot > 0, "nothing can be submitted");
	if (!outcome) {
		ask_worker();
		be_the_host(file, poll, read_slot, chance);
		take_answer();
	}
	settle(tu_reap(&core));
}

static void tick(uint64_t *chance)
{
	int outcome;

	nap(chance);
	outcome = *chance >> 50 & 3 ? tu_wait(&core, PATIENCE_NS) : tu_poll(&core);
	expect(outcome || !(*chance >> 50 & 3), "the owner was not woken");
	acknowledge(outcome);
}

/* Closes the interrupt in the midst of signals, and has somebody else get the number of its descriptor. */
static void close_while_signalled(uint64_t *chance)
{
	int other;
	uint64_t count;

	for (int turn = 0; turn < 20; turn++) {
		acknowledge((int)tu_interrupt_consume(&core.interrupt));
		tu_interrupt_sleep(&core.interrupt);
		nap(chance);
	}
	tu_close_interrupt(&core);
	other = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	acknowledge((int)tu_interrupt_consume(&core.interrupt));
	atomic_store(&core.interrupt.sleepers, 1);
	nap(chance);
	over = true;
	for (int index = 0; index < SIGNALLERS; index++)
		pthread_join(signallers[index].thread, NULL);
	expect(read(other, &count, sizeof(count)) < 0, "a closed descriptor was written to");
	close(other);
}

/* A core's life. Without `signals` nobody but the owner and the kernel wakes the worker of a guest run. */
static void live(uint32_t flags, bool guest, bool signals, uint64_t *chance)
{
	pthread_t forcing;
	int file[2];

	over = false;
	expect(tu_open(&core, 8, 16, flags | IORING_SETUP_CQSIZE) == 0, "no ring can be opened");
	expect(pipe(file) == 0 && tu_start(&core, guest) == 0, "no ring can be started");
	for (int index = 0; index < SIGNALLERS; index++)
		signallers[index].read = 0;
	for (int index = 0; index < SIGNALLERS && signals; index++)
		pthread_create(&signallers[index].thread, NULL, signal_with_word, &signallers[index]);
	if (signals)
		pthread_create(&forcing, NULL, force, NULL);
	if (guest)
		pthread_create(&worker.thread, NULL, wait_for_owner, NULL);
	for (int round = 0; round < ROUNDS; round++) {
		if (guest)
			guest_tick(file, chance);
		else
			tick(chance);
	}
	tu_cancel_all(&core);
	if (signals) {
		close_while_signalled(chance);
		pthread_join(forcing, NULL);
	}
	if (guest) {
		pthread_mutex_lock(&worker.lock);
		over = true;
		pthread_cond_signal(&worker.changed);
		pthread_mutex_unlock(&worker.lock);
		pthread_join(worker.thread, NULL);
	}
	tu_destroy(&core);
	close(file[0]);
	close(file[1]);
}

int main(int count, char **arguments)
{
	int64_t end = tu_now() + (count > 1 ? atoi(arguments[1]) : 1) * 1000000000LL;
	uint32_t flags = tu_probe_setup(NEWEST, &(uint32_t){ 0 }) ? 0 : NEWEST;
	uint64_t chance = (uint64_t)end;
	int lives = 0;

	do {
		live(flags, false, true, &chance);
		live(flags, true, true, &chance);
		live(flags, true, false, &chance);
		lives += 3;
	} while (tu_now() < end);
	printf("%d\n", lives);
}
