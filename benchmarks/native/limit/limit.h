/* What the parts of the limit share. */
#ifndef LIMIT_H
#define LIMIT_H

#include <liburing.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a submission was for; its user_data is kind and descriptor. */
enum kind { STDIN, ACCEPT, RECEIVE, SEND, QUIET };

/* A provided buffer, and what of it is still to be sent. */
struct piece {
	struct piece *next;
	char *data;
	size_t size;
	struct pool *pool;
};

struct pool {
	struct io_uring_buf_ring *ring;
	struct piece *pieces;
	char *memory;
	unsigned count; /* a power of two */
	unsigned size;
	unsigned taken;
	unsigned short group;
};

struct service {
	const char *name;
	int type; /* of the socket */
	void (*start)(int fd);
	void (*accepted)(int fd);
	void (*received)(int fd, const struct io_uring_cqe *completion);
	void (*sent)(int fd, const struct io_uring_cqe *completion);
};

extern const struct service echo_service;
extern const struct service connections_service;
extern const struct service http_service;
extern const struct service udp_service;

/* limit.c */
_Noreturn void fail(const char *what, int error);

/* ring.c */
extern struct io_uring ring;
const char *open_ring(void);
struct io_uring_sqe *submission(void);
void identify(struct io_uring_sqe *submission, enum kind kind, int fd);

/* pool.c */
void pool_open(struct pool *pool, unsigned short group, unsigned count, unsigned size);
struct piece *pool_take(struct pool *pool, const struct io_uring_cqe *completion);
void pool_give(struct piece *piece);

#endif
