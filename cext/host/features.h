/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel features that we use where they are and do without where not. */
#ifndef WT_HOST_FEATURES_H
#define WT_HOST_FEATURES_H

#include <stdint.h>

/*
 * Names are part of the interface: `disable` of the engine, -status and the
 * tests use them.  A feature is wanted until it was found missing, either when
 * a descriptor is opened or by the first call that fails for its sake.
 */
#define WT_HOST_FEATURES(X)                                                    \
	X(VNET_HDR, "vnet_hdr") /* checksum and segmentation left to us by TUN */ \
	X(TSO, "tso")		/* TCP super-packets through TUN */            \
	X(USO, "uso")		/* UDP super-packets through TUN, Linux 6.2 */ \
	X(GSO_MAX, "gso_max")	/* one super-packet sized to fit one send */   \
	X(UDP_GSO, "udp_gso")	/* one send of many datagrams, Linux 4.18 */   \
	X(UDP_GRO, "udp_gro")	/* one receive of many datagrams, Linux 5.0 */ \
	X(MMSG, "mmsg")		/* recvmmsg, sendmmsg */                       \
	X(PKTINFO, "pktinfo")	/* sticky source addresses */                  \
	X(IPV6, "ipv6")		/* a second UDP socket */

enum host_feature_index {
#define X(name, text) HOST_FEATURE_##name,
	WT_HOST_FEATURES(X)
#undef X
	HOST_FEATURE_COUNT,
};

enum host_feature {
#define X(name, text) HOST_##name = 1 << HOST_FEATURE_##name,
	WT_HOST_FEATURES(X)
#undef X
	HOST_ALL_FEATURES = (1 << HOST_FEATURE_COUNT) - 1,
};

/** host_feature_name() - The stable name of a feature, by index */
const char *host_feature_name(unsigned int index);

/** host_probe() - Which of @wanted this kernel has, as far as can be told beforehand
 *
 * Opens and closes two sockets.  What needs a TUN device (vnet_hdr, tso, uso,
 * gso_max) is told by tun_open() and left in the answer here.
 */
uint32_t host_probe(uint32_t wanted);

#endif /* WT_HOST_FEATURES_H */
