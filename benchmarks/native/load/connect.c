/* Connections that come and go: each client connects, sends a message, reads the same
 * bytes and then the end of the stream, for the server closes first, and begins again.
 * Its latency is the time from connect to that end.
 *
 * With TLS there is a handshake before the message. It is a full one, or all but a client's
 * first one, which is made before anything is measured, resume the session before: whichever
 * was asked for is what is made, or it is an error.
 *
 * SO_LINGER 0 ends the connection with a reset, which also frees the server's end: no
 * connection is left in TIME_WAIT, of which there is only so much. */
#include "load.h"
#include "tls.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define SCRATCH (64 << 10)

struct client {
	int fd;
	bool connected;
	bool secured;       /* the handshake is done, or there is none */
	struct ssl_st *tls; /* NULL: none */
	struct ssl_session_st *session;
	uint64_t requests;
	const char *message;
	size_t sent;
	size_t received;
	int64_t began;
};

static struct client *clients;
static unsigned source;
static char scratch[SCRATCH];

static size_t index_of(const struct client *client)
{
	return (size_t)(client - clients);
}

_Noreturn static void fail_at(const struct client *client, const char *what)
{
	fail("client %zu, connection %llu: %s", index_of(client), (unsigned long long)client->requests,
	     what);
}

static void transmit(const struct load *load, struct client *client)
{
	while (client->sent < load->options.size) {
		const char *data = client->message + client->sent;
		size_t left = load->options.size - client->sent;
		ssize_t sent = client->tls ? tls_send(client->tls, data, left)
					   : send(client->fd, data, left, MSG_NOSIGNAL);

		if (sent < 0 && errno == EAGAIN)
			return;
		if (sent <= 0)
			fail_at(client, sent ? strerror(errno) : "the server closed it");
		client->sent += (size_t)sent;
	}
}

static void shake_hands(const struct load *load, struct client *client)
{
	bool resume = load->options.resume && client->session;

	if (!client->tls && load->options.tls)
		client->tls = tls_open(client->fd, &load->options, resume ? client->session : NULL);
	client->secured = !client->tls || tls_handshake(client->tls);
	if (client->secured && client->tls && tls_resumed(client->tls) != resume)
		fail_at(client, "the handshake was not resumed");
}

static void begin(struct load *load, struct client *client)
{
	struct linger reset = { .l_onoff = 1, .l_linger = 0 };

	client->message = message_of(load, index_of(client), client->requests++);
	client->sent = 0;
	client->received = 0;
	client->secured = false;
	client->began = monotonic();
	client->fd = tcp_connect(load, source++, &client->connected);
	if (setsockopt(client->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)))
		fail("SO_LINGER: %s", strerror(errno));
	load->outstanding++;
	if (client->connected)
		shake_hands(load, client);
	if (client->secured)
		transmit(load, client);
	watch(load, client->fd, client, EPOLLIN | EPOLLOUT);
}

static void end(struct load *load, struct client *client, bool at_once)
{
	if (client->received != load->options.size)
		fail_at(client, "the server closed it before the reply was complete");
	reply(load, client->began, at_once ? load->now : monotonic());
	if (client->tls)
		tls_close(client->tls, &client->session);
	client->tls = NULL;
	close(client->fd);
	if (!load->stopping)
		begin(load, client);
}

static void check(const struct client *client, size_t size)
{
	if (size > client->sent - client->received)
		fail_at(client, "more came back than was sent");
	if (memcmp(scratch, client->message + client->received, size) != 0)
		fail_at(client, "the reply is wrong");
}

/* Until EAGAIN, for the end may come together with the last bytes, in one event. */
static void receive(struct load *load, struct client *client)
{
	bool before = client->received == load->options.size;

	for (;;) {
		ssize_t size = client->tls ? tls_receive(client->tls, scratch, SCRATCH)
					   : recv(client->fd, scratch, SCRATCH, 0);

		if (size < 0 && errno == EAGAIN)
			return;
		if (size < 0)
			fail_at(client, strerror(errno));
		if (size == 0) {
			end(load, client, before);
			return;
		}
		check(client, (size_t)size);
		client->received += (size_t)size;
	}
}

static void handle(struct load *load, void *who, uint32_t events)
{
	struct client *client = who;

	if (!client->connected) {
		int error = pending_error(client->fd);

		if (error)
			fail_at(client, strerror(error));
		client->connected = true;
	}
	if (!client->secured)
		shake_hands(load, client);
	if (!client->secured)
		return;
	transmit(load, client);
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		receive(load, client);
}

static void start(struct load *load)
{
	for (unsigned index = 0; index < load->options.connections; index++)
		begin(load, &clients[index]);
}

static void open_all(struct load *load)
{
	clients = calloc(load->options.connections, sizeof(*clients));
	if (!clients)
		fail("out of memory");
	if (!load->options.resume)
		return;
	load->stopping = true; /* after the sessions that are to be resumed */
	start(load);
	while (load->outstanding)
		turn(load);
}

const struct mode connect_mode = { "connect", open_all, start, handle, NULL };
