/* The patience of native/ring.c with a kernel that refuses, by a clock that this program sets. */
#include <stdint.h>
#include <stdio.h>
#include <time.h>

static int64_t now = 1;

static int set_clock(clockid_t clock, struct timespec *time)
{
	(void)clock;
	time->tv_sec = now / 1000000000;
	time->tv_nsec = now % 1000000000;
	return 0;
}

#define clock_gettime set_clock
/* Its static functions are what is tried. */
#include "ring.c" /* NOLINT(bugprone-suspicious-include) */

#define MILLISECOND 1000000LL
#define HOUR (3600 * (1000 * MILLISECOND))

/* How many refusals with `between` from one to the next a ring survives; 1000000: any number. */
static int survived(int64_t between)
{
	struct tu_ring ring = { .open = true };
	int count = 0;

	while (count < 1000000) {
		note_result(&ring, -EBUSY);
		if (ring.broken)
			break;
		count++;
		now += between;
	}
	return count;
}

/* The same, with an enter that goes well after each `good` refusals. */
static int survived_with_pauses(int64_t between, int good)
{
	struct tu_ring ring = { .open = true };
	int count = 0;

	while (count < 1000000 && !ring.broken) {
		note_result(&ring, ++count % good ? -ENOMEM : 0);
		now += between;
	}
	return count;
}

int main(void)
{
	printf("%d %d %d %d\n", survived(MILLISECOND), survived(100 * MILLISECOND), survived(HOUR),
	       survived_with_pauses(MILLISECOND, 2000));
}
