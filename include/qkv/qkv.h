/*
 * qkv/qkv.h - all of qkv's public headers.
 *
 * base.h, attention.h, cache.h, cache_view.h, formats.h and ref.h are libqkv (pkg-config qkv);
 * io.h is libqkv_model (pkg-config qkv_model).  Each header also stands alone.
 */
#ifndef QKV_QKV_H
#define QKV_QKV_H

#include "qkv/attention.h"
#include "qkv/base.h"
#include "qkv/cache.h"
#include "qkv/cache_view.h"
#include "qkv/formats.h"
#include "qkv/io.h"
#include "qkv/ref.h"

#endif /* QKV_QKV_H */
