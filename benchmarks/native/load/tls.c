/* TLS 1.3 by OpenSSL, without verification: the server's certificate is made for the run. */
#include "tls.h"

#include "load.h"

#ifdef WITH_TLS

#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

static SSL_CTX *new_context(void)
{
	SSL_CTX *context = SSL_CTX_new(TLS_client_method());

	if (!context || !SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION))
		fail("no TLS 1.3: %s", ERR_reason_error_string(ERR_get_error()));
	SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
	SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE);
	SSL_CTX_set_read_ahead(context, 1);
	return context;
}

SSL *tls_open(int fd)
{
	static SSL_CTX *context;
	SSL *tls;

	if (!context)
		context = new_context();
	tls = SSL_new(context);
	if (!tls || !SSL_set_fd(tls, fd))
		fail("TLS: %s", ERR_reason_error_string(ERR_get_error()));
	SSL_set_connect_state(tls);
	return tls;
}

/* As recv and send tell it: 0 at the end, -1 and errno else. */
static int outcome(SSL *tls, int result)
{
	unsigned long error;

	if (result > 0)
		return result;
	switch (SSL_get_error(tls, result)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		errno = EAGAIN;
		return -1;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	case SSL_ERROR_SYSCALL:
		return -1;
	default:
		error = ERR_get_error();
		if (ERR_GET_REASON(error) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
			return 0;
		fail("TLS: %s", ERR_reason_error_string(error));
	}
}

bool tls_handshake(SSL *tls)
{
	int result;

	ERR_clear_error();
	errno = 0;
	result = outcome(tls, SSL_do_handshake(tls));
	if (result > 0)
		return true;
	if (result == 0 || errno != EAGAIN)
		fail("the TLS handshake failed: the server closed the connection");
	return false;
}

static int clamp(size_t size)
{
	return size < INT_MAX ? (int)size : INT_MAX;
}

ssize_t tls_send(SSL *tls, const void *data, size_t size)
{
	ERR_clear_error();
	return outcome(tls, SSL_write(tls, data, clamp(size)));
}

ssize_t tls_receive(SSL *tls, void *data, size_t size)
{
	ERR_clear_error();
	return outcome(tls, SSL_read(tls, data, clamp(size)));
}

#else

_Noreturn static void refuse(void)
{
	fail("this build has no TLS: libssl was not found (Debian: libssl-dev)");
}

struct ssl_st *tls_open(int fd)
{
	(void)fd;
	refuse();
}

bool tls_handshake(struct ssl_st *tls)
{
	(void)tls;
	refuse();
}

ssize_t tls_send(struct ssl_st *tls, const void *data, size_t size)
{
	(void)tls;
	(void)data;
	(void)size;
	refuse();
}

ssize_t tls_receive(struct ssl_st *tls, void *data, size_t size)
{
	(void)tls;
	(void)data;
	(void)size;
	refuse();
}

#endif
