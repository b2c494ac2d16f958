/* SPDX-License-Identifier: Apache-2.0 */
/* The names of the drop reasons. */
#include "base/drops.h"

static const char *const names[DROP_REASON_COUNT] = {
#define X(name, text) [DROP_##name] = text,
	WT_DROP_REASONS(X)
#undef X
};

const char *drop_reason_name(enum drop_reason reason)
{
	if ((int)reason < 0 || reason >= DROP_REASON_COUNT)
		return "none";
	return names[reason];
}
