/* Calls about files that do not go through the ring. interface.h says what each does. */
#include "core.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <sys/vfs.h>

/* Whether the kernel may tell of the end of a file where it has only not cached what comes: Linux 5.9 and
 * 5.10, as preadv2(2) says under "Bugs". */
static bool tells_false_ends(void)
{
	static int found = -1; /* -1: not looked at yet, by whatever thread */
	int known = __atomic_load_n(&found, __ATOMIC_RELAXED);
	struct utsname name;
	int major = 0;
	int minor = 0;

	if (known >= 0)
		return known;
	if (!uname(&name) && sscanf(name.release, "%d.%d", &major, &minor) == 2)
		known = major < 5 || (major == 5 && minor < 11);
	else
		known = 1;
	__atomic_store_n(&found, known, __ATOMIC_RELAXED);
	return known;
}

/* Whether the end of a file, of which the kernel has told, is none: the file goes on there. */
static bool goes_on_at(int fd, int64_t offset)
{
	struct stat status;

	return tells_false_ends() && !fstat(fd, &status) && offset < status.st_size;
}

int tu_read_at_once(int fd, char *memory, size_t length, int64_t offset)
{
	ssize_t got = 0;
	size_t done = 0;

	if (length > TU_MOST_BYTES)
		length = TU_MOST_BYTES;
	do {
		struct iovec target = { memory + done, length - done };

		got = preadv2(fd, &target, 1, offset + (int64_t)done, RWF_NOWAIT);
		if (got > 0)
			done += (size_t)got;
	} while (got > 0 && done < length);
	if (!got && done < length && goes_on_at(fd, offset + (int64_t)done)) {
		got = -1;
		errno = EAGAIN;
	}
	if (got >= 0)
		return (int)done;
	return done ? (int)(-TU_PART - (int64_t)done) : -errno;
}

int tu_read_measured_at_once(int fd, char *memory, size_t length, int64_t offset)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || flags & O_DIRECT || !tu_is_measured_file(fd))
		return -EXDEV;
	return tu_read_at_once(fd, memory, length, offset);
}

int64_t tu_file_system(int fd)
{
	struct statfs found;

	return fstatfs(fd, &found) < 0 ? -errno : (int64_t)(uint32_t)found.f_type;
}

int tu_add_workers(tu_core *core, int more)
{
	unsigned limits[2] = { 0, 0 }; /* of bounded and of unbounded work; 0: leave it as it is */
	int result;

	if (!core->ring.open)
		return -EBADF;
	result = core->ring.enabled ? 0 : tu_ring_flush(&core->ring);
	if (result < 0)
		return result;
	result = tu_ring_register(&core->ring, IORING_REGISTER_IOWQ_MAX_WORKERS, limits, 2);
	if (result < 0)
		return result;
	limits[0] += (unsigned)more;
	limits[1] = 0;
	result = tu_ring_register(&core->ring, IORING_REGISTER_IOWQ_MAX_WORKERS, limits, 2);
	return result < 0 ? result : 0;
}
