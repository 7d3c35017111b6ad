// The number types of the device on the host: bf16 and f16, rounded to nearest, ties to even.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#include <algorithm>

struct bf16 {
    uint16_t bits;
};
struct f16 {
    uint16_t bits;
};

inline float as_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
inline uint32_t as_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

inline float to_float(float x) { return x; }
inline float to_float(bf16 x) { return as_float((uint32_t)x.bits << 16); }
inline float to_float(f16 x) {
    // The fraction where f32 has it; the power of two makes up for what the exponents begin at.
    float size = as_float((uint32_t)(x.bits & 0x7fff) << 13) * 0x1p112f;
    if ((x.bits & 0x7c00) == 0x7c00) size = x.bits & 0x3ff ? NAN : INFINITY;
    return x.bits >> 15 ? -size : size;
}
template <typename T> T from_float(float x);
template <> inline float from_float<float>(float x) { return x; }
template <> inline bf16 from_float<bf16>(float x) {
    uint32_t bits = as_bits(x);
    if (isnan(x)) return {(uint16_t)(bits >> 16 | 64)};
    return {(uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
template <> inline f16 from_float<f16>(float x) {
    uint16_t sign = as_bits(x) >> 16 & 0x8000;
    float size = fabsf(x);
    if (isnan(x)) return {(uint16_t)(sign | 0x7e00)};
    if (size == 0) return {sign};
    if (size >= 65520.0f) return {(uint16_t)(sign | 0x7c00)};
    int exponent;
    frexpf(size, &exponent);
    exponent = std::max(exponent, -13);
    // Ulps of the number's binade; nearbyintf rounds to even.
    int ulps = (int)nearbyintf(ldexpf(size, 11 - exponent));
    return {(uint16_t)(sign | (((exponent + 13) << 10) + ulps))};
}
