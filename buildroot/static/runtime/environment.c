// SPDX-License-Identifier: Apache-2.0
/* Drops every PYTHON... variable before the interpreter reads it.
 *
 * The program runs as root, often from another program; nothing in its environment may decide what
 * code it runs or where it writes.
 */
#include <string.h>

extern char **environ;

__attribute__((constructor)) static void drop_python_variables(void)
{
	char **keep = environ;

	if (!environ)
		return;
	for (char **row = environ; *row; row++)
		if (strncmp(*row, "PYTHON", 6) != 0)
			*keep++ = *row;
	*keep = NULL;
}
