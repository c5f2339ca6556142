/* props.h - what the property tests share. */
#ifndef PROPS_H
#define PROPS_H

#include "t_problem.h"

/* A tier of this machine, another one for each i. */
uint32_t some_tier(int i);

/* Do o, and lse if there is one, of two problems of the same shape agree within `times` the sum
 * of their budgets?  Fails the case with `what` if not. */
void check_near(const t_problem *x, const t_problem *y, double times, const char *what);

/* Rows of sequence b in x against sequence c in y, bit by bit. */
void check_same_rows(const t_problem *x, int32_t b, const t_problem *y, int32_t c,
                     const char *what);

void test_threads(void);
void test_alone(void);
void test_layouts(void);
void test_padding(void);
void test_two_plans(void);

void test_permutation(void);
void test_shift(void);
void test_merge(void);
void test_masks(void);
void test_grouped(void);
void test_convexity(void);
void test_linearity(void);
void test_decode(void);

#endif
