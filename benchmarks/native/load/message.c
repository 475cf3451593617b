/* What the messages say: a stretch of one random text. Each request of a client begins a
 * byte later than the one before, each client STRIDE bytes after its neighbour. So a byte
 * that is wrong, lost or in the wrong place is seen, and so is a reply to another request
 * or client; and no message has to be made or kept. */
#include "load.h"

#include <stdlib.h>

#define STARTS 65521 /* a prime, so that all of them are used */
#define STRIDE 10007

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

const char *new_pattern(size_t size)
{
	uint64_t state = 0x9e3779b97f4a7c15;
	char *pattern = malloc(size + STARTS);

	if (!pattern)
		fail("out of memory");
	for (size_t index = 0; index < size + STARTS; index++)
		pattern[index] = (char)(next_random(&state) >> 32);
	return pattern;
}

const char *message_of(const struct load *load, uint64_t client, uint64_t request)
{
	return load->pattern + (client * STRIDE + request) % STARTS;
}
