/* SPDX-License-Identifier: Apache-2.0 */
/* Keys and plaintext marked undefined: valgrind reports each branch or address made of them. */
#include <stdio.h>
#include <string.h>
#include <valgrind/memcheck.h>

#include "crypto/variant.h"

#define JOBS 40
#define STRIDE 1700

static uint8_t packets[JOBS * STRIDE];

static void seal_batches(const struct aead_variant *v)
{
	for (unsigned int n = 1; n <= JOBS; n++) {
		uint8_t keys[2][AEAD_KEY_LEN] = { { 0 } };
		struct aead_job jobs[JOBS];

		for (unsigned int i = 0; i < n; i++) {
			jobs[i].key = keys[n > JOBS / 2 ? i & 1 : 0];
			jobs[i].counter = i;
			jobs[i].in = jobs[i].out = packets + STRIDE * i;
			jobs[i].len = (i * 97 + n * 31) % 1500;
			VALGRIND_MAKE_MEM_UNDEFINED(packets + STRIDE * i, jobs[i].len);
		}
		VALGRIND_MAKE_MEM_UNDEFINED(keys, sizeof(keys));
		v->seal_batch(v, jobs, n);
	}
}

int main(int argc, char **argv)
{
	uint8_t key[32], message[200], out[96];

	for (size_t i = 0; aead_variants[i]; i++)
		for (int k = 1; k < argc; k++)
			if (!strcmp(aead_variants[i]->name, argv[k]) && aead_variants[i]->available()) {
				seal_batches(aead_variants[i]);
				printf("%s\n", argv[k]);
			}
	VALGRIND_MAKE_MEM_UNDEFINED(key, sizeof(key));
	VALGRIND_MAKE_MEM_UNDEFINED(message, sizeof(message));
	blake2s(out, 32, message, sizeof(message), key, sizeof(key));
	kdf(out, 3, key, message, 100);
	hchacha20(out, message, key);
	/* The check of the check: this branch must be found when asked for. */
	if (argc > 1 && !strcmp(argv[1], "leak") && key[0] == 7)
		printf("leak\n");
	return 0;
}
