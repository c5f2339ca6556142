#!/usr/bin/env python3
"""Make src/kernels/simd/code_tables.h: codes of 8 bits as the two bytes of a bf16, by their magnitude.

    python3 tools/gen_code_tables.py > src/kernels/simd/code_tables.h
"""
import math
import struct


def fp8(code, exponent_bits, bias):
    fraction_bits = 7 - exponent_bits
    exponent, fraction = code >> fraction_bits, code & ((1 << fraction_bits) - 1)
    top = (1 << exponent_bits) - 1
    if exponent_bits == 5 and exponent == top:
        return math.nan if fraction else math.inf
    if exponent_bits == 4 and code == 127:
        return math.nan
    if exponent == 0:
        return math.ldexp(fraction, 1 - bias - fraction_bits)
    return math.ldexp(fraction + (1 << fraction_bits), exponent - bias - fraction_bits)


def bf16(x):
    if math.isnan(x):
        return 0x7FC0
    bits = struct.unpack(">I", struct.pack(">f", x))[0]
    assert bits & 0xFFFF == 0, x
    return bits >> 16


FORMATS = {
    "I8": lambda code: float(code),
    "E4M3": lambda code: fp8(code, 4, 7),
    "E5M2": lambda code: fp8(code, 5, 15),
}

print("""/*
 * simd/code_tables.h - the low and the high bytes of the bf16 for each magnitude 0 .. 127 of a code.
 *
 * Made by tools/gen_code_tables.py; change that, not this.
 */
#ifndef QKV_SIMD_CODE_TABLES_H
#define QKV_SIMD_CODE_TABLES_H

#include <stdint.h>
""")
for name, value in FORMATS.items():
    words = [bf16(value(code)) for code in range(128)]
    print(f"static const uint8_t code_table_{name}[2][128] = {{")
    for shift in (0, 8):
        data = [f"0x{word >> shift & 255:02x}" for word in words]
        rows = [", ".join(data[i : i + 16]) for i in range(0, 128, 16)]
        print("    {" + ",\n     ".join(rows) + "},")
    print("};\n")
print("#endif")
