/* SPDX-License-Identifier: Apache-2.0 */
/* Lets CPython 3.11's _ssl.c compile against an OpenSSL without finite-field DH.
 *
 * Included before that file, so it starts as that file does: the two defines decide what Python.h
 * and OpenSSL's headers declare.  SSLContext.load_dh_params() then raises an SSLError.
 */
#define PY_SSIZE_T_CLEAN
#define OPENSSL_API_COMPAT 0x10101000L
#include "Python.h"
#include <openssl/err.h>
#include <openssl/pem.h>

#ifdef OPENSSL_NO_DH
static inline void DH_free(DH *dh)
{
	(void)dh;
}

static inline DH *PEM_read_DHparams(FILE *file, DH **dh, pem_password_cb *callback, void *arg)
{
	(void)file, (void)dh, (void)callback, (void)arg;
	ERR_raise(ERR_LIB_USER, ERR_R_UNSUPPORTED);
	return NULL;
}
#endif
