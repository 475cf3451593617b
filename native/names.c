/* Names of files that are looked up by the calling thread, which has nothing to wait for.
 *
 * - RESOLVE_CACHED has the kernel walk a name only where its cache of names has all of it: else
 *   EAGAIN, and the ring gets the name.
 * - That says nothing of what the name leads to: to open a file of a server may wait for it, and so
 *   may a device. So the name is first opened with O_PATH, which reaches no file system and no
 *   driver, and only a regular file on a file system that is known to be measured goes on.
 * - That look takes as long as the open. So a name without symbolic links is spared it, in a directory
 *   whose file of the last time went on. Such a name may lead to a device, or to what was mounted since
 *   then; and any may lead elsewhere from one call to the next. So all is opened with O_NONBLOCK and
 *   looked at then. The ring, which opens what is cached within the call that submits it, would have
 *   waited there as well.
 * - A status is asked for with AT_STATX_DONT_SYNC, which asks no server.
 * - A kernel before 5.12, or a filter, refuses: then nobody tries again. */
#include "core.h"
#include "kernel.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define MEASURED 64

/* Those that were remembered last, each by its key. */
static _Atomic(uint64_t) measured[MEASURED];
static _Atomic(unsigned) remembered;
static atomic_bool refused;

static int status_of(int fd, struct tu_statx *found)
{
	const unsigned flags = AT_EMPTY_PATH | TU_STATX_DONT_SYNC;
	const unsigned mask = TU_STATX_BASIC_STATS | TU_STATX_MNT_ID_UNIQUE;

	return syscall(SYS_statx, fd, "", flags, mask, found) < 0 ? -errno : 0;
}

/* What stays the same file system's: its device's number, but for made up ones, which are given
 * to others later, or the number of the mount. 0: nothing does, before Linux 6.8. */
static uint64_t key_of(const struct tu_statx *found)
{
	if (found->dev_major)
		return makedev(found->dev_major, found->dev_minor);
	return found->mask & TU_STATX_MNT_ID_UNIQUE ? found->mount | 1ULL << 63 : 0;
}

static bool is_measured(const struct tu_statx *found)
{
	uint64_t key = key_of(found);

	for (int index = 0; key && index < MEASURED; index++) {
		if (atomic_load_explicit(&measured[index], memory_order_relaxed) == key)
			return true;
	}
	return false;
}

int tu_remembers_measured(int fd)
{
	struct tu_statx found;

	return status_of(fd, &found) == 0 && is_measured(&found);
}

bool tu_is_measured_file(int fd)
{
	struct tu_statx found;

	return status_of(fd, &found) == 0 && S_ISREG(found.mode) && is_measured(&found);
}

void tu_remember_status(const void *status)
{
	const struct tu_statx *found = status;
	unsigned index;

	if (!key_of(found) || is_measured(found))
		return;
	index = atomic_fetch_add_explicit(&remembered, 1, memory_order_relaxed) % MEASURED;
	atomic_store_explicit(&measured[index], key_of(found), memory_order_relaxed);
}

void tu_remember_measured(int fd)
{
	struct tu_statx found;

	if (status_of(fd, &found) == 0)
		tu_remember_status(&found);
}

#define DIRECTORIES 256

/* Directories whose file of the last time was a regular one on a file system that was measured, each by
 * the hash of its name, where that says. */
static _Atomic(uint64_t) directories[DIRECTORIES];

/* FNV-1a; 0 for a relative name, which leads elsewhere from another working directory. */
static uint64_t directory_of(const char *name)
{
	const char *end = *name == '/' ? strrchr(name, '/') : name;
	uint64_t hash = end == name ? 0 : 0xcbf29ce484222325;

	for (; name < end; name++)
		hash = (hash ^ (unsigned char)*name) * 0x100000001b3;
	return hash;
}

static bool goes_on(uint64_t directory)
{
	return directory &&
	       atomic_load_explicit(&directories[directory % DIRECTORIES], memory_order_relaxed) == directory;
}

static void learn(uint64_t directory, bool went_on)
{
	if (went_on != goes_on(directory))
		atomic_store_explicit(&directories[directory % DIRECTORIES], went_on ? directory : 0, memory_order_relaxed);
}

static int open_cached(int dir_fd, const char *name, int flags, int resolve)
{
	struct tu_open_how how = {
		.flags = (uint32_t)(flags | O_CLOEXEC),
		.resolve = (uint32_t)(resolve | TU_RESOLVE_CACHED),
	};
	long fd = syscall(SYS_openat2, dir_fd, name, &how, sizeof(how));

	return fd < 0 ? -errno : (int)fd;
}

/* What a name leads to, opened with O_PATH, and its status. */
static int find(int dir_fd, const char *name, int flags, struct tu_statx *found)
{
	int result;
	int fd;

	if (atomic_load_explicit(&refused, memory_order_relaxed))
		return -ENOSYS;
	fd = open_cached(dir_fd, name, O_PATH | (flags & O_NOFOLLOW), 0);
	if (fd == -ENOSYS || fd == -EINVAL || fd == -EPERM)
		atomic_store_explicit(&refused, true, memory_order_relaxed);
	if (fd < 0)
		return fd;
	result = status_of(fd, found);
	if (result < 0)
		close(fd);
	return result < 0 ? result : fd;
}

int tu_look_at_once(int dir_fd, const char *name, int flags, void *status)
{
	int fd = find(dir_fd, name, flags, status);

	if (fd >= 0)
		close(fd);
	return fd < 0 ? fd : 0;
}

int tu_find_at_once(int dir_fd, const char *name, int flags)
{
	struct tu_statx found;
	int fd = find(dir_fd, name, flags, &found);

	if (fd < 0 || is_measured(&found))
		return fd;
	close(fd);
	return -EXDEV;
}

int tu_mode_at_once(int dir_fd, const char *name, int flags)
{
	struct tu_statx found;
	int result = tu_look_at_once(dir_fd, name, flags, &found);

	if (result < 0)
		return result;
	return is_measured(&found) ? found.mode : -EXDEV;
}

/* Opens with O_NONBLOCK, and looks at what it has opened. */
static int open_to_look(int dir_fd, const char *name, int flags, int resolve, struct tu_statx *found)
{
	int fd = open_cached(dir_fd, name, flags | O_NONBLOCK, resolve);
	int result = fd < 0 ? fd : status_of(fd, found);

	if (fd >= 0 && result < 0)
		close(fd);
	return result < 0 ? result : fd;
}

/* Whether O_NONBLOCK keeps the open of such a file from waiting, wherever it is. */
static bool never_waits(uint16_t mode)
{
	return !S_ISREG(mode) && !S_ISCHR(mode) && !S_ISBLK(mode);
}

static void note_status(const struct tu_statx *found, tu_status *status)
{
	status->st_mode = found->mode;
	status->st_size = (int64_t)found->size;
	status->st_dev = makedev(found->dev_major, found->dev_minor);
}

static int open_regular(int dir_fd, const char *name, int flags, tu_status *status)
{
	const uint64_t directory = directory_of(name);
	struct tu_statx found;
	int fd = -ELOOP;

	if (goes_on(directory))
		fd = open_to_look(dir_fd, name, flags, TU_RESOLVE_NO_SYMLINKS, &found);
	if (fd == -ELOOP) {
		fd = tu_look_at_once(dir_fd, name, flags, &found);
		if (fd >= 0 && S_ISREG(found.mode) && is_measured(&found))
			fd = open_to_look(dir_fd, name, flags, 0, &found);
		else if (fd >= 0)
			fd = never_waits(found.mode) ? -EAGAIN : -EXDEV;
	}
	if (fd < 0)
		return fd;
	learn(directory, S_ISREG(found.mode) && is_measured(&found));
	note_status(&found, status);
	return fd;
}

/* Takes O_NONBLOCK back from a regular file, and returns its descriptor. */
static int made_plain(int fd, int flags, const tu_status *status)
{
	if (!S_ISREG(status->st_mode) || fcntl(fd, F_SETFL, flags) == 0)
		return fd;
	close(fd);
	return -EAGAIN;
}

int tu_make_plain(int fd, int flags, tu_status *status)
{
	struct tu_statx found;

	if (status_of(fd, &found) < 0 || !S_ISREG(found.mode) || !is_measured(&found))
		return 0;
	note_status(&found, status);
	return fcntl(fd, F_SETFL, flags) == 0;
}

int tu_open_at_once(int dir_fd, const char *name, int flags, tu_status *status)
{
	int fd = open_regular(dir_fd, name, flags, status);

	return fd < 0 ? fd : made_plain(fd, flags, status);
}

int tu_read_whole_at_once(const char *name, char *memory, uint32_t length, tu_status *status)
{
	const int fd = open_regular(AT_FDCWD, name, O_RDONLY, status);
	int got = -1;

	if (fd >= 0 && S_ISREG(status->st_mode) && status->st_size > 0 && status->st_size < length)
		got = tu_read_at_once(fd, memory, length, 0);
	if (got >= 0 && (uint32_t)got < length) {
		close(fd);
		return got;
	}
	status->fd = fd < 0 ? fd : made_plain(fd, O_RDONLY, status);
	return -EAGAIN;
}
