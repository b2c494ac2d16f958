/* SPDX-License-Identifier: Apache-2.0 */
/* clock_gettime(2), getrandom(2) and what stands in for them on old kernels. */
#define _GNU_SOURCE
#include "host/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static uint64_t read_clock(clockid_t id)
{
	struct timespec ts;

	if (clock_gettime(id, &ts) < 0)
		return 0;
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t clock_now_ns(void)
{
	uint64_t now = read_clock(CLOCK_BOOTTIME); /* 2.6.39 */

	return now ? now : read_clock(CLOCK_MONOTONIC);
}

uint64_t clock_unix_ns(void)
{
	return read_clock(CLOCK_REALTIME);
}

/* Before getrandom (3.17): the same pool through its device node. */
static int read_device(uint8_t *out, size_t len)
{
	int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
	int error = 0;

	if (fd < 0)
		return -errno;
	while (len && !error) {
		ssize_t n = read(fd, out, len);

		if (n > 0) {
			out += n;
			len -= (size_t)n;
		} else if (n == 0 || errno != EINTR) {
			error = n == 0 ? -EIO : -errno;
		}
	}
	close(fd);
	return error;
}

int entropy_fill(void *to, size_t len)
{
	uint8_t *out = to;

	while (len) {
		long n = syscall(SYS_getrandom, out, len, 0);

		if (n > 0) {
			out += n;
			len -= (size_t)n;
		} else if (n < 0 && errno == ENOSYS) {
			return read_device(out, len);
		} else if (n < 0 && errno != EINTR) {
			return -errno;
		}
	}
	return 0;
}
