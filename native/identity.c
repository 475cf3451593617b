#include "identity.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Where there is no /proc, or on Linux before 5.2, all eventfds are taken for one. */
static unsigned long number_of_eventfd(int fd)
{
	static const char label[] = "eventfd-id:";
	char text[512];
	char path[40];
	const char *found;
	ssize_t length;
	int information;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	information = open(path, O_RDONLY | O_CLOEXEC);
	if (information < 0)
		return 0;
	length = read(information, text, sizeof(text) - 1);
	close(information);
	text[length > 0 ? length : 0] = '\0';
	found = strstr(text, label);
	return found ? strtoul(found + sizeof(label) - 1, NULL, 10) : 0;
}

struct tu_identity tu_identify(int fd)
{
	struct stat status;

	if (fstat(fd, &status) < 0)
		return (struct tu_identity){ 0 };
	return (struct tu_identity){ .device = status.st_dev, .inode = status.st_ino };
}

struct tu_identity tu_identify_eventfd(int fd)
{
	struct tu_identity identity = tu_identify(fd);

	identity.eventfd = number_of_eventfd(fd);
	return identity;
}

bool tu_identity_is(const struct tu_identity *one, struct tu_identity other)
{
	return one->device == other.device && one->inode == other.inode && one->eventfd == other.eventfd;
}
