/* Many datagrams by one system call: recvmmsg(2) and sendmmsg(2), for sockets/datagrams.py.
 *
 * These functions do enter the kernel, and let go of the GIL for that; nothing else here does. They
 * never wait: the caller's socket is non-blocking. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <arpa/inet.h>

#include "tasks.h"

#ifndef UDP_GRO
#define UDP_GRO 104
#endif

/* How many datagrams one sendmmsg takes. */
#define CHUNK 64

union address {
	struct sockaddr any;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
	struct sockaddr_un un;
};

/* Addresses */

static PyObject *unix_address(const struct sockaddr_un *un, socklen_t length)
{
	size_t size = length - offsetof(struct sockaddr_un, sun_path);

	if (length <= offsetof(struct sockaddr_un, sun_path))
		Py_RETURN_NONE;
	if (un->sun_path[0] == 0)
		return PyBytes_FromStringAndSize(un->sun_path, (Py_ssize_t)size);
	return PyUnicode_DecodeFSDefaultAndSize(un->sun_path, (Py_ssize_t)strnlen(un->sun_path, size));
}

/* An address as the standard library's sockets tell it, a new reference; NULL with an exception. */
static PyObject *told(const union address *address, socklen_t length)
{
	char text[INET6_ADDRSTRLEN];

	if (length == 0)
		Py_RETURN_NONE;
	if (address->any.sa_family == AF_UNIX)
		return unix_address(&address->un, length);
	if (address->any.sa_family == AF_INET) {
		inet_ntop(AF_INET, &address->in.sin_addr, text, sizeof(text));
		return Py_BuildValue("si", text, ntohs(address->in.sin_port));
	}
	inet_ntop(AF_INET6, &address->in6.sin6_addr, text, sizeof(text));
	return Py_BuildValue("siII", text, ntohs(address->in6.sin6_port), ntohl(address->in6.sin6_flowinfo),
			     address->in6.sin6_scope_id);
}

/* Refuses an address; or tells the exception that is set, if it is none about arguments: it may be a
 * KeyboardInterrupt, from a method of the object. */
static int refuse_address(PyObject *object)
{
	if (PyErr_Occurred()) {
		if (!PyErr_ExceptionMatches(PyExc_TypeError) && !PyErr_ExceptionMatches(PyExc_ValueError) &&
		    !PyErr_ExceptionMatches(PyExc_OverflowError))
			return -1;
		PyErr_Clear();
	}
	PyErr_Format(PyExc_ValueError, "%R is no address of this socket's family that needs no look-up", object);
	return -1;
}

/* The bytes of a path or of an abstract name, a new reference; NULL with an exception. */
static PyObject *unix_name(PyObject *object)
{
	PyObject *path = PyObject_CheckBuffer(object) ? PyBytes_FromObject(object) : PyOS_FSPath(object);

	if (path && PyUnicode_Check(path))
		Py_SETREF(path, PyUnicode_EncodeFSDefault(path));
	return path;
}

static int read_unix(PyObject *object, union address *address, socklen_t *length)
{
	PyObject *name = unix_name(object);
	size_t size = name ? (size_t)PyBytes_GET_SIZE(name) : 0;
	bool is_path = size && PyBytes_AS_STRING(name)[0];

	/* The zero behind a path has to fit, too; and no other one may stand in it. */
	if (!name || size + is_path > sizeof(address->un.sun_path) ||
	    (is_path && strlen(PyBytes_AS_STRING(name)) != size)) {
		Py_XDECREF(name);
		return refuse_address(object);
	}
	memcpy(address->un.sun_path, PyBytes_AS_STRING(name), size);
	*length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size + is_path);
	Py_DECREF(name);
	return 0;
}

/* Reads an address of this family, as the standard library takes it, but for names; 0, or -1 with an
 * exception. */
static int read_address(int family, PyObject *object, union address *address, socklen_t *length)
{
	const char *host;
	int port;
	unsigned flow = 0;
	unsigned scope = 0;

	memset(address, 0, sizeof(*address));
	address->any.sa_family = (sa_family_t)family;
	if (family == AF_UNIX)
		return read_unix(object, address, length);
	if (!PyTuple_Check(object))
		return refuse_address(object);
	if (family == AF_INET) {
		if (!PyArg_ParseTuple(object, "si", &host, &port) || port < 0 || port > 65535 ||
		    inet_pton(AF_INET, host, &address->in.sin_addr) != 1)
			return refuse_address(object);
		address->in.sin_port = htons((uint16_t)port);
		*length = sizeof(address->in);
		return 0;
	}
	if (!PyArg_ParseTuple(object, "si|II", &host, &port, &flow, &scope) || port < 0 || port > 65535 ||
	    flow > 0xfffff || inet_pton(AF_INET6, host, &address->in6.sin6_addr) != 1)
		return refuse_address(object);
	address->in6.sin6_port = htons((uint16_t)port);
	address->in6.sin6_flowinfo = htonl(flow);
	address->in6.sin6_scope_id = scope;
	*length = sizeof(address->in6);
	return 0;
}

/* Receiving */

struct room {
	struct mmsghdr header;
	struct iovec part;
	union address address;
};

/* The ancillary data of a message, a new list; NULL with an exception. `segment` becomes the size of the
 * datagrams that the kernel has put together, which the list leaves out. */
static PyObject *ancillary_of(struct msghdr *message, Py_ssize_t *segment)
{
	PyObject *all = PyList_New(0);

	for (struct cmsghdr *each = CMSG_FIRSTHDR(message); all && each; each = CMSG_NXTHDR(message, each)) {
		Py_ssize_t length = (Py_ssize_t)(each->cmsg_len - CMSG_LEN(0));
		PyObject *item;

		if (each->cmsg_len < CMSG_LEN(0))
			break;
		if (each->cmsg_level == IPPROTO_UDP && each->cmsg_type == UDP_GRO && length >= (Py_ssize_t)sizeof(int)) {
			int size;

			memcpy(&size, CMSG_DATA(each), sizeof(size));
			*segment = size;
			continue;
		}
		item = Py_BuildValue("iiy#", each->cmsg_level, each->cmsg_type, CMSG_DATA(each), length);
		if (!item || PyList_Append(all, item) < 0)
			Py_CLEAR(all);
		Py_XDECREF(item);
	}
	return all;
}

/* Adds one datagram to a list; 0, or -1 with an exception. */
static int add(PyObject *list, PyTypeObject *type, const char *data, Py_ssize_t size, PyObject *address,
	       PyObject *ancillary, int flags)
{
	PyObject *made = type->tp_alloc(type, 4);
	int result;

	if (!made)
		return -1;
	PyTuple_SET_ITEM(made, 0, PyBytes_FromStringAndSize(data, size));
	PyTuple_SET_ITEM(made, 1, Py_NewRef(address));
	PyTuple_SET_ITEM(made, 2, Py_NewRef(ancillary));
	PyTuple_SET_ITEM(made, 3, PyLong_FromLong(flags));
	result = PyTuple_GET_ITEM(made, 0) && PyTuple_GET_ITEM(made, 3) ? PyList_Append(list, made) : -1;
	Py_DECREF(made);
	return result;
}

/* Adds what one message brought, which may be several datagrams that the kernel has put together. */
static int add_message(PyObject *list, PyTypeObject *type, struct room *room, PyObject *address)
{
	Py_ssize_t size = room->header.msg_len;
	Py_ssize_t segment = 0;
	PyObject *ancillary = ancillary_of(&room->header.msg_hdr, &segment);
	int result = ancillary ? 0 : -1;

	if (segment <= 0 || segment > size)
		segment = size;
	for (Py_ssize_t at = 0; result == 0 && (at < size || at == 0); at += segment ? segment : 1)
		result = add(list, type, (const char *)room->part.iov_base + at, size - at < segment ? size - at : segment,
			     address, ancillary, room->header.msg_hdr.msg_flags & ~MSG_CMSG_CLOEXEC);
	Py_XDECREF(ancillary);
	return result;
}

/* A list of what these messages brought. Datagrams in a row from one sender share their address. */
static PyObject *list_of(PyTypeObject *type, struct room *rooms, const struct mmsghdr *headers, int count)
{
	PyObject *list = PyList_New(0);
	PyObject *address = NULL;

	for (int index = 0; list && index < count; index++) {
		struct room *room = &rooms[index];
		socklen_t length = headers[index].msg_hdr.msg_namelen;
		bool same = address && length == headers[index - 1].msg_hdr.msg_namelen &&
			    memcmp(&room->address, &rooms[index - 1].address, length) == 0;

		room->header = headers[index];
		if (!same)
			Py_XSETREF(address, told(&room->address, length));
		if (!address || add_message(list, type, room, address) < 0)
			Py_CLEAR(list);
	}
	Py_XDECREF(address);
	return list;
}

/* Bytes for one message: its ancillary data, which have to be aligned, and behind them its own. */
static size_t stride(size_t size, size_t control)
{
	return control + (size + 7) / 8 * 8;
}

static PyObject *receive_into(int fd, PyTypeObject *type, char *memory, unsigned count, size_t size, size_t control)
{
	struct room *rooms = PyMem_Calloc(count, sizeof(*rooms));
	struct mmsghdr *headers = PyMem_Calloc(count, sizeof(*headers));
	PyObject *list = NULL;
	int got;

	if (!rooms || !headers) {
		PyErr_NoMemory();
		goto done;
	}
	for (unsigned index = 0; index < count; index++) {
		struct msghdr *header = &headers[index].msg_hdr;

		rooms[index].part = (struct iovec){ memory + index * stride(size, control) + control, size };
		header->msg_name = &rooms[index].address;
		header->msg_namelen = sizeof(rooms[index].address);
		header->msg_iov = &rooms[index].part;
		header->msg_iovlen = 1;
		header->msg_control = control ? memory + index * stride(size, control) : NULL;
		header->msg_controllen = control;
	}
	do {
		Py_BEGIN_ALLOW_THREADS
		got = recvmmsg(fd, headers, count, MSG_DONTWAIT | MSG_CMSG_CLOEXEC, NULL);
		Py_END_ALLOW_THREADS
	} while (got < 0 && errno == EINTR);
	if (got >= 0)
		list = list_of(type, rooms, headers, got);
	else
		PyErr_SetFromErrno(PyExc_OSError);
done:
	PyMem_Free(headers);
	PyMem_Free(rooms);
	return list;
}

PyObject *tu_receive_many(PyObject *Py_UNUSED(module), PyObject *arguments)
{
	int fd;
	PyTypeObject *type;
	Py_buffer memory;
	unsigned count;
	Py_ssize_t size;
	Py_ssize_t control;
	PyObject *list = NULL;

	if (!PyArg_ParseTuple(arguments, "iO!w*Inn:receive_many", &fd, &PyType_Type, &type, &memory, &count, &size,
			      &control))
		return NULL;
	if (!PyType_IsSubtype(type, &PyTuple_Type) || size < 0 || size > 65535 || control < 0 || control > 1 << 20 ||
	    control % 8 || count > 4096 || stride((size_t)size, (size_t)control) * count > (size_t)memory.len)
		PyErr_SetString(PyExc_ValueError, "receive_many() needs memory for all datagrams");
	else
		list = receive_into(fd, type, memory.buf, count, (size_t)size, (size_t)control);
	PyBuffer_Release(&memory);
	return list;
}

/* Sending */

struct chunk {
	struct mmsghdr headers[CHUNK];
	struct iovec parts[CHUNK];
	union address addresses[CHUNK];
	Py_buffer data[CHUNK];
	void *controls[CHUNK];
	unsigned count;
};

/* Reads ancillary data, (level, type, data) each, into memory of its own; 0, or -1 with an exception. */
static int read_ancillary(PyObject *items, struct msghdr *header, void **control)
{
	PyObject *all;
	size_t room = 0;
	struct cmsghdr *each;

	/* An iterator would have none left when the message is read again, since there was no room for it. */
	if (!PySequence_Check(items)) {
		PyErr_Format(PyExc_TypeError, "ancillary data have to be a sequence, not %R", Py_TYPE(items));
		return -1;
	}
	all = PySequence_Tuple(items); /* a list could be changed by methods of what is in it */
	if (!all)
		return -1;
	for (Py_ssize_t pass = 0; pass < 2; pass++) {
		if (pass == 1) {
			*control = room ? PyMem_Calloc(1, room) : NULL;
			if (room && !*control) {
				PyErr_NoMemory();
				goto failed;
			}
			header->msg_control = *control;
			header->msg_controllen = room;
		}
		each = pass ? CMSG_FIRSTHDR(header) : NULL;
		for (Py_ssize_t index = 0; index < PyTuple_GET_SIZE(all); index++) {
			int level;
			int type;
			Py_buffer data;

			if (!PyTuple_Check(PyTuple_GET_ITEM(all, index))) {
				PyErr_SetString(PyExc_TypeError, "each of the ancillary data has to be (level, type, data)");
				goto failed;
			}
			if (!PyArg_ParseTuple(PyTuple_GET_ITEM(all, index), "iiy*", &level, &type, &data))
				goto failed;
			if (!pass) {
				room += CMSG_SPACE((size_t)data.len);
			} else if (each && (char *)each + CMSG_SPACE((size_t)data.len) <= (char *)*control + room) {
				each->cmsg_level = level;
				each->cmsg_type = type;
				each->cmsg_len = CMSG_LEN((size_t)data.len);
				memcpy(CMSG_DATA(each), data.buf, (size_t)data.len);
				each = CMSG_NXTHDR(header, each);
			}
			PyBuffer_Release(&data);
		}
	}
	Py_DECREF(all);
	return 0;
failed:
	Py_DECREF(all);
	return -1;
}

/* Adds (data, address) or (data, address, ancillary data) to a chunk; 0, or -1 with an exception. */
static int prepare(struct chunk *chunk, int family, PyObject *message)
{
	unsigned index = chunk->count;
	struct msghdr *header = &chunk->headers[index].msg_hdr;
	PyObject *data;
	PyObject *address = Py_None;
	PyObject *ancillary = NULL;

	if (!PyTuple_Check(message)) {
		PyErr_Format(PyExc_TypeError, "a datagram to be sent has to be a tuple, not %R", Py_TYPE(message));
		return -1;
	}
	if (!PyArg_ParseTuple(message, "O|OO:send", &data, &address, &ancillary))
		return -1;
	*header = (struct msghdr){ 0 };
	if (address != Py_None) {
		if (read_address(family, address, &chunk->addresses[index], &header->msg_namelen) < 0)
			return -1;
		header->msg_name = &chunk->addresses[index];
	}
	chunk->controls[index] = NULL;
	if (ancillary && read_ancillary(ancillary, header, &chunk->controls[index]) < 0)
		goto failed;
	if (PyObject_GetBuffer(data, &chunk->data[index], PyBUF_SIMPLE) < 0)
		goto failed;
	chunk->parts[index] = (struct iovec){ chunk->data[index].buf, (size_t)chunk->data[index].len };
	header->msg_iov = &chunk->parts[index];
	header->msg_iovlen = 1;
	chunk->count++;
	return 0;
failed:
	PyMem_Free(chunk->controls[index]);
	return -1;
}

static void release(struct chunk *chunk)
{
	for (unsigned index = 0; index < chunk->count; index++) {
		PyBuffer_Release(&chunk->data[index]);
		PyMem_Free(chunk->controls[index]);
	}
	chunk->count = 0;
}

/* Sends datagrams from `start` on, up to CHUNK: how many were sent, or -1 with an exception. */
static int send_chunk(struct chunk *chunk, int fd, int family, PyObject *messages, Py_ssize_t start)
{
	Py_ssize_t end = PyTuple_GET_SIZE(messages);
	int sent = -1;

	chunk->count = 0;
	for (Py_ssize_t at = start; at < end && chunk->count < CHUNK; at++)
		if (prepare(chunk, family, PyTuple_GET_ITEM(messages, at)) < 0)
			break;
	if (chunk->count && PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_Exception))
		PyErr_Clear(); /* those before it are sent; then it is the first, and is told */
	if (chunk->count && !PyErr_Occurred()) { /* a KeyboardInterrupt would not come again */
		do {
			Py_BEGIN_ALLOW_THREADS
			sent = sendmmsg(fd, chunk->headers, chunk->count, MSG_DONTWAIT);
			Py_END_ALLOW_THREADS
		} while (sent < 0 && errno == EINTR);
		if (sent < 0)
			PyErr_SetFromErrno(PyExc_OSError);
	}
	release(chunk);
	return sent;
}

/* What `send_many` returns, (count, error), by the exception that is set; NULL if that is to be raised. */
static PyObject *answer_of(Py_ssize_t count)
{
	PyObject *type = NULL;
	PyObject *error = NULL;
	PyObject *traceback = NULL;

	if (PyErr_Occurred() && count == 0)
		return NULL;
	if (PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_BlockingIOError))
		PyErr_Clear();
	PyErr_Fetch(&type, &error, &traceback);
	if (type)
		PyErr_NormalizeException(&type, &error, &traceback);
	Py_XDECREF(type);
	Py_XDECREF(traceback);
	return Py_BuildValue("nN", count, error ? error : Py_NewRef(Py_None));
}

PyObject *tu_send_many(PyObject *Py_UNUSED(module), PyObject *arguments)
{
	int fd;
	int family;
	PyObject *messages;
	Py_ssize_t start;
	Py_ssize_t at;
	struct chunk *chunk;

	if (!PyArg_ParseTuple(arguments, "iiO!n:send_many", &fd, &family, &PyTuple_Type, &messages, &start))
		return NULL;
	if (start < 0 || (family != AF_INET && family != AF_INET6 && family != AF_UNIX)) {
		PyErr_SetString(PyExc_ValueError, "send_many() is for families of IP and Unix");
		return NULL;
	}
	chunk = PyMem_Malloc(sizeof(*chunk));
	if (!chunk)
		return PyErr_NoMemory();
	for (at = start; at < PyTuple_GET_SIZE(messages);) {
		int sent = send_chunk(chunk, fd, family, messages, at);

		if (sent < 0)
			break;
		at += sent;
	}
	PyMem_Free(chunk);
	return answer_of(at - start);
}
