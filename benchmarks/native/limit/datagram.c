/* UDP echo: one multishot recvmsg, which puts the sender's address before each datagram
 * into a provided buffer; the answer is sent from there. */
#include "limit.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>

#define BUFFERS 4096
#define BUFFER 4096

struct answer {
	struct msghdr message;
	struct iovec part;
};

static struct pool pool;
static struct answer *answers; /* one for each buffer */
static struct msghdr template = { .msg_namelen = sizeof(struct sockaddr_in) };
static int server;
static bool starved; /* the receive waits for a buffer */

static void arm(void)
{
	struct io_uring_sqe *sqe = submission();

	io_uring_prep_recvmsg_multishot(sqe, server, &template, 0);
	sqe->flags |= IOSQE_BUFFER_SELECT;
	sqe->buf_group = pool.group;
	identify(sqe, RECEIVE, server);
	starved = false;
}

static void start(int fd)
{
	server = fd;
	pool_open(&pool, 0, BUFFERS, BUFFER);
	answers = calloc(BUFFERS, sizeof(*answers));
	if (!answers)
		fail("calloc", -ENOMEM);
	arm();
}

static void answer_to(const struct io_uring_cqe *completion)
{
	struct piece *piece = pool_take(&pool, completion);
	size_t index = (size_t)(piece - pool.pieces);
	struct answer *answer = &answers[index];
	struct io_uring_recvmsg_out *datagram =
		io_uring_recvmsg_validate(piece->data, completion->res, &template);
	struct io_uring_sqe *sqe;

	if (!datagram || datagram->flags & MSG_TRUNC)
		fail("the datagram is larger than a buffer", -EMSGSIZE);
	answer->part.iov_base = io_uring_recvmsg_payload(datagram, &template);
	answer->part.iov_len = datagram->payloadlen;
	answer->message.msg_name = io_uring_recvmsg_name(datagram);
	answer->message.msg_namelen = datagram->namelen;
	answer->message.msg_iov = &answer->part;
	answer->message.msg_iovlen = 1;
	sqe = submission();
	io_uring_prep_sendmsg(sqe, server, &answer->message, 0);
	identify(sqe, SEND, (int)index);
}

static void received(int fd, const struct io_uring_cqe *completion)
{
	(void)fd;
	if (completion->res >= 0)
		answer_to(completion);
	else if (completion->res != -ENOBUFS && completion->res != -ECONNREFUSED)
		fail("recvmsg, multishot, which needs Linux 6.0", completion->res);
	if (completion->flags & IORING_CQE_F_MORE)
		return;
	starved = completion->res == -ENOBUFS && pool.taken == pool.count;
	if (!starved)
		arm();
}

static void sent(int index, const struct io_uring_cqe *completion)
{
	if (completion->res < 0)
		fail("sendmsg", completion->res);
	pool_give(&pool.pieces[index]);
	if (starved)
		arm();
}

const struct service udp_service = { "udp", SOCK_DGRAM, start, NULL, received, sent };
