/* damage.h - a small saved cache to be damaged. */
#ifndef DAMAGE_H
#define DAMAGE_H

#include "tape.h"

/* A cache with two sequences, and open pages if the format has them, saved; it is empty again. */
qkv_cache *small_file(tape *t, int32_t k_format, qkv_cache_config *c);

/* Loads what is on the tape into an empty cache and expects a refusal that leaves it empty. */
void expect_refusal(qkv_cache *cache, tape *t, const char *what, int at);

#endif
