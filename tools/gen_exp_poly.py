#!/usr/bin/env python3
"""Make src/kernels/simd/exp_poly.h: coefficients of (e^r - 1)/r on [-ln2/2, ln2/2] and of
(2^f - 1)/f on [-1/2, 1/2] and on [0, 1].

The polynomial interpolates at Chebyshev nodes in 60-digit arithmetic, which is within a few
percent of minimax for so smooth a function; the error stated in the header is measured on
20,001 points with the coefficients rounded to the target type.  Needs mpmath.

    python3 tools/gen_exp_poly.py > src/kernels/simd/exp_poly.h
"""
import struct

from mpmath import mp, mpf, cos, exp, expm1, floor, ldexp, pi, log, lu_solve, matrix

mp.dps = 60
LN2 = log(mpf(2))


def target(f, unit):
    """(b^f - 1)/f for the base b whose logarithm is `unit`."""
    return unit if f == 0 else expm1(f * unit) / f


def rounded(x, single):
    return mpf(struct.unpack("f", struct.pack("f", float(x)))[0]) if single else mpf(float(x))


def fit(degree, single, unit, middle):
    n = degree + 1
    reach = LN2 / unit / 2
    nodes = [cos(pi * (2 * i + 1) / (2 * n)) * reach + middle for i in range(n)]
    a = matrix(n, n)
    for i, f in enumerate(nodes):
        for j in range(n):
            a[i, j] = f**j
    c = lu_solve(a, matrix([target(f, unit) for f in nodes]))
    c = [rounded(x, single) for x in c]
    worst = mpf(0)
    for i in range(20001):
        f = mpf(i - 10000) / 10000 * reach + middle
        p = mpf(0)
        for x in reversed(c):
            p = p * f + x
        worst = max(worst, abs((1 + f * p) / exp(f * unit) - 1))
    return c, worst


def show(name, degree, single, unit=mpf(1), middle=mpf(0)):
    c, worst = fit(degree, single, unit, middle)
    suffix = "f" if single else ""
    digits = 9 if single else 17
    what = "e^r" if unit == 1 else "2^r"
    print(f"/* Largest relative error of 1 + r P(r) against {what}: {float(worst):.1e}. */")
    print(f"#define {name}(FIRST, NEXT) \\")
    names = ["FIRST"] + ["NEXT"] * degree
    rows = [f"    {n}({float(x):.{digits - 1}e}{suffix})" for n, x in zip(names, reversed(c))]
    print(" \\\n".join(rows))
    print()


def constants(name, single, high_bits):
    """log2(e), and ln 2 in two parts: n times the first is exact for every exponent n."""
    suffix = "f" if single else ""
    digits = 9 if single else 17
    high = ldexp(floor(ldexp(LN2, high_bits)), -high_bits)
    for what, x in (("LOG2E", 1 / LN2), ("LN2_HIGH", high), ("LN2_LOW", LN2 - high)):
        print(f"#define QKV_{what}_{name} {float(rounded(x, single)):.{digits - 1}e}{suffix}")


print("""/*
 * simd/exp_poly.h - e^r = 1 + r P(r) for |r| <= ln(2)/2, 2^r likewise for |r| <= 1/2 and, with UP in
 * the name, for 0 <= r <= 1; log2(e), and ln 2 in two parts.
 *
 * Made by tools/gen_exp_poly.py; change that, not this.  Each list expands FIRST(c) with the
 * highest coefficient and NEXT(c) with the others downwards, ready for Horner's rule.
 */
#ifndef QKV_SIMD_EXP_POLY_H
#define QKV_SIMD_EXP_POLY_H
""")
show("QKV_EXPM1_F32", 5, True)
show("QKV_EXPM1_F64", 11, False)
show("QKV_EXP2M1_F32", 5, True, LN2)
show("QKV_EXP2M1_BF16", 4, True, LN2)
show("QKV_EXP2M1_UP_F32", 5, True, LN2, mpf(1) / 2)
show("QKV_EXP2M1_UP_BF16", 4, True, LN2, mpf(1) / 2)
constants("F32", True, 14)
constants("F64", False, 41)
print("\n#endif")
