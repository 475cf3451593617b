/* The core's interface: all that Python sees of it, as cffi reads it.
 *
 * Every function returns 0 or a count, or -errno. Unless its comment says otherwise, only the owner may
 * call it: the thread that runs Trio's ticks. */

/* What a tick returns: the number of its events, for which TU_COUNT is the mask, and flags that say what
 * else ended its wait. */
#define TU_COUNT 0xffffff
#define TU_POSTED ...      /* a job was posted from elsewhere (tu_signal_posted): Trio's entry queue */
#define TU_FORCED ...      /* somebody asked for another tick (tu_signal_forced) */
#define TU_SIGNALS ...     /* the signal socket has bytes to drain */
#define TU_INTERRUPTED ... /* a system call was interrupted before its time */
#define TU_REAP ...        /* a guest run: something came, and tu_reap says what */

/* The kinds of events. tu_poll_add takes TU_READ or TU_WRITE. */
#define TU_NOTHING ...   /* an event that was processed */
#define TU_READ ...      /* a wait until a descriptor is readable */
#define TU_WRITE ...     /* a wait until a descriptor is writable */
#define TU_OPERATION ... /* an operation of tu_submit or tu_send */
#define TU_RECEIVE ...   /* a receive of tu_receive */
#define TU_ACCEPT ...    /* an accept of tu_accept */

#define TU_KINDS ... /* how many kinds there are, TU_NOTHING among them */

typedef struct {
	int16_t kind;
	int16_t more;   /* of a receive or an accept: 1 if more events of it will come */
	int32_t key;    /* of TU_READ and TU_WRITE the descriptor, of the other kinds the slot */
	int32_t result; /* the operation's result, or -errno; of TU_READ and TU_WRITE 0, or -errno */
	int32_t buffer; /* the number of the provided buffer that has a receive's data; -1: none */
} tu_event;

typedef struct {
	uint32_t setup_flags;
	uint32_t features;
	uint32_t entries;
	uint32_t cq_entries;
	uint64_t entered;   /* io_uring_enter calls */
	uint64_t skipped;   /* ticks that needed no such call */
	uint32_t in_flight; /* operations that are with the kernel, or queued for it */
} tu_statistics;

/* A core: a ring, its operations and its interrupt. Python owns the memory, and keeps it as long as
 * anything there refers to it. Objects that the garbage collector finalises after the ring may still
 * call the functions: once the core is released, a tick only waits until its time is over, and every
 * other function does nothing or answers -EBADF. */
typedef struct tu_core {
	...;
} tu_core;

/* Set-up. Any thread may call `tu_open`; the thread that calls `tu_start` becomes the owner, at the first
 * tick. Before that tick: `tu_set_wait_flags`, waits have these flags of io_uring_enter besides;
 * `tu_do_without`, the ring behaves as if the kernel had not reported these bits of the feature mask.
 * `tu_watch_signals`: waits also end when `fd` is readable, with TU_SIGNALS. */
int tu_open(tu_core *core, uint32_t entries, uint32_t cq_entries, uint32_t setup_flags);
void tu_set_wait_flags(tu_core *core, uint32_t flags);
void tu_do_without(tu_core *core, uint32_t features);
int tu_start(tu_core *core, int guest);
void tu_watch_signals(tu_core *core, int fd);

/* The end.
 *
 * `tu_check_descriptor` finds out whether somebody has closed the ring's descriptor; if so, the ring is
 * not entered any more. `tu_cancel_all` asks the kernel to stop every operation. `tu_pinned` is how many
 * have not been answered yet; ticks bring the answers.
 *
 * `tu_release` gives the ring and all memory back without entering the kernel for it. Any thread may
 * call it, and call it again. `tu_lose` does so in a forked child, for the ring and the interrupt; the
 * memory is left to `tu_release`, since the fork may have come while a tick's events were processed. The
 * child's ticks then open an interrupt of its own. `tu_destroy` is for whoever frees the memory of the
 * core, whether it was opened or not, once nothing else refers to it. */
void tu_check_descriptor(tu_core *core);
void tu_cancel_all(tu_core *core);
uint32_t tu_pinned(tu_core *core);
void tu_release(tu_core *core);
void tu_lose(tu_core *core);
void tu_destroy(tu_core *core);

/* The interrupt. Any thread, a signal handler or a finaliser may call `tu_signal_posted` and
 * `tu_signal_forced`, and read the word of `tu_signalled`: the flags that were signalled and that no tick
 * has returned yet. The word lasts as long as the core. */
const uint32_t *tu_signalled(tu_core *core);
void tu_signal_posted(tu_core *core);
void tu_signal_forced(tu_core *core);
void tu_close_interrupt(tu_core *core);

/* A tick: `tu_poll` does not wait, `tu_wait` waits. Before `tu_start` both answer TU_NOT_STARTED. */
#define TU_NOT_STARTED ...
int tu_poll(tu_core *core);
int tu_wait(tu_core *core, int64_t timeout_ns);

/* A guest run's ticks. There the owner may do other things between a tick and the processing of its
 * events, and cancel waits meanwhile. So `tu_poll` only answers TU_REAP, and `tu_reap` makes the events
 * when they are to be processed. `tu_guest_wait` waits on any other thread, and answers TU_REAP too. */
int tu_guest_wait(tu_core *core, int64_t timeout_ns);
int tu_reap(tu_core *core);

/* `tu_events` is where tu_poll, tu_wait and tu_reap put the events that they count. Whoever has processed
 * an event makes its kind TU_NOTHING. `tu_events_left`: 0 if all were processed, else how many there
 * were, processed or not. */
tu_event *tu_events(tu_core *core);
uint32_t tu_events_left(tu_core *core);

/* Waits until a descriptor is readable (TU_READ) or writable (TU_WRITE). When the event comes, poll(2)
 * has confirmed it. `tu_poll_add` returns a slot, > 0. `tu_poll_cancel` takes up to two slots (0: none);
 * when it returns, the ring holds no reference to their files. */
int tu_poll_add(tu_core *core, int fd, int kind);
int tu_poll_cancel(tu_core *core, int slot, int other_slot);

/* Submits any operation, by the fields of its submission entry. `other_fd` is the descriptor that a
 * splice reads from; the second byte of `opcode` has IOSQE_ flags. Returns a slot, > 0. Exactly one event
 * will come, with that slot for its key. Until then the caller keeps in place what `address` points to,
 * and `offset` where that is an address.
 *
 * `tu_cancel` asks the kernel to stop an operation. 1: no event will come, since the kernel had not seen
 * it yet, or since this is a forked child. 0: the event will come, or has come, cancelled or not. */
int tu_submit(tu_core *core, int opcode, int fd, void *address, uint32_t length, uint64_t offset, uint32_t flags,
	      int other_fd);
int tu_cancel(tu_core *core, int slot);

/* Submits a send of `length` bytes, but of 2 GiB less a page at most; otherwise as tu_submit. `whole`:
 * all of them are sent, however often the kernel has to wait for room; else as many as there is room for
 * at once, or the result is -EAGAIN. `data` may be the contents of a bytes object, which never move. */
int tu_send(tu_core *core, int fd, const char *data, size_t length, int whole);

/* Receives into provided buffers. `tu_provide_buffers` is called once, before the first receive: there
 * will be `count` buffers, a power of two, of `size` bytes each. They lie one behind the other from
 * `tu_buffer_memory` on. The data of an event stay in their buffer until the next tick.
 *
 * `tu_receive` returns a slot, > 0. With a `length`, one event will come, of that many bytes at most.
 * With 0 it is a multishot: events come until one of them has `more` 0, which happens at the end of the
 * stream, after an error, after `tu_cancel`, when no buffer is left (-ENOBUFS); and, with `most`, after so
 * many bytes, if the kernel can do that (Linux 6.17). */
int tu_provide_buffers(tu_core *core, uint32_t count, uint32_t size);
void *tu_buffer_memory(tu_core *core);
int tu_receive(tu_core *core, int fd, uint32_t length, uint32_t most);

/* Whether a completion of this slot is in the ring that no tick has made an event of yet. A completion
 * that only says that a receive or an accept stopped for a while does not count. Changes nothing. */
int tu_has_completed(tu_core *core, int slot);

/* Accepts connections. The result of an event is a new descriptor, non-blocking and close-on-exec.
 * Returns a slot, > 0. One event will come; or, of a multishot, events come until one of them has `more`
 * 0, which happens after an error and after `tu_cancel`. */
int tu_accept(tu_core *core, int fd, int multishot);

/* In the `opcode` of tu_submit: the submission's descriptor has to be checked before the kernel gets it, as
 * those of tu_send, tu_receive and tu_accept are (native/python/checking.c). */
#define TU_CHECKED 0x10000

/* Returns when the kernel has acted on everything that was queued, cancels among it. */
int tu_flush(tu_core *core);

/* Any thread: reads what the page cache has of a regular file, without the ring and without waiting for
 * a device. `length` bytes, but 2 GiB less a page at most. `memory` may be the contents of a bytes object
 * that nobody else has seen yet. Returns
 *
 *   a count            what pread(2) would have read: fewer than `length` only at the end of the file
 *   -TU_PART - count   the first bytes; the page cache does not have the next ones
 *   -EAGAIN            the page cache has nothing of it
 *   -EOPNOTSUPP        the file system cannot do this */
#define TU_PART ...
int tu_read_at_once(int fd, char *memory, size_t length, int64_t offset);

/* Any thread: the same of a descriptor of which the caller knows nothing; -EXDEV: it is no regular file
 * on a file system that was remembered as measured, or goes past the page cache, which would wait. */
int tu_read_measured_at_once(int fd, char *memory, size_t length, int64_t offset);


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

/* Any thread: what was opened with O_NONBLOCK beside `flags` loses that, and 1 is returned, if it is a
 * regular file on a file system that was remembered as measured. Its status is in `status` then.
 * Otherwise 0: it is as it was. */
int tu_make_plain(int fd, int flags, tu_status *status);

/* Any thread: the type of the file's file system, as statfs(2) has it. On a network file system the call
 * may wait for the server. */
int64_t tu_file_system(int fd);

/* Lets the kernel start `more` workers than before for the calling thread's operations on files. It
 * starts one only when all others are busy. -EINVAL before Linux 5.15. */
int tu_add_workers(tu_core *core, int more);

/* Any thread. */
void tu_read_statistics(tu_core *core, tu_statistics *statistics);

/* Any thread: what this kernel can do. Each sets a small ring up and closes it. `tu_probe_setup` tries set-up
 * flags; `tu_probe_operations` makes `supported[opcode]` 1 for each operation that there is. */
int tu_probe_setup(uint32_t setup_flags, uint32_t *features);
int tu_probe_operations(uint8_t *supported, uint32_t capacity);

/* Before the first tick: `tu_probe_operations` by the core's own ring; and 0 if that ring may be entered,
 * which a sandbox may forbid (-errno). */
int tu_probe_operations_of(const tu_core *core, uint8_t *supported, uint32_t capacity);
int tu_try_enter(const tu_core *core);

/* Any thread: the version of the liburing headers that the core was built with, and the path of the
 * liburing that was loaded. */
const char *tu_liburing_built(void);
int tu_liburing_loaded(char *path, size_t size);
bool tu_liburing_is_inside(void);
