/* SPDX-License-Identifier: Apache-2.0 */
/* prctl(2): PR_SET_DUMPABLE, PR_GET_DUMPABLE. */
#include "host/process.h"

#include <errno.h>
#include <sys/prctl.h>

int process_keep_memory(void)
{
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return -errno;
	return prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0 ? 0 : -EPERM;
}
