/* Asks the kernel and liburing what they can do. interface.h says what each function does. */
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core.h"

#define QUOTED(number) #number
#define VERSION(major, minor) QUOTED(major) "." QUOTED(minor)

/* From 2.4 on the headers say their version, and native/build.py takes none before 2.3. */
#ifdef IO_URING_VERSION_MAJOR
#define LIBURING_VERSION VERSION(IO_URING_VERSION_MAJOR, IO_URING_VERSION_MINOR)
#else
#define LIBURING_VERSION "2.3"
#endif

int tu_probe_setup(uint32_t setup_flags, uint32_t *features)
{
	struct io_uring_params params = { .flags = setup_flags, .cq_entries = 4 };
	int fd = io_uring_setup(2, &params);

	if (fd < 0)
		return fd;
	close(fd);
	*features = params.features;
	return 0;
}

/* Asks a ring which operations the kernel has: 0 or -errno. */
static int probe(int fd, uint8_t *supported, uint32_t capacity)
{
	struct io_uring_probe *probe = calloc(1, sizeof(*probe) + 256 * sizeof(probe->ops[0]));
	int result = probe ? io_uring_register((unsigned)fd, IORING_REGISTER_PROBE, probe, 256) : -ENOMEM;

	for (uint32_t index = 0; result >= 0 && index < capacity && index < 256; index++)
		supported[index] = (probe->ops[index].flags & IO_URING_OP_SUPPORTED) != 0;
	free(probe);
	return result;
}

int tu_probe_operations(uint8_t *supported, uint32_t capacity)
{
	struct io_uring_params params = { 0 };
	int fd = io_uring_setup(2, &params);
	int result = fd < 0 ? fd : probe(fd, supported, capacity);

	if (fd >= 0)
		close(fd);
	return result;
}

int tu_probe_operations_of(const tu_core *core, uint8_t *supported, uint32_t capacity)
{
	return probe(core->ring.uring.ring_fd, supported, capacity);
}

int tu_try_enter(const tu_core *core)
{
	int result = io_uring_enter2((unsigned)core->ring.uring.ring_fd, 0, 0, 0, NULL, 0);

	return result == -EBADFD ? 0 : result; /* EBADFD: it is not enabled yet, so it was not refused */
}

const char *tu_liburing_built(void)
{
	return LIBURING_VERSION;
}

/* The path of the file that liburing's functions are in, with links resolved: the library's, whose name
 * ends in the version, or the core's own, if liburing was linked into that. */
int tu_liburing_loaded(char *path, size_t size)
{
	Dl_info information;
	char *real;

	if (!dladdr((void *)io_uring_queue_mmap, &information) || !information.dli_fname)
		return -ENOENT;
	real = realpath(information.dli_fname, NULL);
	if (!real)
		return -errno;
	strncpy(path, real, size - 1);
	path[size - 1] = '\0';
	free(real);
	return 0;
}

bool tu_liburing_is_inside(void)
{
	Dl_info liburing;
	Dl_info core;

	return dladdr((void *)io_uring_queue_mmap, &liburing) && dladdr((void *)tu_liburing_built, &core) &&
	       liburing.dli_fbase == core.dli_fbase;
}
