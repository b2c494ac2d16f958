/* SPDX-License-Identifier: Apache-2.0 */
/* Where the one HTTP request that may pass through a relayed flow ends (RFC 9112, 6 and 7). */
#ifndef WT_ENGINE_RELAY_BODY_H
#define WT_ENGINE_RELAY_BODY_H

#include <stdbool.h>
#include <stdint.h>

/**
 * DOC: Theory of operation - body
 *
 * The interpreter parses the head of a request in absolute form and says how its
 * body is framed.  What the client sends behind the body would be another request,
 * for another host perhaps and with the proxy's password: it must not reach this one.
 * So the body's bytes are counted as they pass, unchanged, and the rest is dropped:
 *
 *	BODY_LENGTH	@left bytes
 *	BODY_CHUNKED	SIZE -> [EXTENSION ->] SIZE_LF -> DATA -> DATA_CR -> DATA_LF -> SIZE
 *			chunk of size 0 -> LINE -> [TRAILER -> TRAILER_LF -> LINE ->] END_LF
 *	BODY_ENDED	nothing passes any more
 *	BODY_BROKEN	no chunked body (bare CR or LF, no size, too long): so is the flow
 *
 * Strictness is what keeps the two ends of one mind about where a body ends.
 * Limits: a size has at most 15 digits; extensions and trailers together have at most
 * BODY_LINES_BYTES, which no client in use needs.
 */
enum body_kind {
	BODY_ANY,		/* no request: everything passes */
	BODY_LENGTH,
	BODY_CHUNKED,
	BODY_ENDED,
	BODY_BROKEN,
};

enum {
	BODY_LINES_BYTES = 16 * 1024,
	BODY_SIZE_DIGITS = 15,
};

/**
 * struct relay_body - What of a request's body is still to come
 * @left:	LENGTH: bytes; CHUNKED: of this chunk
 * @lines:	CHUNKED: bytes of extensions and trailers so far
 * @kind:	enum body_kind
 * @step:	CHUNKED: enum body_step of relay_body.c
 * @digits:	CHUNKED: of the size
 */
struct relay_body {
	uint64_t left;
	uint16_t lines;
	uint8_t kind;
	uint8_t step;
	uint8_t digits;
};

void body_init(struct relay_body *b, bool chunked, uint64_t length);
/* How many of the next bytes belong to the body; fewer than @len: it ended or is broken. */
uint32_t body_take(struct relay_body *b, const uint8_t *data, uint32_t len);

#endif /* WT_ENGINE_RELAY_BODY_H */
