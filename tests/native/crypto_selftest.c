/* SPDX-License-Identifier: Apache-2.0 */
/* The AEAD on a foreign CPU: known answers, then every variant against plain C. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/endian.h"
#include "crypto/variant.h"

#define JOBS 24
#define LONGEST 1600
#define STRIDE (LONGEST + 16 + 96)

static uint8_t plain[JOBS * STRIDE], ours[JOBS * STRIDE], theirs[JOBS * STRIDE];
static uint8_t keys[3][AEAD_KEY_LEN];
static uint32_t seed = 1;

static uint32_t draw(uint32_t below)
{
	seed = seed * 1664525u + 1013904223u;
	return (seed >> 8) % below;
}

static void fail(const char *name, const char *what, size_t n)
{
	printf("FAILED %s: %s at %zu\n", name, what, n);
	exit(1);
}

static void compare(const struct aead_variant *v, size_t n, uint32_t longest, int in_place)
{
	struct aead_job a[JOBS], b[JOBS];
	bool tampered[JOBS];

	memcpy(ours, plain, sizeof(ours));
	memset(theirs, 0, sizeof(theirs));
	memcpy(theirs, plain, sizeof(theirs));
	for (size_t i = 0; i < n; i++) {
		size_t at = i * STRIDE + draw(64);

		a[i].key = keys[draw(3)];
		a[i].counter = (uint64_t)draw(1 << 24) << 20 | i;
		a[i].len = draw(longest + 1);
		a[i].in = (in_place ? ours : plain) + at;
		a[i].out = ours + at;
		b[i] = a[i];
		b[i].in = plain + at;
		b[i].out = theirs + at;
	}
	v->seal_batch(v, a, n);
	aead_portable.seal_batch(&aead_portable, b, n);
	if (memcmp(ours, theirs, sizeof(ours)))
		fail(v->name, "seal differs", n);
	for (size_t i = 0; i < n; i++) {
		tampered[i] = draw(4) == 0;
		if (tampered[i])
			theirs[b[i].out - theirs + draw(a[i].len + 16)] ^= 0x04;
		a[i].in = theirs + (a[i].out - ours);
	}
	memcpy(ours, theirs, sizeof(ours));
	v->open_batch(v, a, n);
	for (size_t i = 0; i < n; i++) {
		size_t at = (size_t)(a[i].out - ours);

		if (a[i].ok == tampered[i])
			fail(v->name, "verdict", i);
		if (memcmp(ours + at, (tampered[i] ? theirs : plain) + at, a[i].len))
			fail(v->name, "plaintext", i);
	}
}

static void measure(const struct aead_variant *v, uint32_t len, int rounds)
{
	struct aead_job job = { .key = keys[0], .in = plain, .out = ours, .len = len };
	clock_t start = clock();

	for (int i = 0; i < rounds; i++) {
		job.counter = (uint64_t)i;
		v->seal_batch(v, &job, 1);
	}
	printf("%s %u bytes: %.0f ns\n", v->name, (unsigned int)len,
	       (double)(clock() - start) * 1e9 / CLOCKS_PER_SEC / rounds);
}

int main(int argc, char **argv)
{
	for (size_t i = 0; i < sizeof(plain); i++)
		plain[i] = (uint8_t)draw(256);
	for (size_t i = 0; i < sizeof(keys); i++)
		keys[i / AEAD_KEY_LEN][i % AEAD_KEY_LEN] = (uint8_t)draw(256);
	if (!selftest_hashes())
		fail("blake2s", "known answer", 0);
	if (crypto_init())
		fail("init", "known answer", 0);
	for (size_t i = 0; aead_variants[i]; i++) {
		const struct aead_variant *v = aead_variants[i];

		if (!v->available())
			continue;
		if (!selftest_aead(v))
			fail(v->name, "known answer", 0);
		for (int k = 0; k < 60; k++)
			compare(v, 1 + draw(JOBS), k % 2 ? LONGEST : 200, k % 3 == 0);
		for (uint32_t len = 0; len < 400; len++)
			compare(v, 1, len, 1);
		printf("%s ok\n", v->name);
		if (argc > 1)
			for (int k = 0; k < 5; k++)
				measure(v, 1420, atoi(argv[1]));
	}
	printf("%s chosen\n", crypto_backend());
	return 0;
}
