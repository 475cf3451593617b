/* Whether a descriptor is still what it was.
 *
 * Whoever closes all descriptors of a process, as daemons do, closes ours, and the numbers are
 * given out again. To close such a number once more would take it from its new owner. */
#ifndef TU_IDENTITY_H
#define TU_IDENTITY_H

#include <stdbool.h>
#include <sys/types.h>

/* A ring has an inode of its own from Linux 5.16 on. Before, all rings have one, as all eventfds. */
struct tu_identity {
	dev_t device;
	ino_t inode;
};

struct tu_identity tu_identify(int fd);

bool tu_identity_is(const struct tu_identity *one, struct tu_identity other);

#endif
