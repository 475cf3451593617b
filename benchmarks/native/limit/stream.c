/* Connections: echo, one echo and close, and HTTP.
 *
 * A connection has one receive armed, multishot unless one message is all it serves, and
 * at most one send in flight; what was received meanwhile waits in its queue, so the order
 * is kept. It is closed when it neither receives nor sends, so nothing that still comes
 * for a descriptor is another connection's.
 *
 * Buffers are small, so that thousands of short messages cost little memory, and come
 * from one pool. A connection that fills one sends long messages: its receive is
 * cancelled and armed again on the pool of large ones. Of these there are few, so that
 * what is sent is still in the cache from its receipt.
 *
 * A receive that finds no buffer ends with ENOBUFS. Its connection waits in a line until
 * a buffer is free that is not promised to one before it; then it receives once, without
 * waiting: it might have no data after all, and would keep the promise for ever. Without
 * promises all would receive when one buffer is free, and all but one in vain. Armed
 * receives wait for data before they look for a buffer. */
#include "limit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define RESPONSES 64
#define SEND_FLAGS (MSG_WAITALL | MSG_NOSIGNAL)

static const char response[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
			       "Content-Length: 12\r\n\r\nHello world\n";
#define RESPONSE (sizeof(response) - 1)

struct connection {
	struct piece *first; /* what is to be sent */
	struct piece *last;
	int next_in_line;
	bool receiving; /* armed, or in line */
	bool sending;
	bool promised;         /* left the line, for a buffer */
	bool large;            /* receives into the large buffers */
	bool outgrown;         /* will, when it is armed again */
	unsigned char matched; /* HTTP: how much of the empty line was seen */
	size_t answered;       /* HTTP: bytes sent, and bytes still to be sent */
	size_t to_answer;
};

struct line {
	int first;
	int last;
	unsigned promised;
};

static struct connection *connections; /* by descriptor */
static struct pool pools[2];           /* by connection.large */
static struct line lines[2] = { { -1, -1, 0 }, { -1, -1, 0 } };
static bool multishot;
static char responses[RESPONSES * RESPONSE];

/* Receiving */

static void select_buffer(struct io_uring_sqe *sqe, int fd)
{
	sqe->flags |= IOSQE_BUFFER_SELECT;
	sqe->buf_group = pools[connections[fd].large].group;
	identify(sqe, RECEIVE, fd);
}

static void arm(int fd)
{
	struct connection *connection = &connections[fd];
	struct io_uring_sqe *sqe = submission();

	connection->receiving = true;
	connection->large |= connection->outgrown;
	connection->outgrown = false;
	if (multishot)
		io_uring_prep_recv_multishot(sqe, fd, NULL, 0, 0);
	else
		io_uring_prep_recv(sqe, fd, NULL, 0, 0);
	sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
	select_buffer(sqe, fd);
}

static void receive_at_once(int fd)
{
	struct io_uring_sqe *sqe = submission();

	io_uring_prep_recv(sqe, fd, NULL, 0, MSG_DONTWAIT);
	select_buffer(sqe, fd);
}

static void cancel_receive(int fd)
{
	struct io_uring_sqe *sqe = submission();

	io_uring_prep_cancel64(sqe, (uint64_t)fd << 8 | RECEIVE, 0);
	sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
	identify(sqe, QUIET, fd);
}

/* As many as there are free buffers leave the line. */
static void admit(bool large)
{
	const struct pool *pool = &pools[large];
	struct line *line = &lines[large];

	while (line->first >= 0 && pool->taken + line->promised < pool->count) {
		int fd = line->first;

		line->first = connections[fd].next_in_line;
		line->promised++;
		connections[fd].promised = true;
		receive_at_once(fd);
	}
}

static void line_up(int fd)
{
	struct line *line = &lines[connections[fd].large];

	connections[fd].next_in_line = -1;
	if (line->first < 0)
		line->first = fd;
	else
		connections[line->last].next_in_line = fd;
	line->last = fd;
}

static void give(struct piece *piece)
{
	bool large = piece->pool == &pools[true];

	pool_give(piece);
	admit(large);
}

/* A buffer was taken, or is not needed. */
static void redeem(struct connection *connection)
{
	if (!connection->promised)
		return;
	connection->promised = false;
	lines[connection->large].promised--;
}

static struct piece *take(int fd, const struct io_uring_cqe *completion)
{
	struct connection *connection = &connections[fd];
	struct pool *pool = &pools[connection->large];
	struct piece *piece = pool_take(pool, completion);

	if (multishot && piece->size == pool->size && !connection->large && !connection->outgrown) {
		connection->outgrown = true;
		if (completion->flags & IORING_CQE_F_MORE)
			cancel_receive(fd);
	}
	return piece;
}

static void close_if_done(int fd)
{
	const struct connection *connection = &connections[fd];
	struct io_uring_sqe *sqe;

	if (connection->receiving || connection->sending)
		return;
	sqe = submission();
	io_uring_prep_close(sqe, fd);
	sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
	identify(sqe, QUIET, fd);
}

/* After what a receive gave was taken. */
static void go_on(int fd, const struct io_uring_cqe *completion)
{
	struct connection *connection = &connections[fd];
	bool large = connection->large;

	redeem(connection);
	if (completion->flags & IORING_CQE_F_MORE) {
		admit(large);
		return;
	}
	if (completion->res == -ENOBUFS && !connection->outgrown) {
		line_up(fd);
	} else if (completion->res == -ENOBUFS || completion->res == -EAGAIN || connection->outgrown ||
		   (multishot && completion->res > 0)) {
		arm(fd);
	} else {
		connection->receiving = false;
		close_if_done(fd);
	}
	admit(large);
}

/* The peer is gone: what is still armed ends. */
static void hang_up(int fd)
{
	shutdown(fd, SHUT_RDWR);
	connections[fd].sending = false;
	close_if_done(fd);
}

/* Echo */

static void send_first(int fd)
{
	struct connection *connection = &connections[fd];
	struct io_uring_sqe *sqe = submission();

	io_uring_prep_send(sqe, fd, connection->first->data, connection->first->size, SEND_FLAGS);
	identify(sqe, SEND, fd);
	connection->sending = true;
}

static void drop_first(struct connection *connection)
{
	struct piece *piece = connection->first;

	connection->first = piece->next;
	give(piece);
}

static void echo_received(int fd, const struct io_uring_cqe *completion)
{
	struct connection *connection = &connections[fd];

	if (completion->res > 0) {
		struct piece *piece = take(fd, completion);

		if (connection->first)
			connection->last->next = piece;
		else
			connection->first = piece;
		connection->last = piece;
		if (!connection->sending)
			send_first(fd);
	}
	go_on(fd, completion);
}

static void echo_sent(int fd, const struct io_uring_cqe *completion)
{
	struct connection *connection = &connections[fd];

	if (completion->res < 0) {
		while (connection->first)
			drop_first(connection);
		hang_up(fd);
		return;
	}
	connection->first->data += completion->res;
	connection->first->size -= (size_t)completion->res;
	if (!connection->first->size)
		drop_first(connection);
	if (connection->first) {
		send_first(fd);
	} else {
		connection->sending = false;
		close_if_done(fd);
	}
}

/* HTTP: a request is whatever ends with an empty line. */

static size_t count_requests(struct connection *connection, const struct piece *piece)
{
	static const char end[] = "\r\n\r\n";
	size_t count = 0;

	for (size_t index = 0; index < piece->size; index++) {
		if (piece->data[index] == end[connection->matched])
			connection->matched++;
		else
			connection->matched = piece->data[index] == '\r';
		if (connection->matched == 4) {
			connection->matched = 0;
			count++;
		}
	}
	return count;
}

static void send_responses(int fd)
{
	struct connection *connection = &connections[fd];
	struct io_uring_sqe *sqe = submission();
	size_t offset = connection->answered % RESPONSE;
	size_t size = connection->to_answer;

	if (size > sizeof(responses) - offset)
		size = sizeof(responses) - offset;
	io_uring_prep_send(sqe, fd, responses + offset, size, SEND_FLAGS);
	identify(sqe, SEND, fd);
	connection->sending = true;
}

static void http_received(int fd, const struct io_uring_cqe *completion)
{
	struct connection *connection = &connections[fd];

	if (completion->res > 0) {
		struct piece *piece = take(fd, completion);

		connection->to_answer += count_requests(connection, piece) * RESPONSE;
		give(piece);
		if (connection->to_answer && !connection->sending)
			send_responses(fd);
	}
	go_on(fd, completion);
}

static void http_sent(int fd, const struct io_uring_cqe *completion)
{
	struct connection *connection = &connections[fd];

	if (completion->res < 0) {
		hang_up(fd);
		return;
	}
	connection->answered += (size_t)completion->res;
	connection->to_answer -= (size_t)completion->res;
	if (connection->to_answer) {
		send_responses(fd);
	} else {
		connection->sending = false;
		close_if_done(fd);
	}
}

/* Start */

static void start(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		fail("getrlimit", -errno);
	connections = calloc(limit.rlim_cur, sizeof(*connections));
	if (!connections)
		fail("calloc", -ENOMEM);
	pool_open(&pools[false], 0, 8192, 2048);
	pool_open(&pools[true], 1, 8, 256 << 10);
}

static void start_multishot(int fd)
{
	(void)fd;
	multishot = true;
	start();
}

static void start_single(int fd)
{
	(void)fd;
	start();
}

static void start_http(int fd)
{
	start_multishot(fd);
	for (size_t index = 0; index < RESPONSES; index++)
		memcpy(responses + index * RESPONSE, response, RESPONSE);
}

static void accepted(int fd)
{
	connections[fd] = (struct connection){ .large = !multishot };
	arm(fd);
}

const struct service echo_service = {
	"echo", SOCK_STREAM, start_multishot, accepted, echo_received, echo_sent,
};
const struct service connections_service = {
	"connections", SOCK_STREAM, start_single, accepted, echo_received, echo_sent,
};
const struct service http_service = {
	"http", SOCK_STREAM, start_http, accepted, http_received, http_sent,
};
