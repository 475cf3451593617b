/* The load generator: `load echo|connect|udp OPTION ...`, one thread on epoll.
 *
 * The loop is closed: every client has one request outstanding (a UDP socket has
 * --window of them) and sends the next one when the reply is complete and was found
 * right. So a slower server gets fewer requests, and latencies are those of a server
 * under just this many clients, not those at a given rate.
 *
 * When all connections are open it prints {"ready": true, "connections": n}. For each
 * line on stdin it runs a warm-up and a window and prints what it measured; at the end of
 * stdin it ends. What goes wrong is told on stderr, with status 1.
 *
 * The time is read when epoll_wait returns, which dates all replies of that batch, and
 * before each send. So a reply is dated when it was there to be read, not when its turn
 * in the batch came; one that came while the batch before was being worked off is dated
 * late by up to that batch's time. A reply that takes several reads is dated when the
 * last one was done. A request counts if the batch of its reply returned in the window:
 * from the first batch at or after the end of the warm-up to the first one at or after
 * the window's end, without the latter. A window is prolonged until --least requests
 * count. "answered" are all requests since the line came, counted or not: what the server
 * did is for these.
 *
 * A server that answers nothing for --patience has failed; as long as it answers, however
 * slowly, it is waited for. */
#include "load.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define BATCH 256

static struct epoll_event events[BATCH];
static int ready;

_Noreturn void fail(const char *format, ...)
{
	va_list arguments;

	fprintf(stderr, "load: ");
	va_start(arguments, format);
	/* clang-tidy, when it checks several files in one run, overlooks va_start. */
	vfprintf(stderr, format, arguments); /* NOLINT(clang-analyzer-valist.Uninitialized) */
	va_end(arguments);
	fprintf(stderr, "\n");
	exit(1);
}

static int64_t read_clock(clockid_t clock)
{
	struct timespec time;

	if (clock_gettime(clock, &time))
		fail("clock_gettime: %s", strerror(errno));
	return time.tv_sec * SECOND + time.tv_nsec;
}

int64_t monotonic(void)
{
	return read_clock(CLOCK_MONOTONIC);
}

static double elapsed(int64_t begin, int64_t end)
{
	return (double)(end - begin) / SECOND;
}

/* The loop */

void reply(struct load *load, int64_t began, int64_t arrived)
{
	load->outstanding--;
	load->answered = load->now;
	load->replies++;
	if (load->counting)
		histogram_add(&load->histogram, arrived - began);
}

static void dispatch(struct load *load)
{
	for (int index = 0; index < ready; index++)
		load->mode->handle(load, events[index].data.ptr, events[index].events);
	ready = 0;
	load->patience = load->mode->expire ? load->mode->expire(load) : INT64_MAX;
}

static int milliseconds(int64_t time)
{
	int64_t rounded = (time + MILLISECOND - 1) / MILLISECOND;

	return rounded < 0 ? 0 : (int)(rounded < INT_MAX ? rounded : INT_MAX);
}

static void wait_until(struct load *load, int64_t until)
{
	if (load->patience < until)
		until = load->patience;
	if (load->answered + load->options.patience < until)
		until = load->answered + load->options.patience;
	ready = epoll_wait(load->epoll, events, BATCH, milliseconds(until - monotonic()));
	if (ready < 0 && errno != EINTR)
		fail("epoll_wait: %s", strerror(errno));
	load->now = monotonic();
	if (ready <= 0 && load->outstanding && load->now - load->answered >= load->options.patience)
		fail("the server stopped answering: no reply for %g s, %u requests wait",
		     elapsed(0, load->options.patience), load->outstanding);
}

void turn(struct load *load)
{
	wait_until(load, INT64_MAX);
	dispatch(load);
}

/* Returns with the batch that came at or after `until`, which is still to be dispatched. */
static void run_until(struct load *load, int64_t until)
{
	while (load->now < until) {
		dispatch(load);
		wait_until(load, until);
	}
}

static void run_until_counted(struct load *load, uint64_t requests)
{
	while (load->histogram.total < requests) {
		/* Replies that come too late are no answers. */
		if (load->now - load->answered >= 10 * load->options.patience)
			fail("%" PRIu64 " requests were answered in time, and %" PRIu64 " were awaited",
			     load->histogram.total, requests);
		dispatch(load);
		wait_until(load, INT64_MAX);
	}
}

/* The window */

struct clocks {
	int64_t wall;
	int64_t generator;
	int64_t server;
};

static struct clocks read_clocks(const struct load *load)
{
	struct clocks clocks = { .wall = load->now, .generator = read_clock(CLOCK_PROCESS_CPUTIME_ID) };
	clockid_t clock;
	int error;

	if (!load->options.pid)
		return clocks;
	error = clock_getcpuclockid(load->options.pid, &clock);
	if (error)
		fail("the CPU clock of process %d: %s", load->options.pid, strerror(error));
	clocks.server = read_clock(clock);
	return clocks;
}

static void print(const struct load *load, const struct clocks *begin, const struct clocks *end)
{
	uint64_t requests = load->histogram.total;

	printf("{\"requests\": %" PRIu64 ", \"seconds\": %.9f, \"bytes\": %" PRIu64, requests,
	       elapsed(begin->wall, end->wall), requests * load->options.size);
	printf(", \"generator_cpu\": %.9f", elapsed(begin->generator, end->generator));
	if (load->options.pid)
		printf(", \"server_cpu\": %.9f", elapsed(begin->server, end->server));
	printf(", \"answered\": %" PRIu64 ", \"lost\": %" PRIu64, load->replies, load->lost);
	histogram_print(&load->histogram);
	printf("}\n");
	fflush(stdout);
}

static void measure(struct load *load)
{
	struct clocks begin;
	struct clocks end;

	load->now = load->answered = monotonic();
	load->replies = 0;
	load->stopping = false;
	load->mode->start(load);
	run_until(load, load->now + load->options.warmup);

	memset(&load->histogram, 0, sizeof(load->histogram));
	load->lost = 0;
	load->counting = true;
	begin = read_clocks(load);
	run_until(load, load->now + load->options.seconds);
	run_until_counted(load, load->options.least);
	end = read_clocks(load);
	load->counting = false;

	load->stopping = true;
	dispatch(load);
	while (load->outstanding)
		turn(load);
	print(load, &begin, &end);
}

/* The command line */

static double number(const char *name, const char *text, double least, double most)
{
	char *end;
	double value;

	errno = 0;
	value = strtod(text, &end);
	if (end == text || *end || errno || !(value >= least && value <= most))
		fail("--%s %s: a number from %g to %g is needed", name, text, least, most);
	return value;
}

static const struct mode *find_mode(const char *name)
{
	static const struct mode *const modes[] = { &echo_mode, &connect_mode, &udp_mode };

	for (size_t index = 0; name && index < sizeof(modes) / sizeof(modes[0]); index++)
		if (!strcmp(modes[index]->name, name))
			return modes[index];
	fail("usage: load echo|connect|udp --port P --size BYTES --connections N --seconds S --warmup W\n"
	     "  [--least REQUESTS] [--patience S] [--pid SERVER_PID]  echo: [--idle M] [--tls 1.2|1.3]\n"
	     "  connect: [--tls 1.2|1.3 [--resume]]  udp: [--window K] [--forget S]");
}

static void set_option(struct options *options, int option, const char *name, const char *text)
{
	switch (option) {
	case 'p':
		options->port = (uint16_t)number(name, text, 1, UINT16_MAX);
		break;
	case 's':
		options->size = (size_t)number(name, text, 1, 1 << 28);
		break;
	case 'c':
		options->connections = (unsigned)number(name, text, 1, 1000000);
		break;
	case 'i':
		options->idle = (unsigned)number(name, text, 0, 1000000);
		break;
	case 'k':
		options->window = (unsigned)number(name, text, 1, 1024);
		break;
	case 'd':
		options->seconds = (int64_t)(number(name, text, 0.001, 86400) * SECOND);
		break;
	case 'l':
		options->least = (uint64_t)number(name, text, 0, 1e9);
		break;
	case 'w':
		options->warmup = (int64_t)(number(name, text, 0, 86400) * SECOND);
		break;
	case 'a':
		options->patience = (int64_t)(number(name, text, 0.001, 86400) * SECOND);
		break;
	case 'f':
		options->forget = (int64_t)(number(name, text, 0.001, 86400) * SECOND);
		break;
	case 't':
		if (strcmp(text, "1.2") != 0 && strcmp(text, "1.3") != 0)
			fail("--tls %s: 1.2 or 1.3 is needed", text);
		options->tls = text;
		break;
	case 'r':
		options->resume = true;
		break;
	case 'P':
		options->pid = (pid_t)number(name, text, 1, INT_MAX);
		break;
	default:
		find_mode(NULL);
	}
}

static void check_options(const struct load *load)
{
	const struct options *options = &load->options;

	if (!options->port || !options->size || !options->connections || !options->seconds)
		fail("--port, --size, --connections and --seconds are needed");
	if (load->mode != &echo_mode && options->idle)
		fail("--idle is for echo");
	if (load->mode == &udp_mode && options->tls)
		fail("--tls is for echo and connect");
	if (options->resume && (load->mode != &connect_mode || !options->tls))
		fail("--resume is for connect with --tls");
	if (load->mode != &udp_mode)
		return;
	if (options->size < sizeof(uint64_t) || options->size > 65507)
		fail("--size %zu: a datagram has 8 to 65507 bytes", options->size);
}

static void parse(struct load *load, int count, char **arguments)
{
	static const struct option names[] = {
		{ "port", required_argument, NULL, 'p' },    { "size", required_argument, NULL, 's' },
		{ "connections", required_argument, NULL, 'c' }, { "idle", required_argument, NULL, 'i' },
		{ "window", required_argument, NULL, 'k' },  { "seconds", required_argument, NULL, 'd' },
		{ "warmup", required_argument, NULL, 'w' },  { "tls", required_argument, NULL, 't' },
		{ "resume", no_argument, NULL, 'r' },
		{ "pid", required_argument, NULL, 'P' },     { "least", required_argument, NULL, 'l' },
		{ "patience", required_argument, NULL, 'a' }, { "forget", required_argument, NULL, 'f' },
		{ NULL, 0, NULL, 0 },
	};
	int which = 0;
	int option;

	load->options.window = 8;
	load->options.patience = 10 * SECOND;
	load->options.forget = 250 * MILLISECOND;
	while ((option = getopt_long(count, arguments, "", names, &which)) != -1)
		set_option(&load->options, option, option == '?' ? "" : names[which].name, optarg);
	load->mode = find_mode(optind == count - 1 ? arguments[optind] : NULL);
	check_options(load);
}

/* As many open files as are allowed. */
static void allow_descriptors(const struct options *options)
{
	rlim_t needed = (rlim_t)options->connections + options->idle + 8;
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		fail("getrlimit: %s", strerror(errno));
	if (limit.rlim_max < needed)
		fail("%ju open files are needed, and the hard limit is %ju", (uintmax_t)needed,
		     (uintmax_t)limit.rlim_max);
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit))
		fail("setrlimit: %s", strerror(errno));
}

int main(int count, char **arguments)
{
	static struct load load;
	char *line = NULL;
	size_t size = 0;

	signal(SIGPIPE, SIG_IGN);
	parse(&load, count, arguments);
	allow_descriptors(&load.options);
	load.pattern = new_pattern(load.options.size);
	load.epoll = epoll_create1(EPOLL_CLOEXEC);
	if (load.epoll < 0)
		fail("epoll_create1: %s", strerror(errno));
	load.now = load.answered = monotonic();
	load.patience = INT64_MAX;
	load.mode->open(&load);
	printf("{\"ready\": true, \"connections\": %u}\n", load.options.connections + load.options.idle);
	fflush(stdout);
	while (getline(&line, &size, stdin) > 0)
		measure(&load);
	free(line);
	return 0;
}
