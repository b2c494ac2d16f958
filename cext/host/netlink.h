/* SPDX-License-Identifier: Apache-2.0 */
/* The one rtnetlink request that the data plane makes. */
#ifndef WT_HOST_NETLINK_H
#define WT_HOST_NETLINK_H

#include <stdint.h>

/**
 * netlink_set_gso_max() - Bound the super-packets that a device is given
 * @ifindex:	The device, in the calling thread's namespace
 * @bytes:	IFLA_GSO_MAX_SIZE
 * @segments:	IFLA_GSO_MAX_SEGS
 *
 * Return: 0 or -errno
 */
int netlink_set_gso_max(uint32_t ifindex, uint32_t bytes, uint32_t segments);

#endif /* WT_HOST_NETLINK_H */
