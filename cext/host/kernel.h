/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers of the Linux ABI that older headers lack, so that we build anywhere. */
#ifndef WT_HOST_KERNEL_H
#define WT_HOST_KERNEL_H

/* For struct in6_pktinfo and recvmmsg; before any system header. */
#ifndef _GNU_SOURCE
#error "compile with -D_GNU_SOURCE or define it first"
#endif

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103 /* linux/udp.h, 4.18 */
#endif
#ifndef UDP_GRO
#define UDP_GRO 104 /* linux/udp.h, 5.0 */
#endif
#ifndef TUN_F_TSO_ECN
#define TUN_F_TSO_ECN 0x08
#endif
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20 /* linux/if_tun.h, 6.2 */
#define TUN_F_USO6 0x40
#endif

#ifndef TUNGETDEVNETNS
#define TUNGETDEVNETNS _IO('T', 227) /* linux/if_tun.h, 5.2 */
#endif

/* IFLA_* are enumerators, so that #ifdef cannot ask for them. */
#define WT_IFLA_GSO_MAX_SEGS 40 /* linux/if_link.h, 4.4; settable since 4.16 */
#define WT_IFLA_GSO_MAX_SIZE 41

#endif /* WT_HOST_KERNEL_H */
