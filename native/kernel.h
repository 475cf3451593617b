/* Constants of the kernel that the liburing headers of the system may be too old to have.
 *
 * Each is part of the kernel's stable interface; the comment gives the first
 * kernel that knows it. */
#ifndef TU_KERNEL_H
#define TU_KERNEL_H

#include <liburing.h>

#ifndef IORING_SETUP_NO_SQARRAY
#define IORING_SETUP_NO_SQARRAY (1U << 16) /* 6.6 */
#endif

#endif
