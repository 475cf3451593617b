/* The core's interface, as C sees it. interface.h, which Python sees, says what each name means and who
 * may call it. */
#ifndef TU_CORE_H
#define TU_CORE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buffers.h"
#include "interrupt.h"
#include "operations.h"
#include "ring.h"

#define TU_COUNT 0xffffff
#define TU_POSTED (1 << 24)
#define TU_FORCED (1 << 25)
#define TU_SIGNALS (1 << 26)
#define TU_INTERRUPTED (1 << 27)
#define TU_REAP (1 << 28)

#define TU_CHECKED 0x10000
#define TU_NOT_STARTED (-ENOTCONN)
#define TU_PART 4096
#define TU_MOST_BYTES 0x7ffff000 /* the most that one send or receive moves (MAX_RW_COUNT) */

typedef struct {
	uint32_t setup_flags;
	uint32_t features;
	uint32_t entries;
	uint32_t cq_entries;
	uint64_t entered;
	uint64_t skipped;
	uint32_t in_flight;
} tu_statistics;

typedef struct {
	uint32_t st_mode;
	int64_t st_size;
	uint64_t st_dev;
	int32_t fd;
} tu_status;

typedef struct tu_core tu_core;

/* In the `kind` of tu_poll_add: poll(2) does not confirm the event. For a caller who tries at once, and then waits
 * in the other way if that would block. */
#define TU_UNCONFIRMED 0x10000

/* The functions of the core that native/python calls. It is another library, and finds them here. */
struct tu_calls {
	int (*send)(tu_core *core, int fd, const char *data, size_t length, int whole);
	int (*cancel)(tu_core *core, int slot);
	int (*poll_add)(tu_core *core, int fd, int kind);
	int (*poll_cancel)(tu_core *core, int slot, int other_slot);
};

struct tu_core {
	const struct tu_calls *calls;
	struct tu_interrupt interrupt;
	struct tu_ring ring;
	struct tu_operations operations;
	struct tu_buffers buffers;
	tu_event *events;
	uint32_t events_capacity;
	uint32_t events_count; /* of the last tick */
	bool started;
	bool guest; /* in a guest run the owner may do other things between a tick and its events */
	bool refused; /* of a guest run's last tick: the kernel has not taken all that it is to do */
	_Atomic bool elsewhere; /* that tick has found nothing: the worker thread waits, or is about to */
	bool interrupt_watched;
	bool signals_watched;
	bool limits; /* a multishot receive may have a limit */
	int signal_fd; /* -1: none */
	uint64_t skipped;
};

int tu_open(tu_core *core, uint32_t entries, uint32_t cq_entries, uint32_t setup_flags);
void tu_set_wait_flags(tu_core *core, uint32_t flags);
void tu_do_without(tu_core *core, uint32_t features);
int tu_start(tu_core *core, int guest);
void tu_watch_signals(tu_core *core, int fd);

void tu_check_descriptor(tu_core *core);
void tu_cancel_all(tu_core *core);
uint32_t tu_pinned(tu_core *core);
void tu_release(tu_core *core);
void tu_lose(tu_core *core);
void tu_destroy(tu_core *core);

const uint32_t *tu_signalled(tu_core *core);
void tu_signal_posted(tu_core *core);
void tu_signal_forced(tu_core *core);
void tu_close_interrupt(tu_core *core);

int tu_poll(tu_core *core);
int tu_wait(tu_core *core, int64_t timeout_ns);
int tu_reap(tu_core *core);
int tu_guest_wait(tu_core *core, int64_t timeout_ns);

tu_event *tu_events(tu_core *core);
uint32_t tu_events_left(tu_core *core);

int tu_poll_add(tu_core *core, int fd, int kind);
int tu_poll_cancel(tu_core *core, int slot, int other_slot);

int tu_submit(tu_core *core, int opcode, int fd, void *address, uint32_t length, uint64_t offset, uint32_t flags,
	      int other_fd);
int tu_cancel(tu_core *core, int slot);
int tu_send(tu_core *core, int fd, const char *data, size_t length, int whole);

int tu_provide_buffers(tu_core *core, uint32_t count, uint32_t size);
void *tu_buffer_memory(tu_core *core);
int tu_receive(tu_core *core, int fd, uint32_t length, uint32_t most);
int tu_accept(tu_core *core, int fd, int multishot);
int tu_has_completed(tu_core *core, int slot);
int tu_flush(tu_core *core);

int tu_read_at_once(int fd, char *memory, size_t length, int64_t offset);
int tu_read_measured_at_once(int fd, char *memory, size_t length, int64_t offset);
int64_t tu_file_system(int fd);
bool tu_is_measured_file(int fd);
int tu_remembers_measured(int fd);
void tu_remember_measured(int fd);
void tu_remember_status(const void *status);
int tu_look_at_once(int dir_fd, const char *name, int flags, void *status);
int tu_find_at_once(int dir_fd, const char *name, int flags);
int tu_mode_at_once(int dir_fd, const char *name, int flags);
int tu_read_whole_at_once(const char *name, char *memory, uint32_t length, tu_status *status);
int tu_make_plain(int fd, int flags, tu_status *status);
int tu_open_at_once(int dir_fd, const char *name, int flags, tu_status *status);
int tu_add_workers(tu_core *core, int more);

void tu_read_statistics(tu_core *core, tu_statistics *statistics);

int tu_probe_setup(uint32_t setup_flags, uint32_t *features);
int tu_probe_operations(uint8_t *supported, uint32_t capacity);
int tu_probe_operations_of(const tu_core *core, uint8_t *supported, uint32_t capacity);
int tu_try_enter(const tu_core *core);
const char *tu_liburing_built(void);
int tu_liburing_loaded(char *path, size_t size);
bool tu_liburing_is_inside(void);

#endif
