/* SPDX-License-Identifier: Apache-2.0 */
/* Non-blocking stream and datagram sockets of the host, and a set that says which are ready. */
#ifndef WT_HOST_STREAM_H
#define WT_HOST_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "wire/endpoint.h"

/**
 * DOC: Theory of operation - ready sets
 *
 * A set is edge-triggered: it says once that a socket became readable or
 * writable, then nothing until the socket was drained, or filled, and changed
 * again.  Whoever stops before EAGAIN has to remember it.  The set's own
 * descriptor is readable while it has something to say, so that another loop
 * can wait for all sockets at once.
 *
 * Results below zero are -errno; -EAGAIN is "not now".
 */
#define STREAM_READABLE 1u
#define STREAM_WRITABLE 2u
#define STREAM_FAILED 4u
#define STREAM_EVENTS_MAX 64

struct stream_event {
	uint64_t tag;
	uint32_t flags;
};

int stream_set_open(int *set);
void stream_set_close(int *set);
int stream_watch(int set, int fd, uint64_t tag);
/** stream_wait() - What is ready now, at most STREAM_EVENTS_MAX. Never waits */
int stream_wait(int set, struct stream_event *events);

/** stream_prepare() - Make a descriptor from elsewhere non-blocking and prompt */
int stream_prepare(int fd);
/** stream_connect() - Begin a TCP connection. Return: the descriptor */
int stream_connect(const struct endpoint *to);
/** stream_error() - What became of it. Return: 0 or -errno */
int stream_error(int fd);
/** stream_read() - Return: bytes, 0 at the end of the stream */
int stream_read(int fd, const struct iovec *parts, unsigned int n);
int stream_send(int fd, const uint8_t *data, uint32_t len);
/** stream_send_parts() - The same, gathered. Return: bytes */
int stream_send_parts(int fd, const struct iovec *parts, unsigned int n);
/** stream_shutdown() - Say that no more will be sent */
void stream_shutdown(int fd);
void stream_close(int fd);
/** stream_reset() - Close with an RST, for TCP; what was not sent yet is lost */
void stream_reset(int fd);

/** datagram_bind() - A UDP socket at @local. Return: the descriptor */
int datagram_bind(const struct endpoint *local);
/** datagram_connect() - A UDP socket that talks to @to only. Return: the descriptor */
int datagram_connect(const struct endpoint *to);
/** datagram_port() - Where it is bound. Return: the port */
int datagram_port(int fd);
int datagram_send(int fd, const struct endpoint *to, const uint8_t *data, uint32_t len);
/** datagram_receive() - @from may be NULL. Return: length; longer ones are cut at @capacity */
int datagram_receive(int fd, struct endpoint *from, uint8_t *data, uint32_t capacity);

#endif /* WT_HOST_STREAM_H */
