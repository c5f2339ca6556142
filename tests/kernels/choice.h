/* choice.h - the files of the program test_choice. */
#ifndef CHOICE_H
#define CHOICE_H

#include "attention/internal.h"
#include "t.h"

const qkv_plan *choice_plan(const qkv_desc *d);

void test_bits(void);

#endif
