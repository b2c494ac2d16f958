/* SPDX-License-Identifier: Apache-2.0 */
/* Nuitka's constants as read-only data. BLOB is the file; BLOB_HASH is there so that a compiler
   cache, which does not look into .incbin, sees a change. */
	.section .rodata
	.globl constant_bin_data
	.balign 16
constant_bin_data:
	.incbin BLOB
	.byte 0
	.section .note.GNU-stack,"",%progbits
