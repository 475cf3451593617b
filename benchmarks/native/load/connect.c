/* Connections that come and go: each client connects, sends a message, reads the same
 * bytes and then the end of the stream, for the server closes first, and begins again.
 * Its latency is the time from connect to that end.
 *
 * SO_LINGER 0 ends the connection with a reset, which also frees the server's end: no
 * connection is left in TIME_WAIT, of which there is only so much. */
#include "load.h"

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
		ssize_t sent = send(client->fd, client->message + client->sent,
				    load->options.size - client->sent, MSG_NOSIGNAL);

		if (sent < 0 && errno == EAGAIN)
			return;
		if (sent < 0)
			fail_at(client, strerror(errno));
		client->sent += (size_t)sent;
	}
}

static void begin(struct load *load, struct client *client)
{
	struct linger reset = { .l_onoff = 1, .l_linger = 0 };

	client->message = message_of(load, index_of(client), client->requests++);
	client->sent = 0;
	client->received = 0;
	client->began = monotonic();
	client->fd = tcp_connect(load, source++, &client->connected);
	if (setsockopt(client->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)))
		fail("SO_LINGER: %s", strerror(errno));
	load->outstanding++;
	if (client->connected)
		transmit(load, client);
	watch(load, client->fd, client, EPOLLIN | EPOLLOUT);
}

static void end(struct load *load, struct client *client, bool at_once)
{
	if (client->received != load->options.size)
		fail_at(client, "the server closed it before the reply was complete");
	reply(load, client->began, at_once ? load->now : monotonic());
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
		ssize_t size = recv(client->fd, scratch, SCRATCH, 0);

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
	transmit(load, client);
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		receive(load, client);
}

static void open_all(struct load *load)
{
	clients = calloc(load->options.connections, sizeof(*clients));
	if (!clients)
		fail("out of memory");
}

static void start(struct load *load)
{
	for (unsigned index = 0; index < load->options.connections; index++)
		begin(load, &clients[index]);
}

const struct mode connect_mode = { "connect", open_all, start, handle, NULL };
