/* Sockets to the server on 127.0.0.1.
 *
 * One source address has about 28,000 ports for one server port, so the sources go round
 * 127.0.0.2 to 127.0.0.251. IP_BIND_ADDRESS_NO_PORT leaves the choice of the port to
 * connect, which knows the destination and may use a port for several of them. */
#include "load.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define SOURCES 250

static struct sockaddr_in loopback(uint32_t host, uint16_t port)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK - 1 + host),
	};

	return address;
}

static int new_socket(int type, unsigned index)
{
	struct sockaddr_in source = loopback(2 + index % SOURCES, 0);
	int fd = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int one = 1;

	if (fd < 0)
		fail("socket: %s", strerror(errno));
	if (setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one)))
		fail("IP_BIND_ADDRESS_NO_PORT: %s", strerror(errno));
	if (bind(fd, (struct sockaddr *)&source, sizeof(source)))
		fail("bind to 127.0.0.%u: %s", 2 + index % SOURCES, strerror(errno));
	return fd;
}

static int connect_to(int fd, uint16_t port)
{
	struct sockaddr_in server = loopback(1, port);

	return connect(fd, (struct sockaddr *)&server, sizeof(server));
}

int tcp_connect(const struct load *load, unsigned index, bool *connected)
{
	int fd = new_socket(SOCK_STREAM, index);
	int one = 1;

	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)))
		fail("TCP_NODELAY: %s", strerror(errno));
	/* As sides/servers/start.py, which says why. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", strlen("cubic"));
	*connected = !connect_to(fd, load->options.port);
	if (!*connected && errno != EINPROGRESS)
		fail("connect: %s", strerror(errno));
	return fd;
}

int udp_connect(const struct load *load, unsigned index)
{
	int fd = new_socket(SOCK_DGRAM, index);

	if (connect_to(fd, load->options.port))
		fail("connect: %s", strerror(errno));
	return fd;
}

void watch(const struct load *load, int fd, void *who, uint32_t events)
{
	struct epoll_event event = { .events = events | EPOLLET, .data.ptr = who };

	if (epoll_ctl(load->epoll, EPOLL_CTL_ADD, fd, &event))
		fail("epoll_ctl: %s", strerror(errno));
}

int pending_error(int fd)
{
	int error = 0;
	socklen_t size = sizeof(error);

	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) ? errno : error;
}
