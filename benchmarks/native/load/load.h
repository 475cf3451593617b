/* What the parts of the load generator share. */
#ifndef LOAD_H
#define LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SECOND INT64_C(1000000000)
#define MILLISECOND INT64_C(1000000)

struct options {
	uint16_t port;
	size_t size;
	unsigned connections;
	unsigned idle;
	unsigned window;
	int64_t seconds; /* nanoseconds, as every time here */
	int64_t warmup;
	uint64_t least;   /* requests of a window */
	int64_t patience; /* without any reply */
	int64_t forget;   /* a query by UDP */
	const char *tls; /* "1.2" or "1.3"; NULL: none */
	bool resume;     /* each client's handshakes but the first */
	pid_t pid; /* 0: no server is named */
};

/* Log-linear: values under SUB_BUCKETS have a bucket each, and every power of two above
 * them has SUB_BUCKETS buckets, so that a bucket is at most 1/128 of its value wide. */
#define SUB_BUCKET_BITS 7
#define SUB_BUCKETS (1u << SUB_BUCKET_BITS)
#define HIGHEST_BIT 40 /* the last power of two: 18 minutes */
#define BUCKETS ((HIGHEST_BIT - SUB_BUCKET_BITS + 2) * SUB_BUCKETS)

struct histogram {
	uint64_t total;
	uint64_t highest;
	uint64_t counts[BUCKETS];
};

struct load;

/* A kind of client. `open` returns when the first request may be sent, `start` sends the
 * first ones, `handle` gets an event for `who`, `expire` gives up what waited too long
 * and returns when it next has to be called. */
struct mode {
	const char *name;
	void (*open)(struct load *load);
	void (*start)(struct load *load);
	void (*handle)(struct load *load, void *who, uint32_t events);
	int64_t (*expire)(struct load *load);
};

struct load {
	const struct mode *mode;
	struct options options;
	const char *pattern;
	int epoll;
	int64_t now;          /* when the last epoll_wait returned */
	int64_t patience;     /* when something is next to be given up */
	int64_t answered;     /* when the last reply came */
	unsigned outstanding; /* what a reply is awaited for */
	bool stopping;        /* send no further request */
	bool counting;        /* within the window */
	uint64_t replies; /* since the start, in the window or not */
	uint64_t lost;
	struct histogram histogram;
};

extern const struct mode echo_mode;
extern const struct mode connect_mode;
extern const struct mode udp_mode;

/* load.c */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
int64_t monotonic(void);
void reply(struct load *load, int64_t began, int64_t arrived);
void turn(struct load *load);

/* message.c */
const char *new_pattern(size_t size);
const char *message_of(const struct load *load, uint64_t client, uint64_t request);

/* histogram.c */
void histogram_add(struct histogram *histogram, int64_t value);
void histogram_print(const struct histogram *histogram);

/* sockets.c */
int tcp_connect(const struct load *load, unsigned index, bool *connected);
int udp_connect(const struct load *load, unsigned index);
void watch(const struct load *load, int fd, void *who, uint32_t events);
int pending_error(int fd);

#endif
