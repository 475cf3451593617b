/* TLS by OpenSSL, without verification: the server's certificate is made for the run. */
#include "tls.h"

#include "load.h"

#ifdef WITH_TLS

#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <string.h>

static SSL_CTX *new_context(const struct options *options)
{
	SSL_CTX *context = SSL_CTX_new(TLS_client_method());
	int version = strcmp(options->tls, "1.2") ? TLS1_3_VERSION : TLS1_2_VERSION;

	if (!context || !SSL_CTX_set_min_proto_version(context, version) ||
	    !SSL_CTX_set_max_proto_version(context, version))
		fail("no TLS %s: %s", options->tls, ERR_reason_error_string(ERR_get_error()));
	/* An end without a word, as HTTP's servers may leave, is an end, and no reason not to resume. */
	SSL_CTX_set_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF);
	SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
	SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE);
	SSL_CTX_set_read_ahead(context, 1);
	return context;
}

SSL *tls_open(int fd, const struct options *options, SSL_SESSION *session)
{
	static SSL_CTX *context;
	SSL *tls;

	if (!context)
		context = new_context(options);
	tls = SSL_new(context);
	if (!tls || !SSL_set_fd(tls, fd) || (session && !SSL_set_session(tls, session)))
		fail("TLS: %s", ERR_reason_error_string(ERR_get_error()));
	SSL_set_connect_state(tls);
	return tls;
}

/* As recv and send tell it: 0 at the end, -1 and errno else. */
static int outcome(SSL *tls, int result)
{
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
		fail("TLS: %s", ERR_reason_error_string(ERR_get_error()));
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

bool tls_resumed(SSL *tls)
{
	return SSL_session_reused(tls);
}

void tls_close(SSL *tls, SSL_SESSION **session)
{
	/* What TLS 1.3 may resume came after the handshake. Without an end of its own, a
	 * connection's session is none to be resumed. */
	ERR_clear_error();
	SSL_shutdown(tls);
	SSL_SESSION_free(*session);
	*session = SSL_get1_session(tls);
	SSL_free(tls);
}

#else

_Noreturn static void refuse(void)
{
	fail("this build has no TLS: libssl was not found (Debian: libssl-dev)");
}

struct ssl_st *tls_open(int fd, const struct options *options, struct ssl_session_st *session)
{
	(void)fd;
	(void)options;
	(void)session;
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

bool tls_resumed(struct ssl_st *tls)
{
	(void)tls;
	refuse();
}

void tls_close(struct ssl_st *tls, struct ssl_session_st **session)
{
	(void)tls;
	(void)session;
	refuse();
}

#endif
