/* Calls about files that do not go through the ring. interface.h says what each does. */
#include "core.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>
#include <sys/vfs.h>

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
