/* A TLS client on a non-blocking socket. Results are those of send and recv. */
#ifndef TLS_H
#define TLS_H

#include <stdbool.h>
#include <sys/types.h>

struct ssl_st;

struct ssl_st *tls_open(int fd);
bool tls_handshake(struct ssl_st *tls); /* false: to be called again at the next event */
ssize_t tls_send(struct ssl_st *tls, const void *data, size_t size);
ssize_t tls_receive(struct ssl_st *tls, void *data, size_t size);

#endif
