/* Latencies, counted without an allocation; and the percentiles of what was counted.
 *
 * A percentile is the upper bound of its bucket: at most 0.8% above the true one. It is
 * told only where at least BEYOND samples lie beyond it: with fewer it is chance. */
#include "load.h"

#include <inttypes.h>
#include <stdio.h>

#define BEYOND 10

static unsigned bucket_of(uint64_t value)
{
	unsigned shift;

	if (value < SUB_BUCKETS)
		return (unsigned)value;
	if (value >> (HIGHEST_BIT + 1))
		return BUCKETS - 1;
	shift = 63 - SUB_BUCKET_BITS - (unsigned)__builtin_clzll(value);
	return shift * SUB_BUCKETS + (unsigned)(value >> shift);
}

static uint64_t upper_bound(unsigned bucket)
{
	unsigned shift = bucket < SUB_BUCKETS ? 0 : bucket / SUB_BUCKETS - 1;

	return ((bucket - shift * SUB_BUCKETS + 1ull) << shift) - 1;
}

void histogram_add(struct histogram *histogram, int64_t value)
{
	uint64_t latency = value > 0 ? (uint64_t)value : 0;

	histogram->counts[bucket_of(latency)]++;
	histogram->total++;
	if (latency > histogram->highest)
		histogram->highest = latency;
}

/* `beyond` in 100,000 lie above the percentile. */
static void print_percentile(const struct histogram *histogram, const char *name, uint64_t beyond)
{
	uint64_t above = histogram->total * beyond / 100000;
	uint64_t seen = 0;
	unsigned bucket = BUCKETS;
	uint64_t value;

	if (above < BEYOND) {
		printf(", \"%s\": null", name);
		return;
	}
	while (seen <= above)
		seen += histogram->counts[--bucket];
	value = upper_bound(bucket);
	if (value > histogram->highest)
		value = histogram->highest;
	printf(", \"%s\": %.9f", name, (double)value / SECOND);
}

void histogram_print(const struct histogram *histogram)
{
	const char *separator = "";

	print_percentile(histogram, "p50", 50000);
	print_percentile(histogram, "p90", 10000);
	print_percentile(histogram, "p99", 1000);
	print_percentile(histogram, "p999", 100);
	if (histogram->total)
		printf(", \"max\": %.9f", (double)histogram->highest / SECOND);
	else
		printf(", \"max\": null");
	printf(", \"histogram\": [");
	for (unsigned bucket = 0; bucket < BUCKETS; bucket++) {
		if (!histogram->counts[bucket])
			continue;
		printf("%s[%" PRIu64 ", %" PRIu64 "]", separator, upper_bound(bucket),
		       histogram->counts[bucket]);
		separator = ", ";
	}
	printf("]");
}
