/* SPDX-License-Identifier: Apache-2.0 */
/* Known answers that must come out right before anything of ours starts. */
#include "base/endian.h"
#include "base/secret.h"
#include "crypto/variant.h"

/* RFC 8439 section 2.8.2 */
static const char rfc8439_text[] =
	"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the "
	"future, sunscreen would be it.";
#define RFC8439_LEN (sizeof(rfc8439_text) - 1)
static const uint8_t rfc8439_ad[12] = {
	0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7,
};
static const uint8_t rfc8439_nonce[12] = {
	0x07, 0x00, 0x00, 0x00, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47,
};
static const uint8_t rfc8439_head[8] = { 0xd3, 0x1a, 0x8d, 0x34, 0x64, 0x8e, 0x60, 0xdb };
static const uint8_t rfc8439_tag[16] = {
	0x1a, 0xe1, 0x0b, 0x59, 0x4f, 0x09, 0xe2, 0x6a,
	0x7e, 0x90, 0x2e, 0xcb, 0xd0, 0x60, 0x06, 0x91,
};

/*
 * A batch that makes each code path of a wide implementation run: lengths on
 * both sides of every block and lane count, two keys, more jobs than lanes.  The
 * digest is BLAKE2s-256 over all ciphertexts and tags, made with pycryptodome.
 */
static const uint16_t batch_len[] = {
	0, 1, 15, 16, 17, 31, 48, 63, 64, 65, 128, 129, 191, 192, 255, 256, 320, 448, 449, 512,
	513, 80, 80, 80, 80, 1024, 1025, 1420, 1420, 33,
};
#define BATCH (sizeof(batch_len) / sizeof(batch_len[0]))
#define BATCH_BYTES 9500
static const uint8_t batch_digest[BLAKE2S_LEN] = {
	0x28, 0x68, 0x90, 0xff, 0x8a, 0x6d, 0xfa, 0xb2, 0xc2, 0xab, 0x22,
	0x06, 0x43, 0xbb, 0x4f, 0xa0, 0xa3, 0x50, 0xc4, 0xce, 0x0d, 0xbb,
	0xfe, 0x34, 0xa8, 0xc6, 0xfe, 0x37, 0x17, 0x22, 0x95, 0xf6,
};

static bool selftest_one(const struct aead_variant *v)
{
	uint8_t key[AEAD_KEY_LEN], sealed[RFC8439_LEN + AEAD_TAG_LEN], opened[RFC8439_LEN];

	for (size_t i = 0; i < sizeof(key); i++)
		key[i] = (uint8_t)(0x80 + i);
	v->seal(v, sealed, (const uint8_t *)rfc8439_text, RFC8439_LEN, rfc8439_ad, sizeof(rfc8439_ad),
		rfc8439_nonce, key);
	if (memcmp(sealed, rfc8439_head, sizeof(rfc8439_head)) ||
	    memcmp(sealed + RFC8439_LEN, rfc8439_tag, sizeof(rfc8439_tag)))
		return false;
	if (!v->open(v, opened, sealed, RFC8439_LEN, rfc8439_ad, sizeof(rfc8439_ad), rfc8439_nonce,
		     key) ||
	    memcmp(opened, rfc8439_text, RFC8439_LEN))
		return false;
	sealed[RFC8439_LEN + 15] ^= 0x80;
	return !v->open(v, opened, sealed, RFC8439_LEN, rfc8439_ad, sizeof(rfc8439_ad), rfc8439_nonce,
			key);
}

static uint8_t batch_byte(size_t i)
{
	return (uint8_t)(i * 7 + (i >> 8));
}

static bool selftest_batch(const struct aead_variant *v)
{
	struct aead_job jobs[BATCH];
	uint8_t keys[2][AEAD_KEY_LEN], bytes[BATCH_BYTES], digest[BLAKE2S_LEN];
	size_t used = 0, i;

	for (i = 0; i < sizeof(keys); i++)
		keys[i / AEAD_KEY_LEN][i % AEAD_KEY_LEN] = (uint8_t)(i * 3 + 1);
	for (i = 0; i < BATCH; i++) {
		jobs[i] = (struct aead_job){
			.key = keys[i % 7 == 3],
			.counter = UINT64_C(0x0123456700000000) * (i & 1) + i,
			.in = bytes + used,
			.out = bytes + used,
			.len = batch_len[i],
		};
		used += batch_len[i] + AEAD_TAG_LEN;
	}
	for (i = 0; i < used; i++)
		bytes[i] = batch_byte(i);
	v->seal_batch(v, jobs, BATCH);
	blake2s(digest, sizeof(digest), bytes, used, NULL, 0);
	if (memcmp(digest, batch_digest, sizeof(digest)))
		return false;

	jobs[BATCH - 1].out[3] ^= 1;
	v->open_batch(v, jobs, BATCH);
	for (i = 0; i < BATCH - 1; i++) {
		if (!jobs[i].ok)
			return false;
		for (size_t k = 0; k < jobs[i].len; k++)
			if (jobs[i].out[k] != batch_byte((size_t)(jobs[i].out + k - bytes)))
				return false;
	}
	return !jobs[BATCH - 1].ok;
}

bool selftest_aead(const struct aead_variant *v)
{
	return selftest_one(v) && selftest_batch(v);
}

bool selftest_hashes(void)
{
	/* RFC 7693 appendix B; the keyed mode and the derivation over counted bytes. */
	static const uint8_t abc[BLAKE2S_LEN] = {
		0x50, 0x8c, 0x5e, 0x8c, 0x32, 0x7c, 0x14, 0xe2, 0xe1, 0xa7, 0x2b,
		0xa3, 0x4e, 0xeb, 0x45, 0x2f, 0x37, 0x45, 0x8b, 0x20, 0x9e, 0xd6,
		0x3a, 0x29, 0x4d, 0x99, 0x9b, 0x4c, 0x86, 0x67, 0x59, 0x82,
	};
	static const uint8_t keyed[16] = {
		0x42, 0xa6, 0xf8, 0xff, 0x59, 0x0a, 0xf2, 0x1b, 0x51, 0x2e, 0x9e,
		0x08, 0x82, 0x57, 0xaa, 0x34,
	};
	static const uint8_t derived[BLAKE2S_LEN] = {
		0x2d, 0x47, 0x48, 0xe2, 0x9b, 0x90, 0xd9, 0x20, 0x57, 0x48, 0x9d,
		0x6a, 0xaa, 0x0e, 0xe0, 0xd2, 0xa1, 0x35, 0x11, 0x3b, 0x4b, 0xaa,
		0xef, 0xb8, 0xd8, 0x2f, 0xb5, 0x4b, 0xff, 0xe1, 0x64, 0x96,
	};
	uint8_t in[200], out[3 * BLAKE2S_LEN];

	for (size_t i = 0; i < sizeof(in); i++)
		in[i] = (uint8_t)i;
	blake2s(out, BLAKE2S_LEN, (const uint8_t *)"abc", 3, NULL, 0);
	if (memcmp(out, abc, sizeof(abc)))
		return false;
	blake2s(out, sizeof(keyed), in, sizeof(in), in, BLAKE2S_LEN);
	if (memcmp(out, keyed, sizeof(keyed)))
		return false;
	kdf(out, 3, in, in, 100);
	return !memcmp(out + 2 * BLAKE2S_LEN, derived, sizeof(derived));
}
