/* The only names that Python sees, as cffi reads them.
 *
 * Every function returns 0 or a count, or -errno. Unless it says otherwise, it
 * belongs to the owner: the thread that runs Trio's ticks. */

/* What woke the owner. TU_COUNT is the mask of the number of events; the
 * others are flags beside it. */
#define TU_COUNT 0xffffff
#define TU_WOKEN ...       /* the interrupt, for the entry queue */
#define TU_FORCED ...      /* the interrupt, for the loop alone */
#define TU_SIGNALS ...     /* the signal socket has bytes to drain */
#define TU_INTERRUPTED ... /* a system call was interrupted before its time */
#define TU_REAP ...        /* a guest run: tu_reap says what */

/* The kind of an event that is over; what a readiness operation waits for, and the kind of its event. */
#define TU_NOTHING ...
#define TU_READ ...
#define TU_WRITE ...
/* The kinds of the events of a caller's operation, of a receive and of an accept. */
#define TU_OPERATION ...
#define TU_RECEIVE ...
#define TU_ACCEPT ...

typedef struct {
	int32_t kind;
	int32_t key;    /* the descriptor; of the kinds from TU_OPERATION on, the slot */
	int32_t result; /* the operation's result, or -errno; of readiness, 0 or -errno */
	int32_t detail; /* a receive's or an accept's: 1 if more will come; and a receive's:
	                   2 * (1 + the number of its buffer) */
} tu_event;

typedef struct {
	uint32_t setup_flags;
	uint32_t features;
	uint32_t entries;
	uint32_t cq_entries;
	uint64_t entered;   /* io_uring_enter calls */
	uint64_t skipped;   /* ticks that needed none */
	uint32_t in_flight; /* operations that the kernel, or the queue to it, holds */
} tu_statistics;

/* The memory of a core is Python's, and lasts as long as anything there refers to
 * it. Once released, a tick only waits for its time, and every other function does
 * nothing or answers -EBADF: what the garbage collector finalises after the ring may
 * still call them. */
typedef struct tu_core {
	...;
} tu_core;

/* Set-up. Any thread: the first tick makes its thread the owner. */
int tu_open(tu_core *core, uint32_t entries, uint32_t cq_entries, uint32_t setup_flags, int no_iowait);
int tu_start(tu_core *core, int guest);
void tu_watch_signals(tu_core *core, int fd);

/* The end. `tu_check` looks whether the ring's descriptor is still the ring's: if somebody has
 * closed it, the ring is entered no more. `tu_cancel_all` asks the kernel to let go of everything;
 * while `tu_pinned` says that some of it is still to be answered, ticks bring the answers.
 * `tu_release` gives the ring and all memory back without entering it, which is all that another
 * thread may do; it may be called again. `tu_lose` is for a forked child: it gives the ring and
 * the interrupt back, and leaves the memory to `tu_release`, since the child may have been forked
 * while a tick's events were looked at. The child's ticks then make an interrupt of its own.
 * `tu_destroy` is for whoever frees the core, opened or not: nothing refers to it any longer. */
void tu_check(tu_core *core);
void tu_cancel_all(tu_core *core);
uint32_t tu_pinned(tu_core *core);
void tu_release(tu_core *core);
void tu_lose(tu_core *core);
void tu_destroy(tu_core *core);

/* The interrupt. Any thread, a signal handler or a finaliser may signal. The
 * word holds what was signalled and not yet consumed; it lasts as long as the core. */
const uint32_t *tu_signalled(tu_core *core);
void tu_signal_woken(tu_core *core);
void tu_signal_forced(tu_core *core);
void tu_close_interrupt(tu_core *core);

/* A tick: `tu_poll` for a timeout of 0. Before `tu_start`: TU_NOT_STARTED. */
#define TU_NOT_STARTED ...
int tu_poll(tu_core *core);
int tu_wait(tu_core *core, int64_t timeout_ns);

/* A guest run's ticks. The owner may do other things, cancel waits among them,
 * between the tick and the processing of what came. So `tu_poll` then only says
 * TU_REAP, and so does `tu_guest_wait`, which waits on another thread; `tu_reap`
 * copies the completions out when they are processed. */
int tu_guest_wait(tu_core *core, int64_t timeout_ns);
int tu_reap(tu_core *core);

/* Where tu_poll, tu_wait and tu_reap put the events that they count. Whoever has processed one
 * makes it TU_NOTHING. `tu_events_left`: 0 if all are, else how many to look through. */
tu_event *tu_events(tu_core *core);
uint32_t tu_events_capacity(tu_core *core);
uint32_t tu_events_left(tu_core *core);

/* Readiness, of which an event is true: poll(2) was asked again. `tu_poll_add` returns a slot, > 0; `tu_poll_cancel` takes up to
 * two (0: none), and when it returns the ring holds no reference to their
 * files. */
int tu_poll_add(tu_core *core, int fd, int kind);
int tu_poll_cancel(tu_core *core, int slot, int other_slot);

/* An operation of the caller's, by the fields of its submission entry; `other_fd` is
 * the one that a splice reads from, and the second byte of `opcode` has IOSQE_ flags.
 * Returns a slot, > 0, the key of the event that will come, exactly one. Until then what
 * `address` (or `offset`, where it is one) points to stays where it is.
 *
 * `tu_cancel` asks the kernel to stop it. 1: it is gone, and no event will come, since
 * the kernel never knew of it, or the ring is a parent's. 0: the event will come, or has
 * come, cancelled or not. */
int tu_submit(tu_core *core, int opcode, int fd, void *address, uint32_t length, uint64_t offset, uint32_t flags,
	      int other_fd);
int tu_cancel(tu_core *core, int slot);

/* Sends `length` bytes, or 2 GiB less a page if that is fewer: an operation of the caller's,
 * as by tu_submit. `whole`: all of them, however often the kernel has to wait for room;
 * else as many as there is room for now, or -EAGAIN.
 * `data` may be bytes, whose memory never moves, and is kept by the caller. */
int tu_send(tu_core *core, int fd, const char *data, size_t length, int whole);

/* Receiving into provided buffers: `count`, a power of two, of `size` bytes each. They
 * are provided once, before the first receive. What an event's buffer holds stays until
 * the next tick. `tu_receive` returns a slot, > 0: with `length` one event will come, of
 * that many bytes at most; with 0 events come until one says that no more will. They
 * stop after `tu_cancel`, or when the buffers are used up (ENOBUFS). */
int tu_provide_buffers(tu_core *core, uint32_t count, uint32_t size);
void *tu_buffer_memory(tu_core *core);
int tu_receive(tu_core *core, int fd, uint32_t length);

/* 1 if the kernel has answered the operation of a slot, other than that it stopped for a while, and
 * no tick has told of it yet. Changes nothing. */
int tu_has_completed(tu_core *core, int slot);

/* Accepts connections, whose descriptors are the results: non-blocking, and closed in a
 * program that is executed. Returns a slot, > 0. One event will come or, multishot, events
 * come until one says that no more will: after an error, or `tu_cancel`. */
int tu_accept(tu_core *core, int fd, int multishot);

/* A word that is not 0 if something is queued that has to be looked at before the kernel gets it
 * (native/python/checking.c): by tu_send, tu_receive, tu_accept, or by tu_submit with TU_CHECKED
 * in `opcode`. */
#define TU_CHECKED 0x10000
const uint32_t *tu_unchecked(tu_core *core);

/* Has the kernel act on everything that is queued, cancels among them. */
int tu_flush(tu_core *core);

/* Any thread: reads what the page cache has of a regular file, without waiting for a device,
 * and without the ring: `length` bytes, or 2 GiB less a page, at most. `memory` may be bytes
 * that nobody has seen yet. A count: all that pread(2) would have read, so the file ends there
 * if it is short. -TU_PART less a count: so much of it, and the rest is not there. -EAGAIN:
 * nothing of it is; -EOPNOTSUPP: the file system cannot tell. */
#define TU_PART ...
int tu_read_at_once(int fd, char *memory, size_t length, int64_t offset);

/* Any thread: the same of a descriptor of which the caller knows nothing; -EXDEV: it is no regular file
 * on a file system that was remembered as measured, or goes past the page cache, which would wait. */
int tu_read_measured_at_once(int fd, char *memory, size_t length, int64_t offset);

/* Any thread: the type of the file system that the file is on, as statfs(2) has it. It may be
 * asked of a server. */
int64_t tu_file_system(int fd);

/* Any thread: whether the file system that the file is on was remembered as one that was measured
 * (lowlevel/file_systems.py); remembers it, by a descriptor or by what tu_look_at_once has found.
 * None asks a server. Before Linux 6.8 what has no block device cannot be remembered. */
int tu_remembers_measured(int fd);
void tu_remember_measured(int fd);
void tu_remember_status(const void *found);

typedef struct {
	uint32_t st_mode;
	int64_t st_size;
	uint64_t st_dev;
	int32_t fd; /* of what tu_read_whole_at_once has left open; < 0: nothing */
} tu_status;

/* Any thread: what a name leads to, without waiting, by the calling thread (native/names.c).
 * `flags` are those of open(2).
 *
 * `tu_look_at_once` is statx(2), for which `found` has 256 bytes, wherever the file is. `tu_mode_at_once`
 * returns the mode. `tu_find_at_once` returns a descriptor, opened with O_PATH. `tu_open_at_once` opens a
 * regular file to read it, and returns its descriptor. What it opened with O_NONBLOCK, as a file that has
 * just taken that one's place, still has it, unless it is a regular file. `tu_read_whole_at_once` opens
 * the same, reads all of it, and closes it: a count, less than `length`; or an error, with the file open
 * or not.
 *
 * -EAGAIN: perhaps it would have to wait. -EXDEV: it is on a file system that was not remembered as
 * measured, or is to be opened and a device. -ENOENT, -ENOTDIR: so it is. Anything else, as that
 * this kernel cannot tell, says nothing of the name. */
int tu_look_at_once(int dir_fd, const char *name, int flags, void *found);
int tu_find_at_once(int dir_fd, const char *name, int flags);
int tu_mode_at_once(int dir_fd, const char *name, int flags);
int tu_open_at_once(int dir_fd, const char *name, int flags, tu_status *status);
int tu_read_whole_at_once(const char *name, char *memory, uint32_t length, tu_status *status);

/* Lets the kernel have so many more workers for this run's operations on files, each made only
 * when all others are busy. -EINVAL: before Linux 5.15. */
int tu_add_workers(tu_core *core, int more);

void tu_read_statistics(tu_core *core, tu_statistics *statistics);

/* What this kernel and this liburing can do. */
int tu_probe_setup(uint32_t setup_flags, uint32_t *features);
int tu_probe_operations(uint8_t *supported, uint32_t capacity);

/* The same, asked of a ring that was not entered yet; and whether it could be entered. */
int tu_probe_operations_of(const tu_core *core, uint8_t *supported, uint32_t capacity);
int tu_try_enter(const tu_core *core);

const char *tu_liburing_built(void);
int tu_liburing_loaded(char *path, size_t size);
