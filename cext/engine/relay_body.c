/* SPDX-License-Identifier: Apache-2.0 */
/* Counting the bytes of an HTTP request's body. */
#include "engine/relay_body.h"

#include <string.h>

enum body_step {
	STEP_SIZE,
	STEP_EXTENSION,
	STEP_SIZE_LF,
	STEP_DATA,
	STEP_DATA_CR,
	STEP_DATA_LF,
	STEP_LINE,
	STEP_TRAILER,
	STEP_TRAILER_LF,
	STEP_END_LF,
};

void body_init(struct relay_body *b, bool chunked, uint64_t length)
{
	memset(b, 0, sizeof(*b));
	b->kind = chunked ? BODY_CHUNKED : length ? BODY_LENGTH : BODY_ENDED;
	b->left = chunked ? 0 : length;
}

static int hex_value(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void fail(struct relay_body *b)
{
	b->kind = BODY_BROKEN;
}

static void size_byte(struct relay_body *b, uint8_t c)
{
	int value = hex_value(c);

	if (value >= 0) {
		b->left = b->left << 4 | (uint64_t)value;
		if (++b->digits > BODY_SIZE_DIGITS)
			fail(b);
	} else if (b->digits == 0) {
		fail(b);
	} else if (c == '\r') {
		b->step = STEP_SIZE_LF;
	} else if (c == ';' || c == ' ' || c == '\t') {
		b->step = STEP_EXTENSION;
	} else {
		fail(b);
	}
}

/* A byte of a line that is only passed on; @behind: the step when its CR comes. */
static void line_byte(struct relay_body *b, uint8_t c, uint8_t behind)
{
	if (c == '\r')
		b->step = behind;
	else if ((c < 0x20 && c != '\t') || c == 0x7f || ++b->lines > BODY_LINES_BYTES)
		fail(b);
}

/* A byte that can only be @c. */
static void expect(struct relay_body *b, uint8_t got, uint8_t c, uint8_t next)
{
	if (got == c)
		b->step = next;
	else
		fail(b);
}

static void framing_byte(struct relay_body *b, uint8_t c)
{
	switch (b->step) {
	case STEP_SIZE:
		size_byte(b, c);
		break;
	case STEP_EXTENSION:
		line_byte(b, c, STEP_SIZE_LF);
		break;
	case STEP_SIZE_LF:
		expect(b, c, '\n', b->left ? STEP_DATA : STEP_LINE);
		break;
	case STEP_DATA_CR:
		expect(b, c, '\r', STEP_DATA_LF);
		break;
	case STEP_DATA_LF:
		expect(b, c, '\n', STEP_SIZE);
		b->digits = 0;
		break;
	case STEP_LINE:
		b->step = STEP_TRAILER;
		line_byte(b, c, STEP_END_LF);
		break;
	case STEP_TRAILER:
		line_byte(b, c, STEP_TRAILER_LF);
		break;
	case STEP_TRAILER_LF:
		expect(b, c, '\n', STEP_LINE);
		break;
	case STEP_END_LF:
		if (c == '\n')
			b->kind = BODY_ENDED;
		else
			fail(b);
		break;
	}
}

static uint32_t take_left(struct relay_body *b, uint32_t len)
{
	uint32_t n = b->left < len ? (uint32_t)b->left : len;

	b->left -= n;
	return n;
}

static uint32_t take_chunked(struct relay_body *b, const uint8_t *data, uint32_t len)
{
	uint32_t at = 0;

	while (at < len && b->kind == BODY_CHUNKED) {
		if (b->step != STEP_DATA) {
			framing_byte(b, data[at]);
			at += b->kind != BODY_BROKEN;
			continue;
		}
		at += take_left(b, len - at);
		if (b->left == 0)
			b->step = STEP_DATA_CR;
	}
	return at;
}

uint32_t body_take(struct relay_body *b, const uint8_t *data, uint32_t len)
{
	uint32_t n;

	switch (b->kind) {
	case BODY_ANY:
		return len;
	case BODY_LENGTH:
		n = take_left(b, len);
		if (b->left == 0)
			b->kind = BODY_ENDED;
		return n;
	case BODY_CHUNKED:
		return take_chunked(b, data, len);
	default:
		return 0;
	}
}
