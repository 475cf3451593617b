/* Stands before liburing, by LD_PRELOAD, and makes the kernel answer the core as a kernel may.
 *
 * Just before each enter it looks at the submissions that the core has published, at each one
 * once, and changes some of them, by rule and at random:
 *
 *   an error          by a NOP that completes with it, in the place of the submission
 *   a short count     by a request for less
 *   a multishot that  by a request for one
 *   ends early
 *
 * Completions are never changed: that would hide bytes which did move. (One that is lost is never
 * made, and the kernel tells that one was.) Besides, it refuses enters, or has them take fewer
 * submissions than they were given.
 *
 * A rule changes only what a kernel could answer so: a regular file has EIO, a non-blocking
 * socket EAGAIN, and a cancel finds nothing only where its target may be between two attempts.
 *
 * Beside the rules, each submission of one opcode can have one answer, as where a sandbox forbids it.
 *
 * Python chooses rules by `faults_begin` and reads `faults_count`. All is under one lock, which
 * is not held in the kernel. Needs IORING_NOP_INJECT_RESULT (Linux 6.10). */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef IORING_NOP_INJECT_RESULT
#define IORING_NOP_INJECT_RESULT 1U
#endif

/* Numbers that old headers lack. */
#define FTRUNCATE 55

#define MOST_RINGS 64
#define REMEMBERED 4096 /* a power of two */
#define LONGEST_REFUSAL 20

struct ring {
	struct io_uring *uring; /* NULL: none */
	unsigned seen;          /* where in the queue the next submission is that was not looked at */
	int refusal;            /* what the next `refusals` enters answer */
	unsigned refusals;
	bool lost; /* a completion, of which the next wait tells */
	/* What was submitted as: which cancels of it may fail depends on that. */
	struct {
		uint64_t user_data;
		uint8_t opcode;
	} submitted[REMEMBERED];
};

struct rule {
	const char *name;
	/* Of a submission: whether the kernel may answer it so, and the change that has it do so. */
	bool (*may)(const struct ring *ring, const struct io_uring_sqe *sqe);
	void (*change)(struct ring *ring, struct io_uring_sqe *sqe, int result);
	/* Of an enter that submits and waits so: whether the kernel may refuse it. */
	bool (*may_refuse)(unsigned submitted, unsigned minimum);
	uint64_t count;
	int result;
	bool on;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct ring rings[MOST_RINGS];
static uint64_t rings_seen;
static uint64_t state = 1;
static unsigned rate; /* of 1000 */
static uint64_t left; /* faults to inject at most */
static int last_operation;
static int forbidden = -1; /* an opcode */
static int forbidden_result;

/* Chance: xorshift64 */

static uint64_t random_below(uint64_t limit)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (state >> 11) % limit;
}

static bool happens(struct rule *rule)
{
	if (!left || random_below(1000) >= rate)
		return false;
	left--;
	rule->count++;
	return true;
}

/* Which submissions */

static bool is_regular(int fd)
{
	struct stat status;

	return !fstat(fd, &status) && S_ISREG(status.st_mode);
}

static bool is_pipe(int fd)
{
	struct stat status;

	return !fstat(fd, &status) && S_ISFIFO(status.st_mode);
}

static bool is_stream_socket(int fd)
{
	int type = 0;
	socklen_t size = sizeof(type);

	return !getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) && type == SOCK_STREAM;
}

static bool has_flag(int fd, int flag)
{
	int flags = fcntl(fd, F_GETFL);

	return flags >= 0 && (flags & flag);
}

static bool is_of_sockets(const struct io_uring_sqe *sqe)
{
	return sqe->opcode == IORING_OP_RECV || sqe->opcode == IORING_OP_SEND || sqe->opcode == IORING_OP_ACCEPT;
}

static bool is_read(const struct io_uring_sqe *sqe)
{
	return sqe->opcode == IORING_OP_READ || sqe->opcode == IORING_OP_READV;
}

static bool is_write(const struct io_uring_sqe *sqe)
{
	return sqe->opcode == IORING_OP_WRITE || sqe->opcode == IORING_OP_WRITEV;
}

static bool makes_name(const struct io_uring_sqe *sqe)
{
	switch (sqe->opcode) {
	case IORING_OP_OPENAT:
		return sqe->open_flags & O_CREAT;
	case IORING_OP_MKDIRAT:
	case IORING_OP_SYMLINKAT:
	case IORING_OP_LINKAT:
	case IORING_OP_RENAMEAT:
		return true;
	default:
		return false;
	}
}

/* What does not go by way of a descriptor has a path. */
static bool is_of_files(const struct io_uring_sqe *sqe)
{
	switch (sqe->opcode) {
	case IORING_OP_OPENAT:
	case IORING_OP_STATX:
	case IORING_OP_UNLINKAT:
	case IORING_OP_MKDIRAT:
	case IORING_OP_SYMLINKAT:
	case IORING_OP_LINKAT:
	case IORING_OP_RENAMEAT:
		return true;
	case IORING_OP_SPLICE:
		return is_regular(sqe->splice_fd_in);
	case IORING_OP_FSYNC:
	case IORING_OP_FALLOCATE:
	case FTRUNCATE:
		return is_regular(sqe->fd);
	default:
		return (is_read(sqe) || is_write(sqe)) && is_regular(sqe->fd);
	}
}

static bool may_lack_buffers(const struct ring *ring, const struct io_uring_sqe *sqe)
{
	(void)ring;
	return sqe->opcode == IORING_OP_RECV && (sqe->flags & IOSQE_BUFFER_SELECT);
}

/* As by another cancel, or by a file that goes away (POLLFREE). */
static bool may_be_cancelled(const struct ring *ring, const struct io_uring_sqe *sqe)
{
	(void)ring;
	return is_of_sockets(sqe) || sqe->opcode == IORING_OP_POLL_ADD;
}

/* Where no worker can be started for it, since a signal is pending, or there are too many processes. */
static bool may_lack_worker(const struct ring *ring, const struct io_uring_sqe *sqe)
{
	(void)ring;
	return is_of_files(sqe);
}

static bool may_be_interrupted(const struct ring *ring, const struct io_uring_sqe *sqe)
{
	(void)ring;
	return is_of_sockets(sqe) || is_read(sqe) || is_write(sqe) || sqe->opcode == IORING_OP_OPENAT ||
	       sqe->opcode == IORING_OP_SPLICE;
}

static bool may_find_it_not_ready(const struct ring *ring, const struct io_uring_sqe *sqe)
{
	(void)ring;
	return (is_of_sockets(sqe) || is_read(sqe) || is_write(sqe)) && has_flag(sqe->fd, O_NONBLOCK);
}

/* A write of a page to a pipe is never divided, nor a datagram; O_DIRECT falls short by blocks. */
static bool may_fall_short(const struct ring *ring, const struct io_uring_sqe *sqe)
{
	(void)ring;
	if (sqe->len < 2)
		return false;
	if (sqe->opcode == IORING_OP_SEND || sqe->opcode == IORING_OP_RECV)
		return is_stream_socket(sqe->fd);
	if (sqe->opcode == IORING_OP_SPLICE)
		return true;
	if (is_read(sqe))
		return (is_regular(sqe->fd) && !has_flag(sqe->fd, O_DIRECT)) || is_pipe(sqe->fd);
	return is_write(sqe) && is_regular(sqe->fd) && !has_flag(sqe->fd, O_DIRECT);
}

static bool may_end_early(const struct ring *ring, const struct io_uring_sqe *sqe)
{
	(void)ring;
	switch (sqe->opcode) {
	case IORING_OP_RECV:
		return sqe->ioprio & IORING_RECV_MULTISHOT;
	case IORING_OP_ACCEPT:
		return sqe->ioprio & IORING_ACCEPT_MULTISHOT;
	case IORING_OP_POLL_ADD:
		return sqe->len & IORING_POLL_ADD_MULTI;
	default:
		return false;
	}
}

/* A poll completes by the key of a wake-up, and does not ask the file whether it is still true. */
static bool may_be_woken(const struct ring *ring, const struct io_uring_sqe *sqe)
{
	(void)ring;
	return sqe->opcode == IORING_OP_POLL_ADD;
}

/* The target is task work at this moment, or with a worker. A poll is always found. */
static bool may_miss(const struct ring *ring, const struct io_uring_sqe *sqe)
{
	unsigned index = (unsigned)sqe->addr & (REMEMBERED - 1);

	return sqe->opcode == IORING_OP_ASYNC_CANCEL && ring->submitted[index].user_data == sqe->addr &&
	       ring->submitted[index].opcode != IORING_OP_POLL_ADD;
}

static bool may_fail(const struct ring *ring, const struct io_uring_sqe *sqe)
{
	(void)ring;
	return is_of_files(sqe);
}

static bool may_find_it_full(const struct ring *ring, const struct io_uring_sqe *sqe)
{
	(void)ring;
	return makes_name(sqe) || ((is_write(sqe) || sqe->opcode == IORING_OP_FALLOCATE) && is_regular(sqe->fd));
}

static bool may_lack_descriptors(const struct ring *ring, const struct io_uring_sqe *sqe)
{
	(void)ring;
	return sqe->opcode == IORING_OP_ACCEPT || sqe->opcode == IORING_OP_OPENAT;
}

/* Where there is no memory to keep a completion that does not fit into the queue. (A descriptor
 * that it would have told of is lost for good: none of those.) */
static bool may_be_lost(const struct ring *ring, const struct io_uring_sqe *sqe)
{
	return !ring->lost && !may_end_early(ring, sqe) &&
	       (sqe->opcode == IORING_OP_RECV || sqe->opcode == IORING_OP_SEND || sqe->opcode == IORING_OP_POLL_ADD ||
		is_read(sqe) || is_write(sqe));
}

/* How */

static void answer(struct ring *ring, struct io_uring_sqe *sqe, int result)
{
	uint8_t flags = sqe->flags & (IOSQE_CQE_SKIP_SUCCESS | IOSQE_IO_LINK | IOSQE_IO_HARDLINK | IOSQE_IO_DRAIN);
	uint64_t user_data = sqe->user_data;

	(void)ring;
	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = IORING_OP_NOP;
	sqe->flags = flags;
	sqe->user_data = user_data;
	sqe->len = (uint32_t)result;
	sqe->rw_flags = IORING_NOP_INJECT_RESULT;
}

static void wake(struct ring *ring, struct io_uring_sqe *sqe, int result)
{
	(void)result;
	answer(ring, sqe, (int)(sqe->poll32_events & 0xffff));
}

static void shorten(struct ring *ring, struct io_uring_sqe *sqe, int result)
{
	(void)ring;
	(void)result;
	sqe->len = 1 + (uint32_t)random_below(sqe->len - 1);
}

static void end_early(struct ring *ring, struct io_uring_sqe *sqe, int result)
{
	(void)ring;
	(void)result;
	if (sqe->opcode == IORING_OP_POLL_ADD) {
		sqe->len &= ~IORING_POLL_ADD_MULTI;
	} else {
		sqe->ioprio &= (uint16_t)~(IORING_RECV_MULTISHOT | IORING_ACCEPT_MULTISHOT);
		sqe->file_index = 0; /* the limit of a multishot receive */
	}
}

static void lose(struct ring *ring, struct io_uring_sqe *sqe, int result)
{
	(void)result;
	sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
	ring->lost = true;
}

/* Which enters */

static bool submits(unsigned submitted, unsigned minimum)
{
	(void)minimum;
	return submitted > 0;
}

/* An enter that has submitted tells that, and nothing of its wait. */
static bool only_waits(unsigned submitted, unsigned minimum)
{
	return !submitted && minimum;
}

static bool submits_several(unsigned submitted, unsigned minimum)
{
	(void)minimum;
	return submitted > 1;
}

#define ANSWER(error, condition) .may = (condition), .change = answer, .result = -(error)
#define CHANGE(how, condition) .may = (condition), .change = (how)
#define REFUSE(error, condition) .may_refuse = (condition), .result = -(error)

static struct rule rules[] = {
	{ "ENOBUFS", ANSWER(ENOBUFS, may_lack_buffers) },
	{ "ECANCELED", ANSWER(ECANCELED, may_be_cancelled) },
	{ "ECANCELED of files", ANSWER(ECANCELED, may_lack_worker) },
	{ "EINTR", ANSWER(EINTR, may_be_interrupted) },
	{ "EAGAIN", ANSWER(EAGAIN, may_find_it_not_ready) },
	{ "short counts", CHANGE(shorten, may_fall_short) },
	{ "multishots end", CHANGE(end_early, may_end_early) },
	{ "polls wake", CHANGE(wake, may_be_woken) },
	{ "cancels ENOENT", ANSWER(ENOENT, may_miss) },
	{ "cancels EALREADY", ANSWER(EALREADY, may_miss) },
	{ "EIO", ANSWER(EIO, may_fail) },
	{ "ENOSPC", ANSWER(ENOSPC, may_find_it_full) },
	{ "EMFILE", ANSWER(EMFILE, may_lack_descriptors) },
	{ "completions lost", CHANGE(lose, may_be_lost) },
	{ "enter EAGAIN", REFUSE(EAGAIN, submits) },
	{ "enter EBUSY", REFUSE(EBUSY, submits) },
	{ "enter ENOMEM", REFUSE(ENOMEM, submits) },
	{ "enter EINTR", REFUSE(EINTR, only_waits) },
	{ "enter EBADR", REFUSE(EBADR, only_waits) },
	{ "enter short", REFUSE(0, submits_several) },
};

#define RULES (sizeof(rules) / sizeof(rules[0]))

/* Before an enter, with the lock held */

static struct ring *ring_of(int fd)
{
	for (unsigned index = 0; index < MOST_RINGS; index++)
		if (rings[index].uring && rings[index].uring->ring_fd == fd)
			return &rings[index];
	return NULL;
}

static void look_at(struct ring *ring, struct io_uring_sqe *sqe)
{
	unsigned index = (unsigned)sqe->user_data & (REMEMBERED - 1);

	if (sqe->opcode != IORING_OP_ASYNC_CANCEL) {
		ring->submitted[index].user_data = sqe->user_data;
		ring->submitted[index].opcode = sqe->opcode;
	}
	if (sqe->opcode == forbidden) {
		answer(ring, sqe, forbidden_result);
		return;
	}
	for (unsigned number = 0; number < RULES; number++) {
		struct rule *rule = &rules[number];

		if (rule->on && rule->change && rule->may(ring, sqe) && happens(rule)) {
			last_operation = sqe->opcode;
			rule->change(ring, sqe, rule->result);
			return;
		}
	}
}

static void look_at_all(struct ring *ring)
{
	struct io_uring_sq *sq = &ring->uring->sq;
	unsigned tail = io_uring_smp_load_acquire(sq->ktail);

	for (; ring->seen != tail; ring->seen++)
		look_at(ring, &sq->sqes[ring->seen & sq->ring_mask]);
}

/* -errno, or how many submissions the kernel is to take. */
static int admit(struct ring *ring, unsigned submitted, unsigned minimum)
{
	if (ring->lost && only_waits(submitted, minimum)) {
		ring->lost = false;
		return -EBADR;
	}
	for (unsigned number = 0; number < RULES; number++) {
		struct rule *rule = &rules[number];

		if (!rule->on || !rule->may_refuse || !rule->may_refuse(submitted, minimum))
			continue;
		if (ring->refusals && ring->refusal == rule->result) {
			ring->refusals--;
			return rule->result;
		}
		if (!happens(rule))
			continue;
		if (!rule->result)
			return 1 + (int)random_below(submitted - 1);
		ring->refusal = rule->result;
		ring->refusals = rule->may_refuse == submits ? (unsigned)random_below(LONGEST_REFUSAL) : 0;
		return rule->result;
	}
	return (int)submitted;
}

/* What stands before liburing's. The headers' prototypes differ between its releases. */

typedef int mmap_function(int fd, struct io_uring_params *params, struct io_uring *ring);
typedef void exit_function(struct io_uring *ring);

int faults_mmap(int fd, struct io_uring_params *params, struct io_uring *uring) __asm__("io_uring_queue_mmap");
void faults_exit(struct io_uring *uring) __asm__("io_uring_queue_exit");
int faults_enter(unsigned fd, unsigned submitted, unsigned minimum, unsigned flags, void *argument, size_t size)
	__asm__("io_uring_enter2");

static void *next(const char *name)
{
	void *found = dlsym(RTLD_NEXT, name);

	if (!found)
		_exit(127);
	return found;
}

int faults_mmap(int fd, struct io_uring_params *params, struct io_uring *uring)
{
	mmap_function *function = (mmap_function *)next("io_uring_queue_mmap");
	int result = function(fd, params, uring);

	if (result < 0)
		return result;
	pthread_mutex_lock(&lock);
	for (unsigned index = 0; index < MOST_RINGS; index++) {
		if (rings[index].uring)
			continue;
		memset(&rings[index], 0, sizeof(rings[index]));
		rings[index].uring = uring;
		rings_seen++;
		break;
	}
	pthread_mutex_unlock(&lock);
	return result;
}

void faults_exit(struct io_uring *uring)
{
	exit_function *function = (exit_function *)next("io_uring_queue_exit");

	pthread_mutex_lock(&lock);
	for (unsigned index = 0; index < MOST_RINGS; index++)
		if (rings[index].uring == uring)
			rings[index].uring = NULL;
	pthread_mutex_unlock(&lock);
	function(uring);
}

int faults_enter(unsigned fd, unsigned submitted, unsigned minimum, unsigned flags, void *argument, size_t size)
{
	int admitted = (int)submitted;
	struct ring *ring;
	long result;

	pthread_mutex_lock(&lock);
	ring = ring_of((int)fd);
	if (ring) {
		look_at_all(ring);
		admitted = admit(ring, submitted, minimum);
		if (ring->lost)
			minimum = 0; /* a kernel that drops a completion wakes who waits */
	}
	pthread_mutex_unlock(&lock);
	if (admitted < 0)
		return admitted;
	if ((unsigned)admitted < submitted) /* then the kernel neither waits nor runs task work */
		result = syscall(SYS_io_uring_enter, fd, admitted, 0, 0, NULL, 0);
	else
		result = syscall(SYS_io_uring_enter, fd, submitted, minimum, flags, argument, size);
	return result < 0 ? -errno : (int)result;
}

/* For Python */

/* From now on these rules hold, their names divided by commas, each with a chance of `chance`
 * in 1000, and `most` times altogether. 0, or -EINVAL for a name that is none. */
int faults_begin(const char *names, uint64_t seed, unsigned chance, uint64_t most);
/* From now on each submission of this opcode is answered with -error. */
void faults_forbid(int opcode, int error);
uint64_t faults_count(const char *name);
uint64_t faults_rings(void);
int faults_last_operation(void);
int faults_possible(void);

static struct rule *rule_named(const char *name, size_t length)
{
	for (unsigned number = 0; number < RULES; number++)
		if (strlen(rules[number].name) == length && !strncmp(rules[number].name, name, length))
			return &rules[number];
	return NULL;
}

int faults_begin(const char *names, uint64_t seed, unsigned chance, uint64_t most)
{
	int result = 0;

	pthread_mutex_lock(&lock);
	for (unsigned number = 0; number < RULES; number++)
		rules[number].on = false;
	while (*names) {
		size_t length = strcspn(names, ",");
		struct rule *rule = rule_named(names, length);

		if (rule)
			rule->on = true;
		else
			result = -EINVAL;
		names += length + (names[length] == ',');
	}
	state = seed * 2 + 1; /* which is not 0 */
	rate = chance;
	left = most;
	pthread_mutex_unlock(&lock);
	return result;
}

void faults_forbid(int opcode, int error)
{
	pthread_mutex_lock(&lock);
	forbidden = opcode;
	forbidden_result = -error;
	pthread_mutex_unlock(&lock);
}

/* How often a rule was kept since the beginning of the process. */
uint64_t faults_count(const char *name)
{
	struct rule *rule = rule_named(name, strlen(name));

	return rule ? rule->count : 0;
}

/* Rings that were opened with this library before liburing. */
uint64_t faults_rings(void)
{
	return rings_seen;
}

/* The opcode of the submission that was changed last. */
int faults_last_operation(void)
{
	return last_operation;
}

/* Whether this kernel's NOP answers what it is told to. */
int faults_possible(void)
{
	struct io_uring uring;
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	int possible = 0;

	if (io_uring_queue_init(2, &uring, 0) < 0)
		return 0;
	sqe = io_uring_get_sqe(&uring);
	if (sqe)
		answer(NULL, sqe, -EIO);
	if (sqe && io_uring_submit_and_wait(&uring, 1) == 1 && !io_uring_peek_cqe(&uring, &cqe))
		possible = cqe->res == -EIO;
	io_uring_queue_exit(&uring);
	return possible;
}
