/* Whether a descriptor still refers to the file that it referred to when we opened it.
 *
 * A program that closes all its descriptors, as daemons do, closes ours too, and the kernel gives the
 * numbers out again. To close such a number once more would close its new owner's file. */
#ifndef TU_IDENTITY_H
#define TU_IDENTITY_H

#include <stdbool.h>
#include <sys/types.h>

/* A ring has an inode of its own from Linux 5.16 on. Before, all rings share one inode, as all eventfds
 * do on any kernel: these cannot be told from each other, only from other files. */
struct tu_identity {
	dev_t device;
	ino_t inode;
};

/* The identity of an open descriptor; all zeros if it is not open. Any thread. */
struct tu_identity tu_identify(int fd);

/* Whether two identities are the same. Any thread. */
bool tu_identity_is(const struct tu_identity *identity, struct tu_identity other);

#endif
