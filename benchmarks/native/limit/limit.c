/* The limit: `limit echo|connections|udp|http`, the fastest server in C on io_uring that
 * is still simple; what a Python server could at most come near to. One thread; all that
 * it waits for and does, but for closing a broken connection, goes through the ring, and
 * one system call both submits and waits.
 *
 * echo          sends back what comes
 * connections   sends back what the first receive gave, and closes
 * udp           sends each datagram back
 * http          answers each empty line with a fixed response; the connection stays
 *
 * It prints {"ready": true, "port": ..., "seen": ...} and, for each line on stdin,
 * {"seen": ...} again; at the end of stdin it ends. */
#include "limit.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static const struct service *service;
static const char *seen;
static int server;
static char input[256];

_Noreturn void fail(const char *what, int error)
{
	fprintf(stderr, "limit: %s: %s\n", what, strerror(-error));
	exit(1);
}

static void accept_all(void)
{
	struct io_uring_sqe *sqe = submission();

	io_uring_prep_multishot_accept(sqe, server, NULL, NULL, SOCK_CLOEXEC);
	identify(sqe, ACCEPT, server);
}

static void accepted(const struct io_uring_cqe *completion)
{
	if (completion->res >= 0)
		service->accepted(completion->res);
	else if (completion->res != -ECONNABORTED && completion->res != -EINTR)
		fail("accept, multishot, which needs Linux 5.19", completion->res);
	if (!(completion->flags & IORING_CQE_F_MORE))
		accept_all();
}

static void read_input(void)
{
	struct io_uring_sqe *sqe = submission();

	io_uring_prep_read(sqe, STDIN_FILENO, input, sizeof(input), (uint64_t)-1);
	identify(sqe, STDIN, STDIN_FILENO);
}

static void answer_lines(const struct io_uring_cqe *completion)
{
	if (completion->res == 0)
		exit(0);
	if (completion->res < 0 && completion->res != -EINTR)
		fail("stdin", completion->res);
	for (int index = 0; index < completion->res; index++)
		if (input[index] == '\n')
			printf("{\"seen\": \"%s\"}\n", seen);
	fflush(stdout);
	read_input();
}

static void handle(const struct io_uring_cqe *completion)
{
	uint64_t identity = io_uring_cqe_get_data64(completion);
	int fd = (int)(identity >> 8);

	switch ((enum kind)(identity & 0xff)) {
	case STDIN:
		answer_lines(completion);
		break;
	case ACCEPT:
		accepted(completion);
		break;
	case RECEIVE:
		service->received(fd, completion);
		break;
	case SEND:
		service->sent(fd, completion);
		break;
	case QUIET:
		break;
	}
}

static void serve(void)
{
	for (;;) {
		struct io_uring_cqe *completion;
		unsigned head;
		unsigned count = 0;
		int error = io_uring_submit_and_wait(&ring, 1);

		if (error < 0 && error != -EINTR && error != -EBUSY && error != -EAGAIN)
			fail("io_uring_enter", error);
		io_uring_for_each_cqe(&ring, head, completion)
		{
			handle(completion);
			count++;
		}
		io_uring_cq_advance(&ring, count);
	}
}

/* Accepted sockets inherit TCP_NODELAY and TCP_CONGESTION, which sides/servers/start.py tells of. */
static uint16_t open_server(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(address);
	int one = 1;

	server = socket(AF_INET, service->type | SOCK_CLOEXEC, 0);
	if (server < 0 || bind(server, (struct sockaddr *)&address, size) ||
	    getsockname(server, (struct sockaddr *)&address, &size))
		fail("bind", -errno);
	if (service->type == SOCK_STREAM)
		(void)setsockopt(server, IPPROTO_TCP, TCP_CONGESTION, "cubic", strlen("cubic"));
	if (service->type == SOCK_STREAM &&
	    (setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) || listen(server, SOMAXCONN)))
		fail("listen", -errno);
	return ntohs(address.sin_port);
}

static void allow_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		fail("getrlimit", -errno);
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit))
		fail("setrlimit", -errno);
}

static const struct service *find_service(const char *name)
{
	static const struct service *const services[] = {
		&echo_service,
		&connections_service,
		&udp_service,
		&http_service,
	};

	for (size_t index = 0; index < sizeof(services) / sizeof(services[0]); index++)
		if (!strcmp(services[index]->name, name))
			return services[index];
	return NULL;
}

int main(int count, char **arguments)
{
	uint16_t port;

	service = count == 2 ? find_service(arguments[1]) : NULL;
	if (!service) {
		fprintf(stderr, "usage: limit echo|connections|udp|http\n");
		return 1;
	}
	signal(SIGPIPE, SIG_IGN);
	allow_descriptors();
	seen = open_ring();
	port = open_server();
	service->start(server);
	if (service->accepted)
		accept_all();
	read_input();
	printf("{\"ready\": true, \"port\": %u, \"seen\": \"%s\"}\n", port, seen);
	fflush(stdout);
	serve();
}
