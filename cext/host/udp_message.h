/* SPDX-License-Identifier: Apache-2.0 */
/* Between struct endpoint and what sendmsg(2) and recvmsg(2) want. */
#ifndef WT_HOST_UDP_MESSAGE_H
#define WT_HOST_UDP_MESSAGE_H

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "host/udp.h"

union udp_address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

/**
 * struct udp_message - Everything that one struct msghdr points to
 * @address:	Remote address
 * @iov:	The payload
 * @control:	Control messages: source address, segment length, TOS
 */
struct udp_message {
	union udp_address address;
	struct iovec iov;
	union {
		uint8_t bytes[CMSG_SPACE(sizeof(struct in6_pktinfo)) + 3 * CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
};

/** udp_message_to() - Prepare @header to send @len bytes at @data of @run */
void udp_message_to(struct msghdr *header, struct udp_message *m, const struct udp_run *run,
		    const uint8_t *data, uint32_t len);

/** udp_message_room() - Prepare @header to receive into @buffer */
void udp_message_room(struct msghdr *header, struct udp_message *m,
		      const struct udp_buffer *buffer);

/** udp_message_from() - Read the sender, our address and the segment length */
void udp_message_from(const struct msghdr *header, const struct udp_message *m,
		      struct udp_buffer *buffer, uint32_t len);

#endif /* WT_HOST_UDP_MESSAGE_H */
