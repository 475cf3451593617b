#include "identity.h"

#include <sys/stat.h>

struct tu_identity tu_identify(int fd)
{
	struct stat status;

	if (fstat(fd, &status) < 0)
		return (struct tu_identity){ 0 };
	return (struct tu_identity){ .device = status.st_dev, .inode = status.st_ino };
}

bool tu_identity_is(const struct tu_identity *identity, struct tu_identity other)
{
	return identity->device == other.device && identity->inode == other.inode;
}
