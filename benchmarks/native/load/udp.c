/* Queries by UDP. Each of the sockets keeps `window` of them outstanding; a query is its
 * number in 8 bytes and a text that follows from the number, and the reply has to be the
 * same. A query without a reply after --forget is lost, and another takes its place; its
 * reply, should it still come, is checked and dropped.
 *
 * A number is round * places + place, so it tells where its query was kept. The queries
 * that wait stand in a list, oldest first: all have the same patience, so only the
 * oldest has to be looked at. */
#include "load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

struct query {
	struct query *older;
	struct query *newer;
	const struct client *client;
	bool waits;
	uint64_t number;
	int64_t began;
};

struct client {
	int fd;
};

static struct client *clients;
static struct query *queries;
static struct query waiting; /* the list's both ends */
static size_t places;

static struct mmsghdr *incoming;
static struct mmsghdr *outgoing;
static struct iovec *incoming_parts; /* one of each message */
static struct iovec *outgoing_parts; /* two: number and text */
static char *received;
static unsigned to_send;

static void *allocate(size_t count, size_t size)
{
	void *memory = calloc(count, size);

	if (!memory)
		fail("out of memory");
	return memory;
}

static const char *text_of(const struct load *load, uint64_t number)
{
	return message_of(load, number % places, number / places);
}

static void leave(struct query *query)
{
	query->waits = false;
	query->older->newer = query->newer;
	query->newer->older = query->older;
}

static void wait_last(struct query *query)
{
	query->waits = true;
	query->older = waiting.older;
	query->newer = &waiting;
	waiting.older->newer = query;
	waiting.older = query;
}

/* Sending: `renew` each, then `flush` once for a socket. */

static void renew(struct load *load, struct query *query)
{
	struct iovec *parts = outgoing[to_send++].msg_hdr.msg_iov;

	query->number += places;
	parts[0].iov_base = &query->number;
	parts[1].iov_base = (void *)text_of(load, query->number);
	wait_last(query);
	load->outstanding++;
}

static void flush(const struct client *client)
{
	int64_t now = monotonic();
	struct query *query = waiting.older;
	unsigned done = 0;

	for (unsigned index = 0; index < to_send; index++, query = query->older)
		query->began = now;
	while (done < to_send) {
		int sent = sendmmsg(client->fd, outgoing + done, to_send - done, 0);

		if (sent < 0)
			fail("socket %td: %s", client - clients,
			     errno == EAGAIN ? "its send buffer is too small for the window" :
					       strerror(errno));
		done += (unsigned)sent;
	}
	to_send = 0;
}

/* Receiving */

static void check(const struct load *load, const struct client *client, const struct mmsghdr *message,
		  uint64_t number)
{
	const char *text = (char *)message->msg_hdr.msg_iov->iov_base + sizeof(number);
	const struct query *query = &queries[number % places];

	if (message->msg_len != load->options.size)
		fail("socket %td: a reply of %u bytes", client - clients, message->msg_len);
	if (query->client != client || number > query->number || number < places)
		fail("socket %td: a reply to a query that was never sent", client - clients);
	if (memcmp(text, text_of(load, number), load->options.size - sizeof(number)) != 0)
		fail("socket %td: the reply is wrong", client - clients);
}

static void take(struct load *load, const struct client *client, const struct mmsghdr *message)
{
	uint64_t number;
	struct query *query;

	memcpy(&number, message->msg_hdr.msg_iov->iov_base, sizeof(number));
	check(load, client, message, number);
	query = &queries[number % places];
	if (query->number != number || !query->waits)
		return;
	leave(query);
	reply(load, query->began, load->now);
	if (!load->stopping)
		renew(load, query);
}

static void handle(struct load *load, void *who, uint32_t events)
{
	struct client *client = who;
	unsigned window = load->options.window;
	int count;

	(void)events;
	do {
		count = recvmmsg(client->fd, incoming, window, 0, NULL);
		if (count < 0 && errno == EAGAIN)
			return;
		if (count < 0)
			fail("socket %td: %s", client - clients, strerror(errno));
		for (int index = 0; index < count; index++)
			take(load, client, &incoming[index]);
		flush(client);
	} while ((unsigned)count == window);
}

static int64_t expire(struct load *load)
{
	while (waiting.newer != &waiting && load->now - waiting.newer->began >= load->options.forget) {
		struct query *query = waiting.newer;

		leave(query);
			load->outstanding--;
		load->lost += load->counting;
		if (load->stopping)
			continue;
		renew(load, query);
		flush(query->client);
	}
	return waiting.newer == &waiting ? INT64_MAX : waiting.newer->began + load->options.forget;
}

/* Opening */

static void prepare_messages(const struct options *options)
{
	size_t room = options->size + 1;

	received = allocate(options->window, room);
	incoming_parts = allocate(options->window, sizeof(*incoming_parts));
	outgoing_parts = allocate((size_t)2 * options->window, sizeof(*outgoing_parts));
	incoming = allocate(options->window, sizeof(*incoming));
	outgoing = allocate(options->window, sizeof(*outgoing));
	for (size_t index = 0; index < options->window; index++) {
		struct iovec *in = &incoming_parts[index];
		struct iovec *out = &outgoing_parts[2 * index];

		in->iov_base = received + index * room;
		in->iov_len = room;
		out[0].iov_len = sizeof(uint64_t);
		out[1].iov_len = options->size - sizeof(uint64_t);
		incoming[index].msg_hdr.msg_iov = in;
		incoming[index].msg_hdr.msg_iovlen = 1;
		outgoing[index].msg_hdr.msg_iov = out;
		outgoing[index].msg_hdr.msg_iovlen = 2;
	}
}

static void open_all(struct load *load)
{
	places = (size_t)load->options.connections * load->options.window;
	clients = allocate(load->options.connections, sizeof(*clients));
	queries = allocate(places, sizeof(*queries));
	waiting.older = waiting.newer = &waiting;
	prepare_messages(&load->options);
	for (size_t place = 0; place < places; place++) {
		queries[place].number = place;
		queries[place].client = &clients[place / load->options.window];
	}
	for (unsigned index = 0; index < load->options.connections; index++) {
		clients[index].fd = udp_connect(load, index);
		watch(load, clients[index].fd, &clients[index], EPOLLIN);
	}
}

static void start(struct load *load)
{
	for (size_t place = 0; place < places; place++) {
		renew(load, &queries[place]);
		if (to_send == load->options.window)
			flush(queries[place].client);
	}
}

const struct mode udp_mode = { "udp", open_all, start, handle, expire };
