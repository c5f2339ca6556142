/*
 * qkv/qkv.h - all of qkv's public headers.
 *
 * base.h, attention.h, cache.h, cache_view.h, formats.h, model.h, ref.h, rope.h and sizing.h are
 * libqkv (pkg-config qkv); io.h and layers.h are libqkv_model (pkg-config qkv_model).  Each header
 * also stands alone.
 */
#ifndef QKV_QKV_H
#define QKV_QKV_H

#include "qkv/attention.h"
#include "qkv/base.h"
#include "qkv/cache.h"
#include "qkv/cache_view.h"
#include "qkv/formats.h"
#include "qkv/io.h"
#include "qkv/layers.h"
#include "qkv/model.h"
#include "qkv/ref.h"
#include "qkv/rope.h"
#include "qkv/sizing.h"

#endif /* QKV_QKV_H */
