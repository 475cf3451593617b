/* Lets a test see and set the generations of a run's slots, which begin anew after 2^31 - 1 operations. */
#include "core.h"

#define LAST 0x7fffffffU

/* Every free slot has `left` operations before it, and the last generation of all. */
void near_the_last(tu_core *core, uint32_t left)
{
	for (uint32_t slot = 1; slot < core->operations.capacity; slot++)
		if (core->operations.slots[slot].state == TU_FREE)
			core->operations.slots[slot].generation = LAST - left;
}

uint32_t generation_of(const tu_core *core, uint32_t slot)
{
	return core->operations.slots[slot].generation;
}
