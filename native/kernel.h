/* Constants of the kernel that the liburing headers of the system may be too old to have.
 *
 * Each is part of the kernel's stable interface; the comment gives the first
 * kernel that knows it. */
#ifndef TU_KERNEL_H
#define TU_KERNEL_H

#include <stdint.h>

#include <liburing.h>

#ifndef IORING_SETUP_NO_SQARRAY
#define IORING_SETUP_NO_SQARRAY (1U << 16) /* 6.6 */
#endif

/* openat2(2), 5.6. */
#ifndef SYS_openat2
#define SYS_openat2 437
#endif

struct tu_open_how {
	uint64_t flags;
	uint64_t mode;
	uint64_t resolve;
};

#define TU_RESOLVE_NO_SYMLINKS 0x04
#define TU_RESOLVE_CACHED 0x20 /* 5.12 */

/* statx(2), 4.11. */
struct tu_time {
	int64_t seconds;
	uint32_t nanoseconds;
	int32_t spare;
};

struct tu_statx {
	uint32_t mask;
	uint32_t block_size;
	uint64_t attributes;
	uint32_t links;
	uint32_t uid;
	uint32_t gid;
	uint16_t mode;
	uint16_t spare;
	uint64_t inode;
	uint64_t size;
	uint64_t blocks;
	uint64_t attributes_mask;
	struct tu_time times[4];
	uint32_t rdev_major;
	uint32_t rdev_minor;
	uint32_t dev_major;
	uint32_t dev_minor;
	uint64_t mount;
	uint64_t spares[13];
};

#define TU_STATX_BASIC_STATS 0x7ff
#define TU_STATX_DONT_SYNC 0x4000
#define TU_STATX_MNT_ID_UNIQUE 0x4000 /* 6.8 */

#endif
