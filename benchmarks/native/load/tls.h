/* A TLS client on a non-blocking socket. Results are those of send and recv. */
#ifndef TLS_H
#define TLS_H

#include <stdbool.h>
#include <sys/types.h>

struct options;
struct ssl_st;
struct ssl_session_st;

/* Of the version of the options. A session, where there is one, is resumed. */
struct ssl_st *tls_open(int fd, const struct options *options, struct ssl_session_st *session);
bool tls_handshake(struct ssl_st *tls); /* false: to be called again at the next event */
ssize_t tls_send(struct ssl_st *tls, const void *data, size_t size);
ssize_t tls_receive(struct ssl_st *tls, void *data, size_t size);
bool tls_resumed(struct ssl_st *tls);

/* Ends the connection, and frees what it has; the socket stays. The session is one that
 * the next connection may resume, in place of the one that is given. */
void tls_close(struct ssl_st *tls, struct ssl_session_st **session);

#endif
