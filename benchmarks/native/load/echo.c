/* Connections that stay: each sends a message, waits for the same bytes to come back, and
 * sends the next one. Idle ones are opened first, and say nothing afterwards.
 *
 * A connection is open for its client before the server has accepted it. So each, the
 * idle ones too, exchanges one short message, the probe, before it counts as open; and
 * no more than OPENING are being opened at a time, which every server's backlog holds
 * (asyncio's is 100): no SYN is lost.
 *
 *   state        left when                          for
 *   CONNECTING   connect has succeeded              HANDSHAKING or PROBING
 *   HANDSHAKING  the TLS handshake is done          PROBING
 *   PROBING      the probe is back                  OPEN
 *   OPEN         never: what closes it is an error
 *
 * Events are edge-triggered: one is reported for new data, and one when a full send
 * buffer has room again; a connection is never changed in the epoll. Sending goes on
 * until all is sent or EAGAIN, receiving until the reply is complete or a recv gives less
 * than it could, so neither waits for the other. */
#include "load.h"
#include "tls.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define OPENING 64
#define PROBE 64
#define SCRATCH (128 << 10)

enum state { CONNECTING, HANDSHAKING, PROBING, OPEN };

struct connection {
	int fd;
	enum state state;
	struct ssl_st *tls;
	uint64_t requests;
	const char *message;
	size_t size;
	size_t sent;
	size_t received;
	int64_t began;
};

static struct connection *connections;
static char scratch[SCRATCH];

static size_t index_of(const struct connection *connection)
{
	return (size_t)(connection - connections);
}

_Noreturn static void fail_closed(const struct connection *connection, int error)
{
	if (error)
		fail("connection %zu: %s", index_of(connection), strerror(error));
	fail("connection %zu: the server closed it after %zu of %zu bytes", index_of(connection),
	     connection->received, connection->size);
}

/* A request */

static void transmit(struct connection *connection)
{
	while (connection->sent < connection->size) {
		const char *data = connection->message + connection->sent;
		size_t left = connection->size - connection->sent;
		ssize_t sent = connection->tls ? tls_send(connection->tls, data, left)
					       : send(connection->fd, data, left, MSG_NOSIGNAL);

		if (sent < 0 && errno == EAGAIN)
			return;
		if (sent <= 0)
			fail_closed(connection, sent ? errno : 0);
		connection->sent += (size_t)sent;
	}
}

static void request(struct load *load, struct connection *connection, size_t size)
{
	connection->message = message_of(load, index_of(connection), connection->requests++);
	connection->size = size;
	connection->sent = 0;
	connection->received = 0;
	connection->began = monotonic();
	load->outstanding++;
	transmit(connection);
}

/* A reply */

static void check(const struct connection *connection, size_t size)
{
	const char *expected = connection->message + connection->received;

	if (size > connection->sent - connection->received)
		fail("connection %zu: more came back than was sent", index_of(connection));
	if (memcmp(scratch, expected, size) == 0)
		return;
	for (size_t index = 0;; index++)
		if (scratch[index] != expected[index])
			fail("connection %zu: byte %zu of the reply is wrong", index_of(connection),
			     connection->received + index);
}

static void complete(struct load *load, struct connection *connection, bool at_once)
{
	reply(load, connection->began, at_once ? load->now : monotonic());
	if (connection->state == PROBING)
		connection->state = OPEN;
	else if (!load->stopping)
		request(load, connection, load->options.size);
}

static void receive(struct load *load, struct connection *connection)
{
	for (;;) {
		bool first = !connection->received;
		ssize_t size = connection->tls ? tls_receive(connection->tls, scratch, SCRATCH)
					       : recv(connection->fd, scratch, SCRATCH, 0);

		if (size < 0 && errno == EAGAIN)
			return;
		if (size <= 0)
			fail_closed(connection, size ? errno : 0);
		check(connection, (size_t)size);
		connection->received += (size_t)size;
		if (connection->received == connection->size) {
			complete(load, connection, first);
			return;
		}
		if (!connection->tls && size < SCRATCH)
			return;
	}
}

/* Opening */

static void probe(struct load *load, struct connection *connection)
{
	size_t size = load->options.size < PROBE ? load->options.size : PROBE;

	connection->state = PROBING;
	load->outstanding--;
	request(load, connection, size);
}

static void shake_hands(struct load *load, struct connection *connection)
{
	if (tls_handshake(connection->tls))
		probe(load, connection);
}

static void established(struct load *load, struct connection *connection)
{
	int error = pending_error(connection->fd);

	if (error)
		fail("connect: %s", strerror(error));
	if (!load->options.tls) {
		probe(load, connection);
		return;
	}
	connection->tls = tls_open(connection->fd, &load->options, NULL);
	connection->state = HANDSHAKING;
	shake_hands(load, connection);
}

static void open_connection(struct load *load, struct connection *connection)
{
	bool connected;

	connection->fd = tcp_connect(load, (unsigned)index_of(connection), &connected);
	connection->state = CONNECTING;
	load->outstanding++;
	if (connected)
		established(load, connection);
	watch(load, connection->fd, connection, EPOLLIN | EPOLLOUT | EPOLLRDHUP);
}

static void open_all(struct load *load)
{
	size_t total = (size_t)load->options.idle + load->options.connections;
	size_t begun = 0;

	connections = calloc(total, sizeof(*connections));
	if (!connections)
		fail("out of memory");
	while (begun < total || load->outstanding) {
		while (begun < total && load->outstanding < OPENING)
			open_connection(load, &connections[begun++]);
		turn(load);
	}
}

/* Measuring */

static void start(struct load *load)
{
	struct connection *active = connections + load->options.idle;

	for (unsigned index = 0; index < load->options.connections; index++)
		request(load, &active[index], load->options.size);
}

static void handle(struct load *load, void *who, uint32_t events)
{
	struct connection *connection = who;

	if (connection->state == CONNECTING) {
		established(load, connection);
	} else if (connection->state == HANDSHAKING) {
		shake_hands(load, connection);
	} else {
		transmit(connection);
		if (events & EPOLLIN)
			receive(load, connection);
	}
	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		fail_closed(connection, pending_error(connection->fd));
}

const struct mode echo_mode = { "echo", open_all, start, handle, NULL };
