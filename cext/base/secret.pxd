# SPDX-License-Identifier: Apache-2.0
cdef extern from "base/secret.h" nogil:
    void secret_erase(void *p, size_t length)
    bint secret_equal(const void *a, const void *b, size_t length)
